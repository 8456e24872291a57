"""The operator test cases of the ONNX package: what is inferred against the real outputs."""

from __future__ import annotations

import copy
import itertools
import random
import warnings
from functools import cache

import numpy as np
import onnx
import onnxruntime
import pytest
from fact_checking import Binding, claim_all
from onnx import helper, numpy_helper
from onnx.backend.test.loader import load_model_tests

from graphopt.errors import GraphoptError
from graphopt.ir.inference import infer
from graphopt.ir.model import Model
from graphopt.numerics.dims import symbols

NEWEST = 26
VARIANTS = list(itertools.product((False, True), (False, True)))


@cache
def cases() -> list:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = load_model_tests(kind="node")
    return [case for case in found if case.model is not None]


def arrays(entries: list) -> list:
    return [numpy_helper.to_array(e) if isinstance(e, onnx.TensorProto) else e for e in entries]


def variant(model: onnx.ModelProto, inputs: list, constant: bool, dynamic: bool) -> onnx.ModelProto:
    """The model with small secondary inputs made constant, or with input dims left open."""
    proto = copy.deepcopy(model)
    kept = []
    for index, (info, array) in enumerate(zip(list(proto.graph.input), inputs, strict=False)):
        plain = info.type.HasField("tensor_type") and isinstance(array, np.ndarray)
        if plain and constant and array.size <= 64 and array.dtype.kind in "biuf" and index:
            proto.graph.initializer.append(numpy_helper.from_array(array, info.name))
            continue
        if plain and dynamic:
            for dim in info.type.tensor_type.shape.dim:
                dim.dim_param = "same"
        kept.append(info)
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    return proto


def is_covered(model: onnx.ModelProto) -> bool:
    """Whether a case stays within the standard domain and the opsets that are promised."""
    return all(
        entry.domain in ("", "ai.onnx") and entry.version <= NEWEST for entry in model.opset_import
    )


@pytest.mark.parametrize(("constant", "dynamic"), VARIANTS)
def test_every_fact_holds_of_the_real_outputs(constant, dynamic):
    ranked = typed = total = 0
    for case in cases():
        inputs, outputs = (arrays(entries) for entries in case.data_sets[0])
        model = Model.load(variant(case.model, inputs, constant, dynamic))
        facts = infer(model.graph, model.functions)
        named = {
            info.name: array for info, array in zip(case.model.graph.input, inputs, strict=False)
        }
        binding = Binding()
        known = [(tensor, named[tensor.name]) for tensor in model.graph.inputs]
        results = list(zip(model.graph.outputs, outputs, strict=False))
        claim_all(facts, [*known, *results], binding, case.name)
        binding.verify()
        for tensor, array in results if is_covered(case.model) else ():
            if isinstance(array, np.ndarray):
                total += 1
                ranked += facts.rank(tensor) is not None
                typed += facts.dtype(tensor) is not None
    assert total > 1000
    assert ranked / total > (0.99 if constant or not dynamic else 0.95)
    assert typed / total > 0.99


def test_every_fact_inside_expanded_functions_holds():
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    done = dims = named = 0
    for case in cases()[::3]:
        if not case.name.endswith("_expanded") or "sequence" in case.name:
            continue
        inputs = arrays(case.data_sets[0][0])
        proto = variant(case.model, inputs, True, True)
        model = Model.load(proto)
        tensors = {t.name: t for node in model.graph.nodes for t in node.outputs if t.name}
        present = {info.name for info in proto.graph.output}
        proto.graph.output.extend(
            onnx.ValueInfoProto(name=name) for name in tensors if name not in present
        )
        feed = {
            info.name: array
            for info, array in zip(case.model.graph.input, inputs, strict=False)
            if any(info.name == kept.name for kept in proto.graph.input)
        }
        try:
            session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
            names = [entry.name for entry in session.get_outputs()]
            values = dict(zip(names, session.run(names, feed), strict=True))
        except Exception:  # noqa: BLE001  # a kernel that this runtime lacks
            continue
        facts, binding = infer(model.graph, model.functions), Binding()
        pairs = [(t, feed[t.name]) for t in model.graph.inputs]
        pairs += [(tensors[name], array) for name, array in values.items() if name in tensors]
        claim_all(facts, pairs, binding, case.name)
        binding.verify()
        done += 1
        for tensor in tensors.values():
            for dim in facts.shape(tensor) or ():
                dims += 1
                named += isinstance(dim, int) or all(name[0] != "?" for name in symbols(dim))
    assert done > 60
    assert named / dims > 0.8


def test_a_malformed_node_gives_unknown_facts_and_no_error():
    generator = random.Random(0)
    for case in cases()[::2]:
        proto = copy.deepcopy(case.model)
        for node in proto.graph.node:
            damage(node, generator)
        try:
            model = Model.load(proto)
        except GraphoptError:
            continue
        infer(model.graph, model.functions)


def damage(node: onnx.NodeProto, generator: random.Random) -> None:
    """Drop inputs, and give attributes other values or other types."""
    if node.input and generator.random() < 0.3:
        node.input[generator.randrange(len(node.input))] = ""
    if len(node.input) > 1 and generator.random() < 0.3:
        del node.input[1:]
    for index, attribute in enumerate(list(node.attribute)):
        if attribute.type == onnx.AttributeProto.GRAPH or generator.random() < 0.3:
            continue
        name = attribute.name
        wrong = generator.choice([-7, 10**12, [], [0, 0], [-1, 99, 3], "text", 0.5, [0.5]])
        kind = onnx.AttributeProto.INTS if wrong == [] else None
        node.attribute[index].CopyFrom(helper.make_attribute(name, wrong, attr_type=kind))
