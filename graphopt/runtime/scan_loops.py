"""The Loop that computes what a Scan does.

    for t in 0 .. n-1:  states, outputs[t] = body(states, inputs[t])

Each iteration of the Loop takes its slice of the scan inputs by itself; scanned backwards, from the end. The
outputs of a Loop are stacked along the first axis in the order of the iterations, so what a Scan stacks the
other way round is turned afterwards. A Scan that stacks along another axis cannot be written so where the
rank is not known. Source: Scan (from operator set 9 on) and Loop of the ONNX operator specification.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from onnx import GraphProto, NodeProto, TensorProto, helper

LAST = 2**63 - 1
"""Where a Slice that takes everything ends."""


def as_loop(
    node: NodeProto, fresh: Callable[[], str]
) -> tuple[list[NodeProto], NodeProto, list[NodeProto]]:
    """Write a Scan as a Loop, for operator set 13 or later.

    Args:
        node: the Scan; not changed, but its body becomes that of the Loop.
        fresh: gives new names.

    Returns:
        The nodes that find out how often it runs, the Loop, and the nodes that turn its outputs.
    """
    attrs: dict[str, Any] = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    count = int(attrs["num_scan_inputs"])
    states = len(node.input) - count
    scanned = list(node.input[states:])
    axes = [int(axis) for axis in attrs.get("scan_input_axes", [0] * count)]
    backwards = [bool(way) for way in attrs.get("scan_input_directions", [0] * count)]
    trips = fresh()
    before = _length(scanned[0], axes[0], trips, fresh)
    body = GraphProto()
    body.CopyFrom(attrs["body"])
    _take_slices(body, scanned, axes, backwards, trips, fresh)
    loop = helper.make_node("Loop", [trips, "", *node.input[:states]], [], node.name, body=body)
    outputs, behind = _turned(node, states, attrs, fresh)
    loop.output.extend(outputs)
    return before, loop, behind


def _constant(values: int | Sequence[int], name: str) -> NodeProto:
    if isinstance(values, int):
        return helper.make_node("Constant", [], [name], value_int=values)
    return helper.make_node("Constant", [], [name], value_ints=values)


def _length(source: str, axis: int, name: str, fresh: Callable[[], str]) -> list[NodeProto]:
    """The size of an axis, as a scalar."""
    shape, place = fresh(), fresh()
    return [
        helper.make_node("Shape", [source], [shape]),
        _constant(axis, place),
        helper.make_node("Gather", [shape, place], [name]),
    ]


def _take_slices(
    body: GraphProto,
    scanned: Sequence[str],
    axes: Sequence[int],
    backwards: Sequence[bool],
    trips: str,
    fresh: Callable[[], str],
) -> None:
    """Let a body take its slices by the number of the iteration, and say that it goes on."""
    slices = [entry.name for entry in body.input[len(body.input) - len(scanned) :]]
    carried = list(body.input[: len(body.input) - len(scanned)])
    number, goes, goes_on, one, last, mirrored = (fresh() for _ in range(6))
    nodes = [
        helper.make_node("Identity", [goes], [goes_on]),
        _constant(1, one),
        helper.make_node("Sub", [trips, one], [last]),
        helper.make_node("Sub", [last, number], [mirrored]),
    ]
    for source, axis, back, name in zip(scanned, axes, backwards, slices, strict=True):
        place = mirrored if back else number
        nodes.append(helper.make_node("Gather", [source, place], [name], axis=axis))
    nodes += list(body.node)
    inputs = [
        helper.make_tensor_value_info(number, TensorProto.INT64, []),
        helper.make_tensor_value_info(goes, TensorProto.BOOL, []),
        *carried,
    ]
    outputs = [helper.make_tensor_value_info(goes_on, TensorProto.BOOL, []), *body.output]
    for entries, new in ((body.node, nodes), (body.input, inputs), (body.output, outputs)):
        del entries[:]
        entries.extend(new)


def _turned(
    node: NodeProto, states: int, attrs: dict[str, Any], fresh: Callable[[], str]
) -> tuple[list[str], list[NodeProto]]:
    """What the Loop computes, by name, and the nodes that make of it what the Scan did."""
    results = [name or fresh() for name in node.output]
    ways = attrs.get("scan_output_directions", [0] * (len(results) - states))
    nodes: list[NodeProto] = []
    for place, backwards in enumerate(ways, states):
        if backwards:
            names, source = [fresh() for _ in range(4)], fresh()
            values = ([-1], [-LAST], [0], [-1])
            nodes += [_constant(v, n) for v, n in zip(values, names, strict=True)]
            nodes.append(helper.make_node("Slice", [source, *names], [results[place]]))
            results[place] = source
    return results, nodes
