"""Train the digits CNN: the data split, the network and the training loop.

Needs scikit-learn and the CPU build of PyTorch, by exactly ``torch==2.13.0``.
Neither is a dependency of graphopt; only a person who remakes the model needs them.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

SEED = 20
CALIBRATION = 512
EPOCHS = 150
BATCH = 64

Arrays = tuple[NDArray[np.float32], NDArray[np.int64]]


def split() -> tuple[Arrays, Arrays]:
    """Split the 1,797 digits into calibration and test parts that never overlap.

    Returns:
        ``(x, y)`` of 512 samples, on which the model is also trained, and ``(x, y)`` of the
        1,285 others. ``x`` is float32 [N, 1, 8, 8] in 0..1, ``y`` is int64 [N].
    """
    digits = load_digits()
    order = np.random.default_rng(SEED).permutation(len(digits.target))
    x = (digits.images / 16.0).astype(np.float32)[order, None]
    y = digits.target.astype(np.int64)[order]
    return (x[:CALIBRATION], y[:CALIBRATION]), (x[CALIBRATION:], y[CALIBRATION:])


class Residual(nn.Module):
    """Two convolutions with batch normalization and a residual add."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        """Create the block; a change of width or size puts a 1x1 convolution on the shortcut."""
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.short: nn.Module | None = None
        if stride != 1 or channels != out:
            self.short = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride, bias=True), nn.BatchNorm2d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, float32 [N, out, H / stride, W / stride]."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return functional.relu(y + (x if self.short is None else self.short(x)))


class DigitsCnn(nn.Module):
    """A small residual network with a hard-swish tail, global pooling and a two-layer head."""

    def __init__(self) -> None:
        """Create the layers with PyTorch's default initialization."""
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, 1, 1, bias=True)
        self.bn = nn.BatchNorm2d(16)
        self.block1 = Residual(16, 16, 1)
        self.block2 = Residual(16, 32, 2)
        self.block3 = Residual(32, 32, 1)
        self.tail = nn.Conv2d(32, 48, 1, bias=False)
        self.tail_bn = nn.BatchNorm2d(48)
        self.drop = nn.Dropout(0.1)
        self.fc1 = nn.Linear(48, 32)
        self.fc2 = nn.Linear(32, 10)

    def forward(self, x: Tensor, mean: float, std: float) -> Tensor:
        """Return logits [N, 10] of images [N, 1, 8, 8]."""
        y = functional.relu(self.bn(self.stem((x - mean) / std)))
        y = self.block3(self.block2(self.block1(y)))
        y = functional.hardswish(self.tail_bn(self.tail(y)))
        y = self.drop(functional.adaptive_avg_pool2d(y, 1).flatten(1))
        return self.fc2(functional.relu(self.fc1(y)))  # type: ignore[no-any-return]


def augment(x: Tensor) -> Tensor:
    """Turn, scale, shear and shift every image of a batch a little, each in its own way."""
    n = len(x)
    theta = torch.eye(2, 3).repeat(n, 1, 1) + 0.14 * torch.randn(n, 2, 3)
    grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, align_corners=False) + 0.03 * torch.randn_like(x)


def train(x: NDArray[np.float32], y: NDArray[np.int64]) -> tuple[DigitsCnn, float, float]:
    """Train on ``x`` float32 [N, 1, 8, 8] and ``y`` int64 [N].

    Returns:
        The network in inference mode, and the mean and standard deviation of ``x`` that it
        normalizes its input with.
    """
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    mean, std = float(x.mean()), float(x.std())
    images, labels = torch.from_numpy(x), torch.from_numpy(y)
    net = DigitsCnn()
    optimizer = torch.optim.AdamW(net.parameters(), lr=4e-3, weight_decay=0.02)
    rounds = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=6e-3, total_steps=rounds)
    for _ in range(EPOCHS):
        order = torch.randperm(len(images))
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            logits = net(augment(images[chosen]), mean, std)
            loss = functional.cross_entropy(logits, labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval(), mean, std
