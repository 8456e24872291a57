"""Weights of chosen places clustered, in place: refitted where they can be, else each for itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from graphopt.ir.graph import Constant, Node
from graphopt.ir.indexed import Indexed
from graphopt.ir.model import Model
from graphopt.pass_base import Context, Edit

from ..pruning._fitting import places as fitting
from ..pruning._fitting.refit import refit
from ..quantization._layer_moments import Moments, observed
from ..quantization._weight_places import Place
from ._fits import ClusterLeastSquares, alone, plain
from ._integers import Stored, observed_integers, shared_integers
from ._sharing import Sharing

FITTED = "fitted to what the original gives"


def observed_floats(
    places: Sequence[Place], model: Model, context: Context, block: int | None = None
) -> Iterator[tuple[Place, Moments | str]]:
    """Each place with what is known of what its layer reads, or why nothing is."""
    if context.observe is None or context.data is None:
        yield from ((place, "there is no data") for place in places)
    else:
        yield from observed(places, model, context.observe, block)


def cluster_places(
    places: Mapping[str, Place | Stored], levels: Mapping[str, Sharing], context: Context
) -> dict[str, str]:
    """Cluster the weights of places, in place; how, in words, by name."""
    chosen = [places[name] for name in levels]
    floats = {place.name: place for place in chosen if isinstance(place, Place)}
    how = {}
    if floats:
        how = _cluster_floats(floats, {name: levels[name] for name in floats}, context)
    stored = [place for place in chosen if isinstance(place, Stored)]
    for place, layer, moments in observed_integers(stored, context):
        place.weight.values = shared_integers(place, levels[place.name].values, layer, moments)
        known = "by k-means on its grid" if moments is None else "fitted to what its layer reads"
        how[place.name] = known
    return how


def _cluster_floats(
    places: Mapping[str, Place], levels: Mapping[str, Sharing], context: Context
) -> dict[str, str]:
    """Cluster the weights of floats, in place; how, in words, by name."""
    original = context.model.copy()
    how = _refitted(places, levels, original, context)
    rest = [places[name] for name in levels if how.get(name) != FITTED]
    own = {place.name: place for place in rest}
    for place, moments in observed_floats(list(own.values()), original, context):
        sharing, name = levels[place.name], place.name
        if isinstance(moments, Moments):
            place.weight.values = alone(place, sharing, moments)
            hold_places(place.weight)
            how[name] = "fitted to what its layer reads"
        else:
            place.weight.values = plain(place, sharing, None)
            how[name] = f"by k-means: {how.get(name) or moments}"
    return how


def _refitted(
    places: Mapping[str, Place], levels: Mapping[str, Sharing], original: Model, context: Context
) -> dict[str, str]:
    """Cluster what can be refitted."""
    if context.data is None:
        return {}
    names = {places[name].reader.uid: name for name in levels}

    def method(compared: fitting.Place) -> ClusterLeastSquares | None:
        layer = compared.layer
        name = names.get(layer.node.uid)
        if name is None or layer.weight is not places[name].weight:
            return None
        return ClusterLeastSquares(compared, levels[name])

    how = {}
    for entry in refit(context.model, original, {}, context, method):
        assert isinstance(entry.node, Node)
        name = names[entry.node.uid]
        how[name] = FITTED if isinstance(entry, Edit) else entry.why
        if isinstance(entry, Edit):
            hold_places(places[name].weight)
    return how


def hold_places(weight: Constant) -> None:
    """Hold a weight as the places of its values, where it takes few: floats are not kept for all layers."""
    weight.values = Indexed.of(weight.values) or weight.values
