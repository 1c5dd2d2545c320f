"""The weights of the rows of a calibration sample, and what is known of their sums.

Up to `UNBINNED_ROWS` rows, all of them are in memory: sums of the fit of sWeights are
taken over rows. Of more rows, they are taken over fine bins of the discriminant
(`pidgan.sample.binned_sweights`), and weights are made block by block.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pidgan.errors import DatasetError
from pidgan.files.in_order import in_order
from pidgan.files.mapped import GrowingArrays, read_rows
from pidgan.sample.binned_sweights import binned_sweights
from pidgan.sample.chunks import MASS, WEIGHT
from pidgan.sample.rows import SampleRows
from pidgan.sample.sweights import alternative_sweights, compute_sweights
from pidgan.sample.weights import WeightSums, check_weights

#: Rows up to which the yields of a mass fit are found from each row.
UNBINNED_ROWS = 4_000_000
#: Rows of a block.
BLOCK_ROWS = 500_000

Double = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """Weights (n,), the weights (n, a) of other mass fits with their names, a summary.

    `sums` are those of the weights.
    """

    weights: Double
    alternatives: Double
    names: tuple[str, ...]
    fit: dict[str, Any]
    sums: WeightSums


def weigh(rows: SampleRows, *, threads: int | None = None) -> Weighed:
    """Return the weights of rows; a DatasetError if they say nothing."""
    sample, n = rows.sample, len(rows)
    name = sample.weight_branch or "sWeights"
    fit: dict[str, Any] = {}
    alternatives: Double = np.zeros((n, 0))
    names: tuple[str, ...] = ()
    weights: Double
    if sample.weight_branch or sample.sweights:
        weights = rows.arrays[WEIGHT]
    elif sample.discriminant and n > UNBINNED_ROWS:
        weights, alternatives, names, fit = _binned(rows, threads)
    elif sample.discriminant:
        mass = np.asarray(rows.arrays[MASS], dtype=np.float64)
        result = compute_sweights(mass, sample.discriminant, source=rows.where)
        weights = result.weights.astype(np.float64, copy=False)
        fit = {"fit": result.summary}
        others = alternative_sweights(mass, sample.discriminant, source=rows.where)
        names = tuple(others)
        alternatives = np.reshape(list(others.values()), (len(others), n)).T.copy()
    else:
        weights = np.ones(n)
    if sample.sweights:
        name = f"{sample.sweights.branch} of {sample.sweights.file}"
        fit = {"sweights": sample.sweights.text()}
    sums = WeightSums.of(weights)
    check_weights(weights, f"{rows.where}: {name}", sums=sums)
    if not sums.total > 0:
        raise DatasetError(
            f"{rows.where}: the sum of {name!r} over {n} rows is {sums.total:g}, "
            f"expected a positive number"
        )
    return Weighed(
        weights=weights, alternatives=alternatives, names=names, fit=fit, sums=sums
    )


def _binned(
    rows: SampleRows, threads: int | None
) -> tuple[Double, Double, tuple[str, ...], dict[str, Any]]:
    """Return weights, those of other fits with their names, and a summary."""
    assert rows.sample.discriminant is not None
    mass = rows.arrays[MASS]
    places = [
        slice(start, min(start + BLOCK_ROWS, len(mass)))
        for start in range(0, len(mass), BLOCK_ROWS)
    ]
    result, table, others = binned_sweights(
        (read_rows(mass, place) for place in places),
        rows.sample.discriminant,
        source=rows.where,
    )
    summary = {**result.summary, "binned": True}

    def weights_of(place: slice) -> dict[str, npt.NDArray[Any]]:
        block = read_rows(mass, place)
        other = [one.of(block) for one in others.values()]
        alternatives = np.reshape(other, (len(other), len(block))).T
        return {"weights": table.of(block), "alternatives": alternatives}

    found = GrowingArrays(rows.scratch)
    for columns in in_order(weights_of, places, threads=threads):
        found.append(columns)
    arrays = found.finish()
    return arrays["weights"], arrays["alternatives"], tuple(others), {"fit": summary}
