"""Efficiencies of candidates with one uncertainty of the maps up, or with maps drawn.

Rows of the same bin are wrong together, and bins of one map are correlated. With C the
covariance of the differences of all selections and bins of a map, the columns of the
eigenvariations hold

    prod_t e_t + sum_t (prod_{s != t} e_s) m_k(t),      C = sum_k m_k m_k^T,

one column for each m_k; with several periods, they are of the mean of such products.
The m_k are eigenvectors of C in a metric that counts a bin by the rows of the reference
in it, so that few of them carry nearly all of the variance. What is left is added as if
it were the same error everywhere, which is never too small. A replica has every track's
efficiency with the map drawn from C and from its variations. `filling` is what the
place of each candidate in its bin may change (`pidgan.efficiency.filling`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pidgan.arrays import FloatArray, IntArray
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.eigen_variations import EIGEN_SHARE, MAX_EIGEN
from pidgan.efficiency.filling import NAME as FILLING
from pidgan.efficiency.filling import has_centres
from pidgan.efficiency.period_maps import SIGN
from pidgan.efficiency.selection_table import SelectionTable, mean_product
from pidgan.efficiency.selections import Selection
from pidgan.efficiency.track_maps import Maps, parts_of
from pidgan.errors import MapError

MAX_SIZE = 6000
"""Largest number of bins times selections of a map whose covariance is decomposed."""

Shift = list[dict[str, FloatArray]]
"""By selection and factor, the shift (n_bins,) of the efficiency in every bin."""


@dataclass(frozen=True, kw_only=True)
class ColumnVariations:
    """Shifts by name, and those of replicas, which multiply.

    `has_filling` says whether there is a column of the filling of bins.
    """

    shifts: Mapping[str, Shift] = field(default_factory=dict)
    replicas: Mapping[str, Shift] = field(default_factory=dict)
    has_filling: bool = False

    @property
    def names(self) -> list[str]:
        """Names of the columns, without what is before them."""
        own = [FILLING] if self.has_filling else []
        return [*self.shifts, *own, *self.replicas]

    @classmethod
    def make(
        cls,
        selections: Sequence[Selection],
        maps: Maps,
        *,
        eigenvariations: bool,
        replicas: int,
        seed: int,
    ) -> "ColumnVariations":
        """Return what is asked for."""
        if replicas < 0:
            raise ValueError(f"replicas is {replicas}, expected 0 or more")
        users = _users(selections, maps)
        has_filling = any(has_centres(own) for own, _ in users)
        if not eigenvariations and not replicas:
            return cls(has_filling=has_filling)
        shifts: dict[str, Shift] = {}
        drawn: dict[str, Shift] = {
            f"replica_{k + 1}": [{} for _ in selections] for k in range(replicas)
        }
        for number, (own, places) in enumerate(users):
            prefix = f"{_name_of(number, users)}_" if len(users) > 1 else ""
            cuts = sorted({cut for _, _, _, cut in places})
            values, vectors, scale = _decompose(own, cuts)
            roots = np.sqrt(np.maximum(values, 0)) * vectors / scale[:, np.newaxis]
            others = {
                name.replace("#", "_"): shift[cuts].reshape(-1)
                for name, shift in own.variations.items()
            }
            if eigenvariations:
                for name, shift in {**_modes(values, roots), **others}.items():
                    found = [{} for _ in selections]  # type: Shift
                    _spread(shift, cuts, places, found, maps)
                    shifts[f"{prefix}{name}"] = found
            for k, one in enumerate(drawn.values()):
                rng = np.random.default_rng([seed, number, k])
                shift = roots @ rng.standard_normal(len(values))
                shift = shift + sum(rng.standard_normal() * s for s in others.values())
                _spread(shift, cuts, places, one, maps)
        return cls(shifts=shifts, replicas=drawn, has_filling=has_filling)

    def evaluate(
        self,
        selection: int,
        table: SelectionTable,
        places: Mapping[str, IntArray],
        offsets: Mapping[str, FloatArray],
    ) -> Iterator[tuple[str, Any]]:
        """Yield the efficiency (n,) of candidates in each column; NaN outside a map.

        `table` is that of the selection. `places` has the bin of each row by factor,
        and `offsets` its distances (n_axes, n) from the mean of the reference there.
        """
        if not self.names:
            return
        inside = np.all([places[f] >= 0 for f in table.efficiency], axis=0)
        factors = {f: e[places[f]] for f, e in table.efficiency.items()}
        mean, slopes = mean_product(table.terms, factors)
        nominal = np.where(inside, mean, np.nan)
        for name, shift in self.shifts.items():
            value = nominal.copy()
            for factor, own in shift[selection].items():
                value += slopes[factor] * own[places[factor]]
            yield name, value.astype(np.float32)
        if self.has_filling:
            value = nominal + table.filling(slopes, places, offsets)
            yield FILLING, value.astype(np.float32)
        for name, shift in self.replicas.items():
            drawn = {
                f: (e + shift[selection].get(f, 0.0))[places[f]]
                for f, e in table.efficiency.items()
            }
            value, _ = mean_product(table.terms, drawn)
            yield name, np.where(inside, value, np.nan).astype(np.float32)


Place = tuple[int, str, slice, int]
"""A selection, a factor of it, the bins of the map among those of the factor, a cut."""


def _users(
    selections: Sequence[Selection], maps: Maps
) -> list[tuple[EfficiencyMap, list[Place]]]:
    """Return each map that selections use, and where they do."""
    found: dict[str, tuple[EfficiencyMap, list[Place]]] = {}
    for number, selection in enumerate(selections):
        for track, cut in selection.cuts.items():
            for part in parts_of(maps[track]):
                _, places = found.setdefault(part.key, (part.map, []))
                places.append((number, track, part.bins, part.numbers[cut]))
    return list(found.values())


def _name_of(number: int, users: Sequence[tuple[EfficiencyMap, list[Place]]]) -> str:
    """Return a name for a map among several: its first track, perhaps numbered."""
    first = [places[0][1].replace(SIGN, "_") for _, places in users]
    track = first[number]
    if first.count(track) == 1:
        return track
    return f"{track}_{first[: number + 1].count(track)}"


def _decompose(
    own: EfficiencyMap, cuts: Sequence[int]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return eigenvalues, the largest first, eigenvectors and the scale of numbers."""
    n_bins = len(own.n_eff)
    if n_bins * len(cuts) > MAX_SIZE:
        raise MapError(
            f"{len(cuts)} selections in {n_bins} bins of a map: got "
            f"{n_bins * len(cuts)} numbers with a covariance, at most {MAX_SIZE}; give "
            "fewer selections at a time"
        )
    covariance = np.block([[own.joint_covariance(i, j) for j in cuts] for i in cuts])
    rows = own.n_eff + 1.0  # no bin without any
    scale = np.tile(np.sqrt(rows / rows.sum()), len(cuts))
    values, vectors = np.linalg.eigh(covariance * scale * scale[:, np.newaxis])
    return values[::-1], vectors[:, ::-1], scale


def _modes(values: FloatArray, roots: FloatArray) -> dict[str, FloatArray]:
    """Return the largest roots (n, n_modes) of a covariance by name, and the rest."""
    values = np.maximum(values, 0)
    share = np.cumsum(values) / values.sum() if values.sum() > 0 else np.ones(1)
    n = min(int(np.searchsorted(share, EIGEN_SHARE)) + 1, MAX_EIGEN, len(values))
    signs = np.where(roots.sum(axis=0) < 0, -1.0, 1.0)
    found = {f"calibration_{k + 1}": signs[k] * roots[:, k] for k in range(n)}
    if n < len(values):
        found["calibration_rest"] = np.sqrt((roots[:, n:] ** 2).sum(axis=1))
    return found


def _spread(
    shift: FloatArray,
    cuts: Sequence[int],
    places: Sequence[Place],
    found: Shift,
    maps: Maps,
) -> None:
    """Enter a shift (n_cuts * n_bins,) of a map for its selections and tracks."""
    by_cut = dict(zip(cuts, shift.reshape(len(cuts), -1), strict=True))
    for selection, track, bins, cut in places:
        n_bins = len(maps[track].n_eff)
        own = found[selection].setdefault(track, np.zeros(n_bins))
        own[bins] += by_cut[cut]
