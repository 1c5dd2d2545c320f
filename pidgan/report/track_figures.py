"""Figures of tracks: distances, atoms, ties, a classifier test, efficiencies of cuts.

Each stands beside its floor, the same figure for a sample of the train part instead of
the generated rows.
"""

import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from pidgan.arrays import BoolArray, FloatArray, IntArray
from pidgan.efficiency import real_vs_generated
from pidgan.efficiency.binning import (
    bin_index,
    bin_shape,
    count_bins,
)
from pidgan.efficiency.real_vs_generated import MIN_BIN_EFF
from pidgan.errors import DatasetError, PidganWarning
from pidgan.report import metrics
from pidgan.report.metrics import C2ST_MIN_ROWS
from pidgan.report.report import Measured, measured, missing
from pidgan.sample.cuts import Cut, parse_cut
from pidgan.sample.dataset import Part
from pidgan.sample.definition import Sample
from pidgan.sample.grids import find_grid, standing_out
from pidgan.sample.weights import n_eff, with_differences

Choice = Callable[[Part], BoolArray]


@dataclass(frozen=True, kw_only=True)
class TrackRows:
    """Real rows of one species, generated rows of the same conditions, and the floor.

    The floor is samples of the train part, each of about the size of the test part.
    `among` is a denominator of targets, for efficiencies of cuts.
    """

    sample: Sample
    real: Part
    generated: Part
    floors: tuple[Part, ...]
    among: Cut | None = None

    def where(self, choose: Choice) -> "TrackRows":
        """Return the chosen rows; of the floor only samples with a positive sum."""
        floors = (take(part, choose(part)) for part in self.floors)
        return replace(
            self,
            real=take(self.real, choose(self.real)),
            generated=take(self.generated, choose(self.generated)),
            floors=tuple(part for part in floors if is_usable(part)),
        )

    def split(self, edges: Mapping[str, Any]) -> list["TrackRows"]:
        """Return the rows of each bin, in the order of flat bins."""
        parts = (self.real, self.generated, *self.floors)
        index = {id(part): self.bins(part, edges) for part in parts}

        def inside(part: Part, *, number: int) -> BoolArray:
            return np.asarray(index[id(part)] == number)

        return [self.where(partial(inside, number=b)) for b in range(count_bins(edges))]

    def columns(self, part: Part) -> dict[str, FloatArray]:
        """Return the conditions of some rows by name."""
        return dict(zip(self.sample.condition_names, part.conditions.T, strict=True))

    def bins(self, part: Part, edges: Mapping[str, Any]) -> IntArray:
        """Return the flat bin of each row, negative outside."""
        return bin_index(self.columns(part), edges)

    def passing(self, part: Part, cuts: Sequence[str]) -> BoolArray:
        """Return which rows pass cuts, (n_cuts, n)."""
        names = self.sample.target_names
        columns = dict(zip(names, part.targets.T, strict=True))
        parsed = [parse_cut(cut, names=names) for cut in cuts]
        return np.array([cut.passes(columns, self.sample.sentinels) for cut in parsed])

    def counted(self, part: Part) -> BoolArray:
        """Return which rows (n,) are in the denominator of efficiencies."""
        if self.among is None:
            return np.ones(len(part.weights), dtype=np.bool_)
        names = self.sample.target_names
        columns = dict(zip(names, part.targets.T, strict=True)) | self.columns(part)
        return self.among.passes(columns, self.sample.sentinels)

    def outcomes(
        self, cuts: Sequence[str], passing: Choice, *, floor: Part | None = None
    ) -> real_vs_generated.ComparedRows:
        """Return which real and generated rows are chosen, for efficiencies in bins."""
        real, generated = floor or self.real, floor or self.generated
        if self.among is not None:
            among, counted = self.counted(real), self.counted(generated)
            return real_vs_generated.ComparedRows(
                species=self.sample.species,
                cuts=tuple(cuts),
                columns=self.columns(real),
                weights=real.weights,
                real=passing(real) & among,
                generated=(passing(generated) & counted).astype(np.int64),
                repeats=1,
                units={v.name: v.package_unit for v in self.sample.conditions},
                among=among,
                generated_among=counted.astype(np.int64),
            )
        return real_vs_generated.ComparedRows(
            species=self.sample.species,
            cuts=tuple(cuts),
            columns=self.columns(real),
            weights=real.weights,
            real=passing(real),
            generated=passing(generated).astype(np.int64),
            repeats=1,
            units={v.name: v.package_unit for v in self.sample.conditions},
        )


def take(part: Part, rows: Any) -> Part:
    """Return some rows of a part."""
    return Part(**{name: values[rows] for name, values in vars(part).items()})


def is_usable(part: Part) -> bool:
    """Return whether the weights of rows can be normalised."""
    return len(part.weights) > 0 and float(part.weights.sum()) > 0


MIN_ATOM_SHARE, MIN_ATOM_ROWS = 2e-3, 10  # from which a value or a tie is listed
MAX_ATOMS = 6  # listed for one target of one sample

OF_BIN = ("ks", "ks_error", "ks_floor", "wasserstein", "wasserstein_floor", "n_eff")

Edges = dict[str, tuple[float, ...]]
Distance = Callable[[FloatArray, FloatArray, FloatArray, FloatArray], float]


def target_figures(rows: TrackRows, edges: Edges, *, seed: int) -> dict[str, Any]:
    """Return distances and atoms of each target, by name."""
    bins = rows.split(edges)
    error_of_w1 = partial(metrics.wasserstein_error, seed=seed)
    found: dict[str, Any] = {}
    for t, variable in enumerate(rows.sample.targets):
        # Sentinels would swamp a distance in units of the target.
        inside = rows.where(partial(_is_measured, t=t, absent=variable.sentinels))
        usable = is_usable(inside.real) and is_usable(inside.generated)
        found[variable.name] = {
            "unit": variable.package_unit,
            "ks": _distance(rows, t, metrics.weighted_ks, metrics.ks_error),
            "wasserstein": _distance(inside, t, metrics.wasserstein, error_of_w1)
            if usable
            else missing("no measured values"),
            "in_bins": _distances_in_bins(bins, t, edges),
            "atoms": _atom_figures(rows, t, variable.sentinels),
        }
    return found


def tie_figures(rows: TrackRows) -> dict[str, Any]:
    """Return the shares of rows in which two targets are equal and measured."""
    names, sentinels = rows.sample.target_names, rows.sample.sentinels
    found: dict[str, Any] = {}
    for (i, first), (j, second) in itertools.combinations(enumerate(names), 2):
        absent = sentinels.get(first, ()) + sentinels.get(second, ())
        tied = partial(_is_tied, pair=(i, j), absent=absent)
        share = max(tied(part).mean() for part in (rows.real, rows.generated))
        if share >= MIN_ATOM_SHARE:
            found[f"{first} == {second}"] = share_figures(
                replace(rows, among=None), tied
            )
    return found


def share_figures(rows: TrackRows, choose: Choice) -> dict[str, Any]:
    """Return the shares of chosen rows, real and generated, and their difference."""
    outcomes = rows.outcomes(("chosen",), lambda part: choose(part)[np.newaxis])
    found = outcomes.in_bins({}).measured()
    real = float(found.real.efficiency[0])
    shares = [
        f.weights[choose(f) & own].sum() / f.weights[own].sum()
        for f in rows.floors
        if f.weights[own := rows.counted(f)].sum() > 0
    ]
    return {
        "real": real,
        "generated": float(found.generated.efficiency[0]),
        "difference": measured(
            float(found.difference[0]),
            float(found.difference_error[0]),
            [abs(float(share - real)) for share in shares],
            n_eff(rows.real.weights),
        ),
    }


def c2st_figure(rows: TrackRows, *, seed: int, max_rows: int) -> Measured:
    """Return the classifier test of all targets together, beside the conditions."""
    n, w = len(rows.real.weights), rows.real.weights
    if n < C2ST_MIN_ROWS:
        return _no_c2st(f"{n} test rows; a C2ST needs {C2ST_MIN_ROWS}")
    features = with_differences(rows.real.conditions, rows.real.targets)
    generated = with_differences(rows.real.conditions, rows.generated.targets)
    try:
        found = metrics.c2st(
            features, generated, w, w, seed=seed, max_rows=max_rows, paired=True
        )
    except DatasetError as error:
        return _no_c2st(str(error))
    floor = None
    for part in rows.floors[:1]:
        if len(part.weights) >= C2ST_MIN_ROWS:
            x = with_differences(part.conditions, part.targets)
            floor = metrics.c2st(
                x, features, part.weights, w, seed=seed, max_rows=max_rows
            )
    return {
        "value": found.auc,
        "error": found.error,
        "floor": floor.auc if floor else None,
        "floor_error": floor.error if floor else None,
        "n_eff": found.n_eff,
        "trees": found.auc_trees,
        "network": found.auc_network,
        "floor_trees": floor.auc_trees if floor else None,
        "floor_network": floor.auc_network if floor else None,
        "rows": found.n_real,
    }


def _no_c2st(reason: str) -> Measured:
    warnings.warn(f"no C2ST: {reason}", PidganWarning, stacklevel=4)
    return missing(reason)


def _is_measured(part: Part, *, t: int, absent: Sequence[float]) -> BoolArray:
    return np.asarray(~np.isin(part.targets[:, t], absent))


def _is_tied(
    part: Part, *, pair: tuple[int, int], absent: Sequence[float]
) -> BoolArray:
    first, second = (part.targets[:, t] for t in pair)
    return np.asarray((first == second) & ~np.isin(first, absent))


def _is_equal(part: Part, *, t: int, value: float) -> BoolArray:
    return np.asarray(part.targets[:, t] == value)


def _between(a: Part, b: Part, t: int, distance: Distance) -> float:
    return distance(a.targets[:, t], b.targets[:, t], a.weights, b.weights)


def _floors(rows: TrackRows, t: int, distance: Distance) -> list[float]:
    return [_between(floor, rows.real, t, distance) for floor in rows.floors]


def _distance(rows: TrackRows, t: int, distance: Distance, error: Distance) -> Measured:
    """A distance of generated to real rows in one target, with its floor."""
    return measured(
        _between(rows.generated, rows.real, t, distance),
        _between(rows.generated, rows.real, t, error),
        _floors(rows, t, distance),
        n_eff(rows.real.weights),
    )


def _distances_in_bins(
    bins: Sequence[TrackRows], t: int, edges: Edges
) -> dict[str, Any]:
    """KS and Wasserstein-1 distances in kinematic bins, with their floors."""
    shape = bin_shape(edges)
    table = {name: np.full(len(bins), np.nan) for name in OF_BIN}
    for b, rows in enumerate(bins):
        table["n_eff"][b] = n_eff(rows.real.weights)
        if not is_usable(rows.real) or table["n_eff"][b] < MIN_BIN_EFF:
            continue
        pair = rows.generated, rows.real, t
        table["ks_error"][b] = _between(*pair, metrics.ks_error)
        for name, distance in (
            ("ks", metrics.weighted_ks),
            ("wasserstein", metrics.wasserstein),
        ):
            table[name][b] = _between(*pair, distance)
            if rows.floors:
                table[f"{name}_floor"][b] = np.mean(_floors(rows, t, distance))
    used = np.isfinite(table["ks"])
    with_floor = used & np.isfinite(table["ks_floor"])
    mean = missing(f"no bin has {MIN_BIN_EFF:g} effective rows")
    if used.any():
        mean = measured(
            float(np.mean(table["ks"][used])),
            float(np.sqrt(np.sum(table["ks_error"][used] ** 2)) / used.sum()),
            [float(np.mean(table["ks_floor"][with_floor]))] if with_floor.any() else [],
            float(np.sum(table["n_eff"][used])),
        )
    return {
        "edges": {name: list(e) for name, e in edges.items()},
        "shape": list(shape),
        "bins_left_out": int(np.count_nonzero(~used)),
        "ks_mean": mean,
        **{name: values.reshape(shape).tolist() for name, values in table.items()},
    }


def _atom_figures(
    rows: TrackRows, t: int, sentinels: Sequence[float]
) -> list[dict[str, Any]]:
    """Shares of the values that a finite part of the rows takes exactly.

    On a grid these are sentinels and the values that stand out from their neighbours.
    """
    grid = find_grid(rows.real.targets[:, t], sentinels=sentinels)
    values: set[float] = set()
    for sample in (rows.real.targets[:, t], rows.generated.targets[:, t]):
        unique, counts = np.unique(sample, return_counts=True)
        least = max(MIN_ATOM_ROWS, MIN_ATOM_SHARE * len(sample))
        often = counts >= least
        if grid is not None:
            stands = standing_out(grid.index(sample), least=least)
            often &= np.isin(unique, sentinels) | np.isin(grid.index(unique), stands)
        most = np.argsort(-counts[often], kind="stable")[:MAX_ATOMS]
        values.update(float(v) for v in unique[often][most])
    return [
        {
            "value": value,
            "sentinel": value in sentinels,
            **share_figures(rows, partial(_is_equal, t=t, value=value)),
        }
        for value in sorted(values)
    ]
