"""Opening sessions of ONNX Runtime: the one place where its options are set."""

from __future__ import annotations

import functools
from typing import Any

import onnx
from onnx import TensorProto, helper

from graphopt.errors import NativeError
from graphopt.runtime.providers import Provider, check_available, refusal

ERROR_LEVEL = 4
"""ONNX Runtime's severity 'fatal': what is wrong comes back as an error, not on the terminal."""


def open_session(
    model: bytes | str,
    optimize: bool = False,
    threads: int = 1,
    provider: Provider = Provider(),  # noqa: B008 - a frozen value
    profile: str = "",
    integers: bool = True,
    fold: bool = True,
    prepack: bool = True,
) -> Any:
    """Open a session.

    Args:
        model: its bytes or its path.
        optimize: whether ONNX Runtime may apply its own graph optimizations.
        threads: threads for one operator.
        provider: what runs it.
        profile: where to write a profile: the beginning of a file's path; empty for none.
        integers: whether its optimizations may compute on integers what QuantizeLinear and DequantizeLinear
            stand around.
        fold: whether they may compute constants in advance and hold them.
        prepack: whether weights may be held a second time, in the order in which kernels read them: packed
            by the kernels, or blocked by channels for convolutions, for which all are held twice at once.

    Raises:
        ProviderError: the provider is missing or does not start.
        NativeError: the session runs on another provider than was asked for.
    """
    import onnxruntime

    start(provider)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERROR_LEVEL
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = optimize
    if not integers:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if not prepack:
        options.add_session_config_entry("session.disable_prepacking", "1")
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    off = [] if fold else ["ConstantFolding"]
    off += [] if prepack else ["NchwcTransformer"]
    session = onnxruntime.InferenceSession(
        model, options, providers=provider.chain, enable_fallback=0, disabled_optimizers=off
    )
    if session.get_providers()[0] != provider.name:
        raise NativeError(f"the session runs on {session.get_providers()[0]}, not {provider.name}")
    return session


@functools.cache
def start(provider: Provider) -> None:
    """Start a provider once, apart from any model, so that what fails is known to be the provider.

    Raises:
        ProviderError: it is missing, or would be replaced by the CPU.
    """
    if provider.kind == "cpu":
        return
    check_available(provider)
    import onnxruntime

    getattr(onnxruntime, "preload_dlls", lambda: None)()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERROR_LEVEL
    try:
        session = onnxruntime.InferenceSession(
            _smallest(), options, providers=provider.chain, enable_fallback=0
        )
    except Exception as error:  # noqa: BLE001 - whatever it is, the provider does not start
        raise refusal(provider, str(error)) from None
    if session.get_providers()[0] != provider.name:
        raise refusal(provider, "its libraries do not load, ONNX Runtime would use the CPU")


def _smallest() -> bytes:
    """A model of one node."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    graph = helper.make_graph(nodes, "smallest", [x], [y])
    opset = helper.make_opsetid("", 13)
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[opset], ir_version=7)
    return bytes(model.SerializeToString())
