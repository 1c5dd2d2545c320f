"""Efficiencies as histograms of `hist`, and sums of weights from them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.errors import DatasetError


def weight_histogram(
    edges: Mapping[str, Sequence[float]],
    values: FloatArray,
    variances: FloatArray,
    *,
    name: str,
    cuts: Sequence[str] = (),
) -> Any:
    """Return a `hist.Hist` with storage `Weight`, without overflow.

    Args:
        edges: Edges by condition, one axis each.
        values: (n_1, ..., n_d) contents, with the cuts first if there are any.
        variances: Squared errors, of the same shape.
        name: Name of the histogram.
        cuts: Categories of a first axis "cut"; empty for none.
    """
    import hist

    axes = [hist.axis.StrCategory(list(cuts), name="cut")] if cuts else []
    axes += [
        hist.axis.Variable(
            list(bins), name=condition, label=condition, overflow=False, underflow=False
        )
        for condition, bins in edges.items()
    ]
    result = hist.Hist(*axes, storage=hist.storage.Weight(), name=name)
    view = result.view(flow=False)
    view["value"], view["variance"] = values, variances
    return result


def axis_edges(histogram: Any) -> dict[str, tuple[float, ...]]:
    """Return the edges of the axes by name.

    An axis without a name has that of its metadata, as in PIDCalib2, or "axis_0" ...
    """
    edges = {}
    for i, axis in enumerate(histogram.axes):
        metadata = getattr(axis, "metadata", None)
        named = metadata.get("name") if isinstance(metadata, Mapping) else None
        name = str(getattr(axis, "name", "") or named or f"axis_{i}")
        edges[name] = tuple(map(float, axis.edges))
    return edges


def weight_sums(name: str, histogram: Any) -> FloatArray:
    """Return the sums of w and of w^2, (2, ...), of a histogram that is called `name`.

    Raises:
        DatasetError: The histogram has no sums of w^2.
    """
    view = histogram.view(flow=False)
    if view.dtype.names is None or not {"value", "variance"} <= set(view.dtype.names):
        raise DatasetError(
            f"histogram {name!r} has no sums of squared weights, expected the storage "
            "Weight"
        )
    return np.array([view["value"], view["variance"]])
