"""Taking blocks out: what reads the tensor that leaves a block reads the block's source instead."""

from __future__ import annotations

from collections.abc import Mapping

from graphopt.ir.model import Model
from graphopt.ir.surgery import insert, is_used, producer, redirect, remove, tidy


def bypass_blocks(model: Model, sources: Mapping[str, str]) -> None:
    """Let what reads the tensors that leave blocks read the blocks' sources instead.

    Args:
        model: the model that the blocks were found in, or a copy of it; changed in place.
        sources: for each tensor the one to read instead. Blocks must not overlap, but may follow each other.
    """
    graph = model.graph
    read = [initializer for initializer in graph.initializers if is_used(initializer)]
    tensors = {t.name: t for node in graph.nodes for t in node.outputs}
    tensors.update((tensor.name, tensor) for tensor in graph.inputs)
    for where, name in sources.items():
        while name in sources:
            name = sources[name]
        exit_, source = tensors[where], tensors[name]
        made = producer(exit_)
        if made is None:  # it left with a block after it
            continue
        if exit_.is_output:
            insert(made, "Identity", [source], [exit_])
        else:
            redirect(exit_, source)
        remove(made)
    left = {id(initializer) for initializer in read if not is_used(initializer)}
    graph.initializers = [entry for entry in graph.initializers if id(entry) not in left]
    tidy(graph)
