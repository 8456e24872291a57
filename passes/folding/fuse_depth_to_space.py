"""Recognize a DepthToSpace or SpaceToDepth that is written out as Reshape, Transpose, Reshape.

    [N, r, r, C, H, W] with the axes (0, 3, 4, 1, 5, 2)      DepthToSpace, mode DCR
    [N, C, r, r, H, W] with the axes (0, 1, 4, 2, 5, 3)      DepthToSpace, mode CRD
    [N, C, H, r, W, r] with the axes (0, 3, 5, 1, 2, 4)      SpaceToDepth

The sizes are the proven ones, so N, H and W may be dynamic. Source: ONNX DepthToSpace-11,
SpaceToDepth-1.

Refuses: block sizes that are not known or not equal; other axes; an inner result that something
else reads; for CRD an opset below 11.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphopt.ir.graph import Node
from graphopt.ir.inference.facts import Shape
from graphopt.ir.pattern import Any, Op, find
from graphopt.ir.surgery import Scope, replace
from graphopt.pass_base import Context, Edit, Pass, Skip

MODE_OPSET = 11
SHUFFLE = Op(
    "Reshape", "second", (Op("Transpose", "swap", (Op("Reshape", "first", (Any("x"),)),)),)
)


@dataclass(frozen=True)
class FuseDepthToSpace(Pass):
    """Reshape, Transpose and Reshape between depth and space become one node."""

    name = "fuse-depth-to-space"

    def apply(self, graph: Scope, context: Context) -> Iterator[Edit | Skip]:
        """See the module's docstring."""
        for match in find(context.nodes(graph, "Reshape"), SHUFFLE):
            node, x = match["second"], match.tensor("x")
            shapes = [
                context.facts.shape(t) for t in (x, match["first"].outputs[0], node.outputs[0])
            ]
            found = _recognized(match["swap"], shapes)
            if found is None:
                continue
            op, attrs = found
            if int(graph.opset) < MODE_OPSET and attrs.pop("mode", "DCR") != "DCR":
                continue
            replace(node, op, [x], attrs)
            yield Edit(node, f"was the end of a {op}")


def _recognized(swap: Node, shapes: list[Shape | None]) -> tuple[str, dict[str, object]] | None:
    """The operator and its attributes."""
    before, middle, after = shapes
    if before is None or middle is None or after is None:
        return None
    if (len(before), len(middle), len(after)) != (4, 6, 4):
        return None
    perm = tuple(swap.attrs.get("perm", range(5, -1, -1)))
    n, c, h, w = before
    sizes: tuple[object, ...]
    if perm == (0, 3, 4, 1, 5, 2):
        r, channels, op, mode = middle[1], middle[3], "DepthToSpace", "DCR"
        sizes = (n, r, r, channels, h, w)
    elif perm == (0, 1, 4, 2, 5, 3):
        r, channels, op, mode = middle[2], middle[1], "DepthToSpace", "CRD"
        sizes = (n, channels, r, r, h, w)
    elif perm == (0, 3, 5, 1, 2, 4):
        r, channels, op, mode = middle[3], c, "SpaceToDepth", ""
        sizes = (n, c, middle[2], r, middle[4], r)
    else:
        return None
    if not isinstance(r, int) or r < 1 or middle != sizes:
        return None
    if op == "DepthToSpace":
        fits = c == channels * r * r and after == (n, channels, h * r, w * r)
        return (op, {"blocksize": r, "mode": mode}) if fits else None
    rows, columns = middle[2], middle[4]
    fits = (h, w) == (rows * r, columns * r) and after == (n, c * r * r, rows, columns)
    return (op, {"blocksize": r}) if fits else None
