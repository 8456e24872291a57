"""Voice activity: synthetic speech between pauses, under noises of many kinds, for silero VAD.

    python -m benchmarks.fetch silero-vad
    graphopt optimize benchmarks/cache/silero-vad/silero_vad_16k_sequence.onnx \
        --data benchmarks/tasks/speech.py:samples --metric cosine@speech_probs --pass quantize-weights

``espeak-ng`` speaks the words of ``ocr_words`` in many voices. One sample is one recording, which a run
of the model takes whole: 64 frames of 512 values at 16 kHz, each behind the last 64 values of the frame
before, and a state of zeros. A frame is speech if the clean voice is loud enough to be heard in it or in
one of the two before it: the stops within words are no pauses.
"""

from __future__ import annotations

import io
import subprocess
import wave
from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.tasks.ocr_words import words

RATE = 16_000
FRAMES, NEW, CONTEXT, STATE = 64, 512, 64, (1, 1, 128)
RECORDINGS = 96
BATCH = 8
AUDIBLE = 0.05
"""The share of a voice's mean amplitude from which a frame counts as speech."""

HANGOVER = 2
"""Frames that still count as speech behind one that does."""

VOICES = ("en-us", "en-gb", "de", "fr", "es", "it", "pl")
VARIANTS = ("", "+m1", "+m3", "+m5", "+m7", "+f1", "+f2", "+f4")


def samples() -> Iterator[dict[str, np.ndarray]]:
    """Batches of recordings.

    Yields:
        ``input``, float32 ``(samples, 64, 576)``, ``h`` and ``c``, zeros ``(samples, 1, 1, 128)``,
        and ``speech``, int64 ``(samples, 64)``, 0 or 1 for each frame.

    Raises:
        FileNotFoundError: there is no ``espeak-ng``.
    """
    rng = np.random.default_rng(4)
    vocabulary = words()
    for _ in range(0, RECORDINGS, BATCH):
        made = [_recording(vocabulary, rng) for _ in range(BATCH)]
        state = np.zeros((BATCH, *STATE), np.float32)
        yield {
            "input": np.stack([_frames(heard) for heard, _ in made]),
            "h": state,
            "c": state,
            "speech": np.stack([labels for _, labels in made]),
        }


def _recording(vocabulary: list[str], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """What a microphone hears, and which frames are speech."""
    clean = np.zeros(FRAMES * NEW)
    at = int(rng.integers(0, 2 * RATE))
    while at < len(clean):
        voice = _spoken(" ".join(rng.choice(vocabulary, rng.integers(2, 7))), rng)
        part = voice[: len(clean) - at]
        clean[at : at + len(part)] = part
        at += len(voice) + int(rng.integers(RATE // 2, 2 * RATE))
    loud = np.sqrt((clean.reshape(FRAMES, NEW) ** 2).mean(axis=1)) > AUDIBLE
    labels = np.convolve(loud, np.ones(1 + HANGOVER))[:FRAMES] > 0
    noise = NOISES[rng.integers(len(NOISES))](len(clean), rng)
    noise *= 10 ** (-rng.uniform(3, 30) / 20) / np.sqrt((noise**2).mean())
    heard = (clean + noise) * 10 ** rng.uniform(-2.2, -0.9)
    return np.clip(heard, -1, 1), labels.astype(np.int64)


def _spoken(text: str, rng: np.random.Generator) -> np.ndarray:
    """A voice saying a text, at 16 kHz, with a mean square of 1."""
    voice = VOICES[rng.integers(len(VOICES))] + VARIANTS[rng.integers(len(VARIANTS))]
    manner = ["-s", str(rng.integers(120, 220)), "-p", str(rng.integers(20, 80))]
    try:
        command = ["espeak-ng", "--stdout", "-v", voice, *manner, text]
        said = subprocess.run(command, capture_output=True, check=True).stdout
    except FileNotFoundError:
        why = "espeak-ng is not installed, which speaks here; as in: apt-get install espeak-ng"
        raise FileNotFoundError(why) from None
    with wave.open(io.BytesIO(said)) as file:
        rate = file.getframerate()
        values = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
    heard = np.flatnonzero(np.abs(values) > 0.01)
    sound = _resampled(values[heard[0] : heard[-1] + 1], rate)
    spoken: np.ndarray = sound / np.sqrt((sound**2).mean())
    return spoken


def _resampled(values: np.ndarray, rate: int) -> np.ndarray:
    """The same sound at 16 kHz: its spectrum cut off at the new Nyquist frequency."""
    size = round(len(values) * RATE / rate)
    spectrum = np.fft.rfft(values)[: size // 2 + 1]
    resampled: np.ndarray = np.fft.irfft(spectrum, size) * (size / len(values))
    return resampled


def _coloured(power: float) -> Callable[[int, np.random.Generator], np.ndarray]:
    """Noise whose spectrum falls with a power of the frequency."""

    def made(size: int, rng: np.random.Generator) -> np.ndarray:
        spectrum = np.fft.rfft(rng.normal(size=size))
        falling = np.arange(1, len(spectrum) + 1) ** (-power / 2)
        noise: np.ndarray = np.fft.irfft(spectrum * falling, size)
        return noise

    return made


def _gusts(size: int, rng: np.random.Generator) -> np.ndarray:
    """Noise that swells and fades, as wind and traffic do."""
    times = np.arange(0, size, RATE // 4)
    swell = np.interp(np.arange(size), times, rng.normal(size=len(times)))
    gusts: np.ndarray = _coloured(1.0)(size, rng) * np.exp(1.5 * swell)
    return gusts


def _hum(size: int, rng: np.random.Generator) -> np.ndarray:
    """Overtones of a steady note, as of motors and mains, with some noise."""
    time = np.arange(size) / RATE
    note = rng.uniform(45, 400)
    hum: np.ndarray = 0.05 * rng.normal(size=size)
    for part in range(1, 12):
        turns = note * part * time + rng.random()
        hum += rng.uniform(0, 1) / part * np.sin(2 * np.pi * turns)
    return hum


def _clicks(size: int, rng: np.random.Generator) -> np.ndarray:
    """Short knocks, as of keys and dishes, over some noise."""
    knocks = np.zeros(size)
    for start in rng.integers(0, size - 1600, rng.integers(10, 60)):
        ring = np.sin(2 * np.pi * rng.uniform(300, 5000) / RATE * np.arange(1600))
        knocks[start : start + 1600] += ring * np.exp(-np.arange(1600) / rng.uniform(30, 300))
    made: np.ndarray = knocks + 0.02 * rng.normal(size=size)
    return made


NOISES = (_coloured(0.0), _coloured(1.0), _coloured(2.0), _gusts, _hum, _clicks)


def _frames(heard: np.ndarray) -> np.ndarray:
    """The frames of a recording with their contexts, float32 of shape ``(64, 576)``."""
    padded = np.concatenate([np.zeros(CONTEXT), heard])
    starts = np.arange(FRAMES)[:, None] * NEW
    frames: np.ndarray = padded[starts + np.arange(CONTEXT + NEW)].astype(np.float32)
    return frames
