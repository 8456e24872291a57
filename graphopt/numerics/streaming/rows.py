"""A layer's input as rows: the matrix X of which the layer computes X W + b.

MatMul and Gemm have their features on one axis; every other axis counts rows. A convolution has one row for
each sample and output position, the patch that its kernel sees there ("im2col"). Features are in
*channel-major* order: those of channel c are ``c K .. (c + 1) K - 1``, where K is the kernel's size and the
kernel's positions are in C order. With ``group`` groups the channels of a group are consecutive, and each
group is a layer of its own:

    Conv            W [M, C / group, *kernel]   X_g W_g,  W_g = W[rows of g].reshape(M / group, -1).T
    ConvTranspose   W [C, M / group, *kernel]   W_g = moveaxis(W[rows of g], 1, -1).reshape(-1, M / group)

The row of a transposed convolution holds, for each kernel position, the input element that reaches the output
position through it, or 0. Geometry follows the ONNX operator specification of Conv and ConvTranspose.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass

import numpy as np

from graphopt.numerics.streaming.accumulator import Shape, checked_axis

Ints = tuple[int, ...]


class Table(abc.ABC):
    """The rows of one array, made when they are asked for."""

    def __init__(self, count: int) -> None:
        self.count = count

    @abc.abstractmethod
    def take(self, picks: np.ndarray) -> np.ndarray:
        """Some rows, float of shape ``(len(picks), features)``; a new array."""


class Rows(abc.ABC):
    """How an array is read as rows; a frozen value whose ``repr`` names it completely."""

    @abc.abstractmethod
    def features(self, shape: Shape) -> tuple[int, int, int]:
        """Groups, channels of a group, and features of a channel.

        Args:
            shape: of the array.

        Raises:
            ValueError: an array of this shape cannot be read so.
        """

    @abc.abstractmethod
    def table(self, array: np.ndarray) -> Table:
        """The rows of an array of floats."""


@dataclass(frozen=True)
class FeatureRows(Rows):
    """Features on one axis, rows in the C order of all others.

    Args:
        axis: -1 for the first input of MatMul and for Gemm; 0 for Gemm with transA; 1 for what a convolution
            computes, whose rows then stand beside those of ``ConvRows``.
    """

    axis: int = -1

    def features(self, shape: Shape) -> tuple[int, int, int]:
        """One group of ``shape[axis]`` channels."""
        return 1, shape[checked_axis(shape, self.axis)], 1

    def table(self, array: np.ndarray) -> Table:
        """The rows of an array."""
        at = checked_axis(array.shape, self.axis)
        last = np.moveaxis(array, at, -1)
        features = array.shape[at]
        return _Plain(last.reshape(math.prod(last.shape[:-1]), features))


@dataclass(frozen=True)
class ElementRows(Rows):
    """Every element is a row of one feature: for how far two arrays are from each other as a whole."""

    def features(self, shape: Shape) -> tuple[int, int, int]:
        """One group of one feature."""
        return 1, 1, 1

    def table(self, array: np.ndarray) -> Table:
        """The elements in C order."""
        return _Plain(array.reshape(-1, 1))


class _Plain(Table):
    def __init__(self, rows: np.ndarray) -> None:
        super().__init__(len(rows))
        self.rows = rows

    def take(self, picks: np.ndarray) -> np.ndarray:
        taken: np.ndarray = self.rows[picks]
        return taken


@dataclass(frozen=True)
class ConvRows(Rows):
    """Patches of the input ``[N, C, *spatial]`` of a Conv.

    Args:
        kernel: its size along each spatial axis.
        strides: 1 where empty.
        pads: before each axis, then after each; 0 where empty.
        dilations: 1 where empty.
        auto_pad: ``NOTSET``, ``VALID``, ``SAME_UPPER`` or ``SAME_LOWER``.
        group: groups of channels.
    """

    kernel: Ints
    strides: Ints = ()
    pads: Ints = ()
    dilations: Ints = ()
    auto_pad: str = "NOTSET"
    group: int = 1

    def __post_init__(self) -> None:
        rank = len(self.kernel)
        lengths = {len(self.strides), len(self.dilations), len(self.pads) // 2} - {0}
        if not rank or lengths - {rank} or len(self.pads) % 2:
            raise ValueError("kernel, strides, dilations and pads are of different ranks")
        if min((*self.kernel, *self.strides, *self.dilations, self.group)) < 1 or self.group < 1:
            raise ValueError("kernel, strides, dilations and group are at least 1")
        if min(self.pads, default=0) < 0:
            raise ValueError("negative pads")
        if self.auto_pad not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
            raise ValueError(f"auto_pad is {self.auto_pad!r}")

    def features(self, shape: Shape) -> tuple[int, int, int]:
        """Groups, channels of a group, and the size of the kernel."""
        if len(shape) != len(self.kernel) + 2:
            raise ValueError(
                f"a kernel of {len(self.kernel)} dimensions cannot slide over shape {list(shape)}"
            )
        if shape[1] % self.group:
            raise ValueError(f"{shape[1]} channels are no {self.group} groups of equal size")
        return self.group, shape[1] // self.group, math.prod(self.kernel)

    def table(self, array: np.ndarray) -> Table:
        """The patches of an array."""
        self.features(array.shape)
        axes = [self.reads(size, axis) for axis, size in enumerate(array.shape[2:])]
        return _Patches(array, axes)

    def _steps(self, axis: int) -> tuple[int, int, int]:
        """Stride, dilation and extent of the dilated kernel along an axis."""
        stride = self.strides[axis] if self.strides else 1
        dilation = self.dilations[axis] if self.dilations else 1
        return stride, dilation, (self.kernel[axis] - 1) * dilation + 1

    def _padding(self, axis: int) -> tuple[int, int]:
        """Explicit padding before and after an axis."""
        if not self.pads or self.auto_pad != "NOTSET":
            return 0, 0
        return self.pads[axis], self.pads[axis + len(self.kernel)]

    def reads(self, size: int, axis: int) -> np.ndarray:
        """Which input element each output position reads through each kernel position of an axis.

        Args:
            size: of the input along the axis.
            axis: counted from the first spatial one.

        Returns:
            int64 of shape ``(outputs, kernel[axis])``; -1 where it reads padding.
        """
        stride, dilation, extent = self._steps(axis)
        before, after = self._padding(axis)
        if self.auto_pad.startswith("SAME"):
            outputs = -(-size // stride)
            total = max((outputs - 1) * stride + extent - size, 0)
            before = total // 2 if self.auto_pad == "SAME_UPPER" else total - total // 2
        else:
            outputs = max((size + before + after - extent) // stride + 1, 0)
        start = np.arange(outputs)[:, None] * stride - before
        found = start + np.arange(self.kernel[axis]) * dilation
        return np.where((found >= 0) & (found < size), found, -1)


@dataclass(frozen=True)
class ConvTransposeRows(ConvRows):
    """What each output position of a ConvTranspose reads of its input ``[N, C, *spatial]``.

    Args:
        output_padding: 0 where empty.
        output_shape: the spatial shape of the output where the model gives it; padding follows from it.
    """

    output_padding: Ints = ()
    output_shape: Ints = ()

    def reads(self, size: int, axis: int) -> np.ndarray:
        """Which input element reaches each output position through each kernel position of an axis.

        Args:
            size: of the input along the axis.
            axis: counted from the first spatial one.

        Returns:
            int64 of shape ``(outputs, kernel[axis])``; -1 where none does.
        """
        stride, dilation, extent = self._steps(axis)
        before, after = self._padding(axis)
        extra = self.output_padding[axis] if self.output_padding else 0
        whole = (size - 1) * stride + extent + extra
        outputs = whole - before - after
        if self.output_shape or self.auto_pad.startswith("SAME"):
            outputs = self.output_shape[axis] if self.output_shape else size * stride
            total = max(whole - outputs, 0)
            before = total // 2 if self.auto_pad == "SAME_UPPER" else total - total // 2
        steps = np.arange(max(outputs, 0))[:, None] + before
        found, rest = np.divmod(steps - np.arange(self.kernel[axis]) * dilation, stride)
        return np.where((rest == 0) & (found >= 0) & (found < size), found, -1)


class _Patches(Table):
    """Gathers patches from the pixels of a batch; the last, extra pixel is padding."""

    def __init__(self, array: np.ndarray, axes: list[np.ndarray]) -> None:
        samples, channels, *spatial = array.shape
        self.axes = axes
        self.samples = samples
        self.spatial = spatial
        self.outputs = tuple(len(reads) for reads in axes)
        self.pixels = np.zeros((samples * math.prod(spatial) + 1, channels), array.dtype)
        inner = self.pixels[:-1].reshape(samples, *spatial, channels)
        inner[...] = np.moveaxis(array, 1, -1)
        super().__init__(samples * math.prod(self.outputs))

    def take(self, picks: np.ndarray) -> np.ndarray:
        sample, *position = np.unravel_index(picks, (self.samples, *self.outputs))
        place = sample[:, None]
        missing = np.zeros(place.shape, np.bool_)
        for size, reads, output in zip(self.spatial, self.axes, position, strict=True):
            read = reads[output][:, None]
            shape = (len(picks), place.shape[1] * read.shape[2])
            place = (place[:, :, None] * size + read).reshape(shape)
            missing = (missing[:, :, None] | (read < 0)).reshape(shape)
        place[missing] = len(self.pixels) - 1
        patches = np.take(self.pixels, place, axis=0).transpose(0, 2, 1)
        return patches.reshape(len(picks), patches.shape[1] * patches.shape[2])
