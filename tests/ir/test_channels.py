"""Channel groups by operator: what is coupled, what is locked, and that slicing equals masking."""

from __future__ import annotations

import pytest
from channel_proof import Case, check

IMAGE = "float[N,3,8,8] x"
CONVS = "float[6,3,3,3] v, float[6] a, float[5,6,3,3] w, float[5] b"

CASES = [
    Case(
        "a channel between two convolutions",
        IMAGE,
        "float[N,5,4,4] y",
        CONVS,
        "c = Conv (x, v, a) r = Relu (c) y = Conv (r, w, b)",
        (("c:1", 6),),
        (("y:1", "graph output 'y' keeps its shape"),),
    ),
    Case(
        "what does not keep a zero",
        IMAGE,
        "float[N,5,4,4] y",
        CONVS,
        "c = Conv (x, v, a) s = Sigmoid (c) t = Cos (s) y = Conv (t, w, b)",
        (("c:1", 6),),
    ),
    Case(
        "a residual connection joins its ends",
        IMAGE,
        "float[N,2] y",
        "float[6,3,1,1] v, float[6,6,3,3] w, float[6] b, float[6,6,1,1] u, float[6,2] o",
        "c = Conv (x, v) d = Conv <pads=[1,1,1,1]> (c, w, b) s = Add (c, d) e = Conv (s, u) t = "
        "Add (s, e) "
        "p = GlobalAveragePool (t) f = Flatten (p) y = Gemm (f, o)",
        (("c:1", 6),),
    ),
    Case(
        "a constant that is broadcast to channels, and a scalar",
        IMAGE,
        "float[N,5,4,4] y",
        CONVS + ", float[1,6,1,1] k, float[6,1,1] l, float s",
        "c = Conv (x, v, a) d = Mul (c, k) e = Add (d, l) f = Div (e, s) y = Conv (f, w, b)",
        (("c:1", 6),),
    ),
    Case(
        "a map of one channel that is broadcast to all",
        IMAGE,
        "float[N,5,4,4] y",
        CONVS + ", float[1,6,1,1] q",
        "c = Conv (x, v, a) g = Conv (c, q) h = Sigmoid (g) d = Mul (c, h) y = Conv (d, w, b)",
        (("c:1", 6),),
        (("g:1", "single unit"),),
    ),
    Case(
        "parts of a Concat keep apart",
        IMAGE,
        "float[N,5,6,6] y",
        "float[6,3,3,3] v, float[4,3,3,3] w, float[5,10,1,1] u",
        "c = Conv (x, v) d = Conv (x, w) e = Concat <axis=1> (c, d) y = Conv (e, u)",
        (("c:1", 6), ("d:1", 4)),
    ),
    Case(
        "one tensor twice in a Concat",
        IMAGE,
        "float[N,5,6,6] y",
        "float[6,3,3,3] v, float[5,12,1,1] u",
        "c = Conv (x, v) e = Concat <axis=1> (c, c) y = Conv (e, u)",
        (("c:1", 6),),
    ),
    Case(
        "a dense block",
        IMAGE,
        "float[N,5,8,8] y",
        "float[6,3,1,1] v, float[4,6,1,1] w, float[4,10,1,1] u, float[5,14,1,1] t",
        "c = Conv (x, v) d = Conv (c, w) e = Concat <axis=1> (c, d) f = Conv (e, u) "
        "h = Concat <axis=1> (e, f) y = Conv (h, t)",
        (("c:1", 6), ("d:1", 4), ("f:1", 4)),
    ),
    Case(
        "a Split whose parts have own readers",
        IMAGE,
        "float[N,5,6,6] y, float[N,2,6,6] z",
        "float[6,3,3,3] v, float[5,4,1,1] u, float[2,2,1,1] t",
        "n = Constant <value = int64[2] {4, 2}> () c = Conv (x, v) d, e = Split <axis=1> (c, n) "
        "y = Conv (d, u) z = Conv (e, t)",
        (("c:1[0]", 4), ("c:1[4]", 2)),
    ),
    Case(
        "equal parts of a Split, without sizes",
        IMAGE,
        "float[N,5,6,6] y, float[N,2,6,6] z",
        "float[6,3,3,3] v, float[5,3,1,1] u, float[2,3,1,1] t",
        "c = Conv (x, v) d, e = Split <axis=1, num_outputs=2> (c) y = Conv (d, u) z = Conv (e, t)",
        (("c:1[0]", 3), ("c:1[3]", 3)),
        opset=18,
    ),
    Case(
        "sizes of a Split as an attribute",
        IMAGE,
        "float[N,5,6,6] y",
        "float[6,3,3,3] v, float[5,3,1,1] u",
        "c = Conv (x, v) d, e = Split <axis=1, split=[3,3]> (c) f = Mul (d, e) y = Conv (f, u)",
        (("c:1", 3),),
        opset=11,
    ),
    Case(
        "a Slice of channels",
        IMAGE,
        "float[N,5,6,6] y",
        "float[6,3,3,3] v, float[5,3,1,1] u",
        "s = Constant <value = int64[1] {-4}> () e = Constant <value = int64[1] {-1}> () "
        "a = Constant <value = int64[1] {1}> () c = Conv (x, v) d = Slice (c, s, e, a) y = Conv "
        "(d, u)",
        (("c:1[0]", 3), ("c:1[2]", 3)),
    ),
    Case(
        "a Slice by attributes",
        IMAGE,
        "float[N,5,6,6] y",
        "float[6,3,3,3] v, float[5,4,1,1] u",
        "c = Conv (x, v) d = Slice <axes=[1], starts=[2], ends=[9999]> (c) y = Conv (d, u)",
        (("c:1[0]", 2), ("c:1[2]", 4)),
        opset=9,
    ),
    Case(
        "a Slice in steps",
        IMAGE,
        "float[N,5,6,6] y",
        "float[6,3,3,3] v, float[5,3,1,1] u",
        "s = Constant <value = int64[1] {0}> () e = Constant <value = int64[1] {6}> () "
        "a = Constant <value = int64[1] {1}> () t = Constant <value = int64[1] {2}> () "
        "c = Conv (x, v) d = Slice (c, s, e, a, t) y = Conv (d, u)",
        (),
        (("c:1", "Slice 'Slice→d' picks from it"),),
    ),
    Case(
        "channels picked by constant indices, some twice",
        IMAGE,
        "float[N,5,6,6] y",
        "float[6,3,3,3] v, float[5,5,1,1] u",
        "i = Constant <value = int64[5] {5, 1, 0, 1, -3}> () c = Conv (x, v) "
        "d = Gather <axis=1> (c, i) y = Conv (d, u)",
        (("c:1[0]", 3), ("c:1[2]", 2)),
        (("c:1[1]", "single unit"),),
    ),
    Case(
        "one channel picked",
        IMAGE,
        "float[N,6,6] y, float[N,5,6,6] z",
        "float[6,3,3,3] v, float[5,6,1,1] u",
        "i = Constant <value = int64 {2}> () c = Conv (x, v) y = Gather <axis=1> (c, i) z = Conv "
        "(c, u)",
        (("c:1[0]", 5),),
        (("c:1[2]", "Gather 'Gather→y' picks it"),),
    ),
    Case(
        "a depthwise convolution lets channels pass",
        IMAGE,
        "float[N,5,6,6] y",
        "float[6,3,1,1] v, float[6,1,3,3] d, float[6] a, float[5,6,1,1] u",
        "c = Conv (x, v) e = Conv <group=6> (c, d, a) y = Conv (e, u)",
        (("c:1", 6),),
    ),
    Case(
        "a depthwise convolution with a multiplier",
        IMAGE,
        "float[N,5,6,6] y",
        "float[6,3,1,1] v, float[12,1,3,3] d, float[5,12,1,1] u",
        "c = Conv (x, v) e = Conv <group=6> (c, d) y = Conv (e, u)",
        (("c:1", 6),),
    ),
    Case(
        "whole groups of a grouped convolution",
        IMAGE,
        "float[N,5,6,6] y",
        "float[12,3,1,1] v, float[8,3,3,3] d, float[8] a, float[5,8,1,1] u",
        "c = Conv (x, v) e = Conv <group=4> (c, d, a) y = Conv (e, u)",
        (("c:1", 4),),
    ),
    Case(
        "the same place of every group",
        IMAGE,
        "float[N,5,6,6] y",
        "float[12,3,1,1] v, float[8,6,3,3] d, float[8] a, float[5,8,1,1] u",
        "c = Conv (x, v) e = Conv <group=2> (c, d, a) y = Conv (e, u)",
        (("c:1", 6), ("e:1", 4)),
    ),
    Case(
        "groups of a convolution on the graph's input",
        "float[N,4,8,8] x",
        "float[N,5,6,6] y",
        "float[12,2,3,3] v, float[5,12,1,1] u",
        "c = Conv <group=2> (x, v) y = Conv (c, u)",
        (("c:1", 6),),
    ),
    Case(
        "one output channel is not depthwise",
        IMAGE,
        "float[N,5,8,8] y",
        "float[1,3,1,1] v, float[5,1,1,1] u",
        "c = Conv (x, v) y = Conv (c, u)",
        (),
        (("c:1", "single unit"),),
    ),
    Case(
        "a transposed convolution",
        IMAGE,
        "float[N,5,16,16] y",
        "float[6,3,1,1] v, float[6,4,2,2] d, float[4] a, float[5,4,1,1] u",
        "c = Conv (x, v) e = ConvTranspose <strides=[2,2]> (c, d, a) y = Conv (e, u)",
        (("c:1", 6), ("e:1", 4)),
    ),
    Case(
        "a grouped transposed convolution",
        IMAGE,
        "float[N,5,16,16] y",
        "float[6,3,1,1] v, float[6,2,2,2] d, float[6] a, float[5,6,1,1] u",
        "c = Conv (x, v) e = ConvTranspose <strides=[2,2], group=3> (c, d, a) y = Conv (e, u)",
        (("c:1", 3),),
    ),
    Case(
        "the same place in every group of a transposed convolution",
        IMAGE,
        "float[N,5,16,16] y",
        "float[12,3,1,1] v, float[12,5,2,2] d, float[5,10,1,1] u",
        "c = Conv (x, v) e = ConvTranspose <strides=[2,2], group=2> (c, d) y = Conv (e, u)",
        (("c:1", 6), ("e:1", 5)),
    ),
    Case(
        "convolutions of one and three dimensions",
        "float[N,2,9] x",
        "float[N,3,1,1,7] y",
        "float[6,2,3] v, float[3,6,1,1,1] u",
        "a = Constant <value = int64[2] {2, 3}> () c = Conv (x, v) d = Unsqueeze (c, a) y = Conv "
        "(d, u)",
        (("c:1", 6),),
    ),
    Case(
        "channels are flattened with height and width",
        IMAGE,
        "float[N,4] y",
        "float[6,3,3,3] v, float[216,4] w, float[4] b",
        "c = Conv (x, v) r = Relu (c) f = Flatten (r) y = Gemm (f, w, b)",
        (("c:1", 6),),
    ),
    Case(
        "channels are flattened last, as from TensorFlow",
        IMAGE,
        "float[N,4] y",
        "float[6,3,3,3] v, float[4,216] w, float[4] b",
        "s = Constant <value = int64[2] {-1, 216}> () c = Conv (x, v) t = Transpose "
        "<perm=[0,2,3,1]> (c) "
        "f = Reshape (t, s) y = Gemm <transB=1> (f, w, b)",
        (("c:1", 6),),
    ),
    Case(
        "a flattened map through a pooling of unknown size",
        "float[N,3,H,W] x",
        "float[N,4] y",
        "float[6,3,3,3] v, float[6,4] w",
        "s = Constant <value = int64[2] {0, -1}> () c = Conv (x, v) p = ReduceMean <axes=[2,3], "
        "keepdims=1> (c) "
        "f = Reshape (p, s) y = MatMul (f, w)",
        (("c:1", 6),),
    ),
    Case(
        "an NHWC graph",
        "float[N,8,8,3] x",
        "float[N,6,6,5] y",
        "float[6,3,3,3] v, float[6] k, float[5,6,1,1] u",
        "t = Transpose <perm=[0,3,1,2]> (x) c = Conv (t, v) d = Transpose <perm=[0,2,3,1]> (c) "
        "e = Add (d, k) f = Transpose <perm=[0,3,1,2]> (e) z = Conv (f, u) y = Transpose "
        "<perm=[0,2,3,1]> (z)",
        (("c:1", 6),),
    ),
    Case(
        "Gemm, transposed both ways, and MatMul with a bias of its own",
        "float[N,3] x",
        "float[7,N] y",
        "float[6,3] v, float[6] a, float[6,5] w, float[5] b, float[5,7] u, float[7,1] d",
        "c = Gemm <transB=1> (x, v, a) r = Relu (c) m = MatMul (r, w) s = Add (m, b) t = Tanh (s) "
        "y = Gemm <transA=1, transB=1> (u, t, d)",
        (("c:1", 6), ("m:1", 5)),
        opset=13,
    ),
    Case(
        "a product from the left",
        "float[3,8] x",
        "float[4,8] y",
        "float[6,3] v, float[4,6] w",
        "c = MatMul (v, x) r = Relu (c) y = MatMul (w, r)",
        (("c:0", 6),),
    ),
    Case(
        "a gated MLP",
        "float[N,4,3] x",
        "float[N,4,3] y",
        "float[3,8] v, float[3,8] g, float[8,3] w",
        "a = MatMul (x, v) b = MatMul (x, g) s = Sigmoid (b) h = Mul (a, s) m = MatMul (h, w) y "
        "= Add (x, m)",
        (("a:2", 8),),
        (("m:2", "graph input 'x' keeps its shape"),),
    ),
    Case(
        "a packed gated MLP",
        "float[N,4,3] x",
        "float[N,4,3] y",
        "float[3,16] v, float[16] a, float[8,3] w",
        "n = Constant <value = int64[2] {8, 8}> () c = MatMul (x, v) d = Add (c, a) e, f = Split "
        "<axis=-1> (d, n) "
        "s = Sigmoid (f) h = Mul (e, s) y = MatMul (h, w)",
        (("c:2", 8),),
    ),
    Case(
        "batch normalization",
        IMAGE,
        "float[N,5,4,4] y",
        CONVS + ", float[6] s, float[6] o, float[6] m, float[6] q",
        "c = Conv (x, v, a) d = BatchNormalization (c, s, o, m, q) r = Relu (d) y = Conv (r, w, b)",
        (("c:1", 6),),
        positive="q",
    ),
    Case(
        "instance normalization",
        IMAGE,
        "float[N,5,4,4] y",
        CONVS + ", float[6] s, float[6] o",
        "c = Conv (x, v, a) d = InstanceNormalization (c, s, o) y = Conv (d, w, b)",
        (("c:1", 6),),
    ),
    Case(
        "group normalization: whole groups",
        IMAGE,
        "float[N,5,4,4] y",
        CONVS + ", float[6] s, float[6] o",
        "c = Conv (x, v, a) d = GroupNormalization <num_groups=3> (c, s, o) y = Conv (d, w, b)",
        (("c:1", 3),),
        opset=21,
    ),
    Case(
        "group normalization as it is exported",
        IMAGE,
        "float[N,5,4,4] y",
        CONVS + ", float[3] s, float[3] o, float[6,1,1] g",
        "n = Constant <value = int64[3] {0, 3, -1}> () c = Conv (x, v, a) t = Shape (c) f = "
        "Reshape (c, n) "
        "d = InstanceNormalization (f, s, o) e = Reshape (d, t) h = Mul (e, g) y = Conv (h, w, b)",
        (("c:1", 3),),
    ),
    Case(
        "layer normalization over the channels",
        "float[N,3] x",
        "float[N,2] y",
        "float[3,6] v, float[6] s, float[6,2] w",
        "c = MatMul (x, v) d = LayerNormalization (c, s) y = MatMul (d, w)",
        (),
        (("c:1", "LayerNormalization 'LayerNormalization→d' computes statistics over it"),),
    ),
    Case(
        "a mean over the channels",
        "float[N,3] x",
        "float[N,2] y",
        "float[3,6] v, float[6,2] w",
        "c = MatMul (x, v) m = ReduceMean <axes=[1]> (c) d = Sub (c, m) y = MatMul (d, w)",
        (),
        (("c:1", "ReduceMean 'ReduceMean→m' depends on how many there are"),),
    ),
    Case(
        "a sum over the channels",
        "float[N,3] x",
        "float[N,2] y, float[N] z",
        "float[3,6] v, float[6,2] w",
        "c = MatMul (x, v) e = Cos (c) q = ReduceL2 <axes=[1], keepdims=1> (e) d = Div (e, q) y "
        "= MatMul (d, w) "
        "z = ReduceL1 <axes=[-1], keepdims=0> (e)",
        (("c:1", 6),),
    ),
    Case(
        "a softmax over the channels",
        "float[N,3] x",
        "float[N,2] y",
        "float[3,6] v, float[6,2] w",
        "c = MatMul (x, v) d = Softmax <axis=1> (c) y = MatMul (d, w)",
        (),
        (("c:1", "Softmax 'Softmax→d' mixes the channels"),),
    ),
    Case(
        "squeeze and excitation",
        IMAGE,
        "float[N,5,4,4] y",
        CONVS + ", float[2,6,1,1] d, float[2] e, float[6,2,1,1] f, float[6] h",
        "c = Conv (x, v, a) p = GlobalAveragePool (c) q = Conv (p, d, e) r = Relu (q) s = Conv "
        "(r, f, h) "
        "t = HardSigmoid (s) m = Mul (c, t) y = Conv (m, w, b)",
        (("c:1", 6), ("q:1", 2)),
    ),
    Case(
        "squeeze and excitation with matrices",
        IMAGE,
        "float[N,5,4,4] y",
        CONVS + ", float[6,2] d, float[2,6] f",
        "n = Constant <value = int64[2] {2, 3}> () c = Conv (x, v, a) p = ReduceMean "
        "<axes=[2,3], keepdims=0> (c) "
        "q = MatMul (p, d) r = Relu (q) s = MatMul (r, f) t = Sigmoid (s) k = Unsqueeze (t, n) m "
        "= Mul (k, c) "
        "y = Conv (m, w, b)",
        (("c:1", 6), ("q:1", 2)),
    ),
    Case(
        "axes of one place are dropped, and an axis that is cut to one place is not",
        "float[2,3,8,8] x",
        "float[2,5] y",
        "float[6,3,3,3] v, float[6,5] w",
        "c = Conv (x, v) p = GlobalMaxPool (c) s = Squeeze (p) y = MatMul (s, w)",
        (("c:1", 6),),
    ),
    Case(
        "sizes that the graph returns",
        IMAGE,
        "float[N,5,4,4] y, int64[4] z",
        CONVS,
        "c = Conv (x, v, a) r = Relu (c) z = Shape (r) y = Conv (r, w, b)",
        (),
        (("c:1", "the graph returns the sizes that Shape 'Shape→z' tells"),),
    ),
    Case(
        "channels that are read as sizes",
        "float[1,3] x",
        "float[A,B] y",
        "float[3,4] v, float[4,2] u",
        "z = Constant <value = int64[1] {0}> () c = MatMul (x, v) l = MatMul (c, u) s = Squeeze (l, z) "
        "m = Sign (s) q = Mul (m, m) n = Cast <to=7> (q) y = ConstantOfShape (n)",
        (("c:1", 4),),
        (("l:1", "ConstantOfShape 'ConstantOfShape→y' reads it as sizes or positions"),),
    ),
    Case(
        "slopes of a PRelu",
        IMAGE,
        "float[N,5,4,4] y",
        CONVS + ", float[6,1,1] s",
        "c = Conv (x, v, a) d = PRelu (c, s) y = Conv (d, w, b)",
        (("c:1", 6),),
    ),
    Case(
        "Clip and Where",
        IMAGE,
        "float[N,5,4,4] y",
        CONVS + ", float[1,6,1,1] k",
        "l = Constant <value = float {-1.0}> () h = Constant <value = float {2.0}> () c = Conv "
        "(x, v, a) "
        "d = Clip (c, l, h) g = Greater (c, k) e = Where (g, d, k) y = Conv (e, w, b)",
        (("c:1", 6),),
    ),
    Case(
        "zeros padded to the channels",
        IMAGE,
        "float[N,5,6,6] y",
        "float[6,3,3,3] v, float[5,9,1,1] u",
        "p = Constant <value = int64[8] {0,1,0,0,0,2,0,0}> () c = Conv (x, v) d = Pad (c, p) y = "
        "Conv (d, u)",
        (("c:1", 6),),
    ),
    Case(
        "a padded shortcut locks what it is added to",
        IMAGE,
        "float[N,5,8,8] y",
        "float[6,3,1,1] v, float[9,6,1,1] w, float[5,9,1,1] u",
        "p = Constant <value = int64[8] {0,1,0,0,0,2,0,0}> () c = Conv (x, v) d = Pad (c, p) e = "
        "Conv (c, w) "
        "s = Add (d, e) y = Conv (s, u)",
        (("c:1", 6),),
        (("e:1", "Pad 'Pad→d' adds it"),),
    ),
    Case(
        "channels padded by reflection",
        IMAGE,
        "float[N,5,6,6] y",
        "float[6,3,3,3] v, float[5,8,1,1] u",
        "p = Constant <value = int64[8] {0,1,0,0,0,1,0,0}> () c = Conv (x, v) d = Pad "
        '<mode="reflect"> (c, p) '
        "y = Conv (d, u)",
        (),
        (("c:1", "Pad 'Pad→d' pads it"),),
    ),
    Case(
        "resizing and pooling",
        IMAGE,
        "float[N,5,6,6] y",
        "float[6,3,3,3] v, float[5,6,1,1] u",
        "s = Constant <value = float[4] {1.0, 1.0, 2.0, 2.0}> () c = Conv (x, v) p = MaxPool "
        "<kernel_shape=[2,2], "
        "strides=[2,2]> (c) d = Resize (p, , s) q = AveragePool <kernel_shape=[1,1]> (d) y = "
        "Conv (q, u)",
        (("c:1", 6),),
    ),
    Case(
        "resizing to the size of another tensor",
        "float[N,3,H,W] x",
        "float[N,5,H,W] y",
        "float[6,3,1,1] v, float[5,6,1,1] u",
        "a = Constant <value = int64[1] {0}> () b = Constant <value = int64[1] {2}> () c = Conv "
        "(x, v) "
        "e = Constant <value = int64[1] {4}> () p = MaxPool <kernel_shape=[2,2], strides=[2,2]> "
        "(c) "
        "h = Shape (c) s = Slice (h, b, e, a) i = Shape (p) j = Slice (i, a, b, a) k = Concat "
        "<axis=0> (j, s) "
        "d = Resize (p, , , k) y = Conv (d, u)",
        (("c:1", 6),),
    ),
    Case(
        "depth to space",
        IMAGE,
        "float[N,5,16,16] y",
        "float[12,3,1,1] v, float[5,3,1,1] u",
        "c = Conv (x, v) d = DepthToSpace <blocksize=2> (c) y = Conv (d, u)",
        (("c:1", 3),),
    ),
    Case(
        "depth to space, channels first",
        IMAGE,
        "float[N,5,16,16] y",
        "float[12,3,1,1] v, float[5,3,1,1] u",
        'c = Conv (x, v) d = DepthToSpace <blocksize=2, mode="CRD"> (c) y = Conv (d, u)',
        (("c:1", 3),),
    ),
    Case(
        "space to depth",
        IMAGE,
        "float[N,5,4,4] y",
        "float[4,3,1,1] v, float[5,16,1,1] u",
        "c = Conv (x, v) d = SpaceToDepth <blocksize=2> (c) y = Conv (d, u)",
        (("c:1", 4),),
    ),
    Case(
        "a shuffle of channels between groups",
        IMAGE,
        "float[N,5,8,8] y",
        "float[12,3,1,1] v, float[5,12,1,1] u",
        "n = Constant <value = int64[5] {0, 2, 6, 8, 8}> () o = Constant <value = int64[4] {0, "
        "12, 8, 8}> () "
        "c = Conv (x, v) d = Reshape (c, n) e = Transpose <perm=[0,2,1,3,4]> (d) f = Reshape (e, "
        "o) y = Conv (f, u)",
        (("c:1", 6),),
    ),
    Case(
        "the width of an embedding",
        "int64[N,T] x",
        "float[N,T,2] y",
        "float[9,6] e, float[6,2] w",
        "c = Gather (e, x) y = MatMul (c, w)",
        (("c:2", 6),),
    ),
    Case(
        "channels that are chosen at run time",
        "float[N,3,8,8] x, int64[K] i",
        "float[N,K,6,6] y",
        "float[6,3,3,3] v",
        "c = Conv (x, v) y = Gather <axis=1> (c, i)",
        (),
        (("c:1", "Gather 'Gather→y' picks from it"),),
    ),
    Case(
        "an operator that is not known",
        IMAGE,
        "float[N,5,8,8] y",
        "float[6,3,1,1] v, float[5,6,1,1] u",
        "n = Constant <value = int64[1] {6}> () c = Conv (x, v) d = CenterCropPad <axes=[1]> (c, "
        "n) "
        "y = Conv (d, u)",
        (),
        (("c:1", "CenterCropPad 'CenterCropPad→d' is not followed"),),
        opset=18,
    ),
    Case(
        "a constant that several nodes share is copied where they differ",
        IMAGE,
        "float[N,5,8,8] y",
        "float[6,3,1,1] v, float[6] a, float[6,6,1,1] w, float[5,6,1,1] u",
        "c = Conv (x, v, a) r = Relu (c) d = Conv (r, w, a) y = Conv (d, u)",
        (("c:1", 6), ("d:1", 6)),
    ),
    Case(
        "large weights that two nodes share stay one",
        "float[N,32] x",
        "float[N,2] y",
        "float[32,48] v, float[48,48] w, float[48,2] u",
        "c = MatMul (x, v) d = MatMul (c, w) e = Relu (d) f = MatMul (e, w) y = MatMul (f, u)",
        (("c:1", 48),),
    ),
    Case(
        "a table that is tied to the last product",
        "int64[N,T] x",
        "float[N,T,99] y",
        "float[99,16] e, float[16,16] w",
        "c = Gather (e, x) d = MatMul (c, w) f = Add (c, d) t = Transpose (e) y = MatMul (f, t)",
        (("c:2", 16),),
        (("y:2", "Gather 'Gather→c' picks from it"),),
    ),
    Case(
        "weights that are computed from constants",
        IMAGE,
        "float[N,4] y",
        "float[6,3,3,3] v, float[4,6] w, float[6] s",
        "h = Cast <to=10> (v) f = Cast <to=1> (h) c = Conv (x, f) p = ReduceMean <axes=[2,3], "
        "keepdims=0> (c) "
        "t = Transpose (w) q = Mul (p, s) y = MatMul (q, t)",
        (("c:1", 6),),
    ),
    Case(
        "an einsum",
        "float[N,4,3] x",
        "float[N,4,2] y",
        "float[3,6] v, float[6,2] w",
        'c = Einsum <equation="btc,cd->btd"> (x, v) r = Relu (c) y = Einsum '
        '<equation="btd,de->bte"> (r, w)',
        (("c:2", 6),),
    ),
    Case(
        "expanded and tiled constants",
        IMAGE,
        "float[N,5,8,8] y",
        "float[6,3,1,1] v, float[1,1,1,1] k, float[1,3,1,1] l, float[5,6,1,1] u",
        "n = Constant <value = int64[4] {1, 6, 1, 1}> () o = Constant <value = int64[4] {1, 2, "
        "1, 1}> () "
        "c = Conv (x, v) e = Expand (k, n) d = Add (c, e) t = Tile (l, o) f = Mul (d, t) y = "
        "Conv (f, u)",
        (("c:1", 3),),
    ),
    Case(
        "an operator set before Where",
        IMAGE,
        "float[N,5,4,4] y",
        CONVS,
        "c = Conv (x, v, a) r = Relu (c) y = Conv (r, w, b)",
        (),
        (),
        opset=8,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_slicing_equals_masking(case, native) -> None:
    check(case, native)
