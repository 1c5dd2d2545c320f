"""The validation of a generator: generated against real rows it was never trained on.

Every figure comes with its uncertainty, the effective number of rows behind it, and
its floor: the same figure for real against real, here the test part against rows of
the train part, drawn without repetition in samples of the test part's size. Generated
rows have the conditions and weights of the real ones they are compared with; the
floor's rows have their own, so that a perfect generator can lie slightly below it.
"""

import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from pidgan.arrays import BoolArray, FloatArray, IntArray
from pidgan.bundle.card import Generator, sample_targets
from pidgan.efficiency.binning import bin_index, bin_shape, count_bins
from pidgan.efficiency.real_vs_generated import (
    MIN_BIN_EFF,
    RealVsGenerated,
    compare_outcomes,
)
from pidgan.efficiency.table import sort_rows, table_of_shares
from pidgan.errors import DatasetError, PidganWarning
from pidgan.report.metrics import (
    C2ST_MIN_ROWS,
    c2st,
    ks_error,
    wasserstein,
    wasserstein_error,
    weighted_ks,
)
from pidgan.report.shower_validation import ShowerReport, compare_showers
from pidgan.sample.cuts import parse_cut
from pidgan.sample.dataset import Dataset, Part, PartName
from pidgan.sample.weights import n_eff, with_differences

Figure = dict[str, float | None]

FIGURES_SCHEMA = 1
KINEMATIC_BINS = 3  # quantile bins along each of the first two conditions
DEFAULT_BINS = 8  # quantile bins of a condition without a binning
MAX_FLOOR_SAMPLES = 4
MIN_FLOOR_SHARE = 0.7  # of the test part's rows; fewer make a floor too high
MIN_ATOM_SHARE = 2e-3  # of the rows, for a value or a tie to be listed
MIN_ATOM_ROWS = 10
MAX_ATOMS = 6
FLOOR = "test part against samples of the train part of the same size"


@dataclass(frozen=True, kw_only=True)
class Report:
    """The outcome of a validation: figures, and the arrays to draw them from.

    Attributes:
        figures: everything that was measured, nested by kind and name; only what JSON
            knows, a missing number is None.
        sample: name of the calibration sample.
        species: true particle type.
        condition_names: names of the conditions.
        condition_units: their units.
        target_names: names of the targets.
        target_units: their units.
        sentinels: by target, values that mean "not measured".
        conditions: (n, c) of the test part.
        real: (n, t), its targets.
        generated: (n, t), generated with the same conditions.
        weights: (n,), of either sign.
        kinematic_edges: quantile edges of the first two conditions.
        kinematic_bin: (n,), flat bin of each row in those edges.
        efficiencies: Efficiencies of all cuts against each condition.
        misids: The same of other species.
        maps: Efficiencies of all cuts in bins of the first two conditions.
    """

    figures: dict[str, Any]
    sample: str
    species: str
    condition_names: tuple[str, ...]
    condition_units: tuple[str, ...]
    target_names: tuple[str, ...]
    target_units: tuple[str, ...]
    sentinels: dict[str, tuple[float, ...]]
    conditions: npt.NDArray[np.float32]
    real: npt.NDArray[np.float32]
    generated: npt.NDArray[np.float32]
    weights: FloatArray
    kinematic_edges: dict[str, tuple[float, ...]]
    kinematic_bin: IntArray
    efficiencies: tuple[RealVsGenerated, ...]
    misids: tuple[RealVsGenerated, ...]
    maps: tuple[RealVsGenerated, ...]

    def to_json(self) -> str:
        """Return all figures as JSON."""
        return json.dumps(self.figures, indent=1, allow_nan=False)

    def headline(self) -> dict[str, Any]:
        """Return the figures that belong on a bundle's card."""
        targets = self.figures["targets"]
        efficiency = self.figures["efficiency"]
        return {
            "floor": self.figures["floor"],
            "rows": self.figures["rows"],
            "ks": {name: found["ks"] for name, found in targets.items()},
            "ks_in_bins": {
                name: found["in_bins"]["ks_mean"] for name, found in targets.items()
            },
            "c2st": self.figures["c2st"],
            "efficiency": {cut: found["overall"] for cut, found in efficiency.items()},
            "pull_rms": {cut: found["pull_rms"] for cut, found in efficiency.items()},
        }

    def summary(self) -> str:
        """Return the main figures as a table of a few lines."""
        rows = self.figures["rows"]
        lines = [
            f"{self.sample}, {self.species}: {rows['test']} test rows, effective "
            f"{rows['n_eff']:.0f}; floor: {self.figures['floor']}",
            f"{'figure':44} {'value':>9} {'error':>8} {'floor':>9}",
        ]
        for label, figure in self.headline_rows():
            if figure["value"] is None:
                lines.append(
                    f"{label:44} {'-':>9} ({figure.get('reason', 'too few rows')})"
                )
                continue
            numbers = [figure["value"], figure["error"], figure["floor"]]
            texts = ["-" if x is None else f"{x:.4f}" for x in numbers]
            lines.append(f"{label:44} {texts[0]:>9} {texts[1]:>8} {texts[2]:>9}")
        return "\n".join(lines)

    def headline_rows(self) -> list[tuple[str, dict[str, Any]]]:
        """Return label and figure of each line of the summary."""
        head = self.headline()
        mean = f"mean in bins of {', '.join(self.kinematic_edges)}"
        found = [(f"weighted KS, {name}", f) for name, f in head["ks"].items()]
        found += [
            (f"KS, {name}, {mean}", figure)
            for name, figure in head["ks_in_bins"].items()
        ]
        found.append(("C2ST, AUC of the better classifier", head["c2st"]))
        for cut, figures in head["efficiency"].items():
            found.append((f"gen - real efficiency, {cut}", figures["difference"]))
            found.append((f"pull rms in bins, {cut}", head["pull_rms"][cut]))
        return found


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """The rows of one species that are compared: names and arrays."""

    dataset: Dataset
    real: Part
    generated: npt.NDArray[np.float32]
    floors: tuple[Part, ...]

    def targets(self, name: str) -> FloatArray:
        """Real values of a target."""
        return self.real.targets[:, self.dataset.sample.target_names.index(name)]


def validate(
    generator: Generator,
    dataset: Dataset,
    *,
    seed: int = 1,
    cuts: Sequence[str] | None = None,
    misid: Sequence[tuple[Generator, Dataset]] = (),
    max_rows: int = 1_000_000,
    c2st_rows: int = 20_000,
) -> Report:
    """Compare generated with real rows of the test part.

    Per target: weighted KS and Wasserstein-1 distance, overall and in quantile bins of
    the first two conditions; shares of atoms and ties. For all targets together: the
    worse of two classifier two-sample tests. Per cut: efficiency overall, against each
    condition and in bins of the first two, with pulls; misID if `misid` is given.

    Args:
        generator: anything that can sample: a model or an opened bundle.
        dataset: the dataset whose train part it was trained on.
        seed: of the noise, of the floor's rows and of the classifiers.
        cuts: PID cuts; none means the sample's standard cuts.
        misid: generator and dataset of other species, for the misID of the cuts.
        max_rows: rows of the test part that are used, the first ones.
        c2st_rows: rows of each sample that the classifiers see.

    Returns:
        The report.

    Raises:
        DatasetError: no test rows, or a generator with other conditions or targets.

    Example:
        >>> report = validate(model, dataset)  # doctest: +SKIP
        >>> print(report.summary())  # doctest: +SKIP
    """
    rows = _prepare(generator, dataset, seed=seed, max_rows=max_rows)
    sample = dataset.sample
    edges = {
        name: _quantile_edges(rows.real.conditions[:, i], KINEMATIC_BINS)
        for i, name in enumerate(sample.condition_names[:2])
    }
    texts = tuple(cuts) if cuts else sample.cuts or _median_cuts(rows)
    efficiencies, maps, efficiency_figures = _compare_cuts(rows, texts)
    others = [
        _prepare(other, data, seed=seed, max_rows=max_rows) for other, data in misid
    ]
    compared = [_compare_cuts(other, texts) for other in others]
    names = [other.dataset.sample.species for other in others]
    figures = {
        "schema": FIGURES_SCHEMA,
        "sample": sample.name,
        "detector": sample.detector,
        "species": sample.species,
        "seed": seed,
        "floor": FLOOR,
        "rows": {
            "test": len(rows.real.weights),
            "floor": [len(floor.weights) for floor in rows.floors],
            "sum_weights": float(rows.real.weights.sum()),
            "n_eff": n_eff(rows.real.weights),
        },
        "targets": _target_figures(rows, edges, seed=seed),
        "ties": _tie_figures(rows),
        "c2st": _c2st_figure(rows, seed=seed, max_rows=c2st_rows),
        "efficiency": efficiency_figures,
        "misid": dict(zip(names, [found[2] for found in compared], strict=True)),
    }
    return Report(
        figures=_plain(figures),
        sample=sample.name,
        species=sample.species,
        condition_names=sample.condition_names,
        condition_units=tuple(v.package_unit for v in sample.conditions),
        target_names=sample.target_names,
        target_units=tuple(v.package_unit for v in sample.targets),
        sentinels=sample.sentinels,
        conditions=rows.real.conditions,
        real=rows.real.targets,
        generated=rows.generated,
        weights=rows.real.weights,
        kinematic_edges=edges,
        kinematic_bin=_bins(rows.dataset, rows.real, edges),
        efficiencies=efficiencies,
        misids=tuple(item for found in compared for item in found[0]),
        maps=maps,
    )


def validate_cells(
    generator: Generator, dataset: Dataset, *, part: PartName = "test", seed: int = 1
) -> ShowerReport:
    """Compare generated with real showers, `validate` for samples of cells.

    Args:
        generator: anything that can sample: a model or an opened bundle.
        dataset: the dataset whose train part it was trained on.
        part: "test", or "excluded" for the intervals that nothing was trained in.
        seed: of the noise, the halves and the classifiers.

    Raises:
        DatasetError: a dataset without cells or incident energy, a generator with other
            conditions or targets, or too few showers.
    """
    sample, cells = dataset.sample, dataset.sample.cells
    if cells is None or cells.incident is None:
        raise DatasetError(
            f"dataset {sample.name!r} has no cells with an incident energy, which a "
            "report of showers needs"
        )
    _check_names(generator, dataset)
    real = dataset.part(part)
    names = [
        "energy" if name == cells.incident else name for name in sample.condition_names
    ]
    return compare_showers(
        real.targets,
        sample_targets(generator, real.conditions, seed=seed, track="validation"),
        real.conditions,
        cells.layout,
        names=names,
        energy_unit=sample.targets[0].package_unit,
        seed=seed,
    )


def _check_names(generator: Generator, dataset: Dataset) -> None:
    """Raise if a generator has other conditions or targets than a dataset."""
    sample, card = dataset.sample, generator.card
    for kind in ("condition_names", "target_names"):
        if getattr(card, kind) != getattr(sample, kind):
            raise DatasetError(
                f"the generator's {kind} are {', '.join(getattr(card, kind)[:20])}; "
                f"those of dataset {sample.name!r} are "
                f"{', '.join(getattr(sample, kind)[:20])}"
            )


def _prepare(
    generator: Generator, dataset: Dataset, *, seed: int, max_rows: int
) -> _Rows:
    """Check that generator and dataset belong together, and sample."""
    sample = dataset.sample
    if sample.cells:
        raise DatasetError(
            f"dataset {sample.name!r} has cells; compare showers with `validate_cells`"
        )
    _check_names(generator, dataset)
    real = _take(dataset.part("test"), slice(max_rows))
    if len(real.weights) == 0 or real.weights.sum() <= 0:
        raise DatasetError(
            f"the test part of dataset {sample.name!r} has {len(real.weights)} rows "
            f"with sum of weights {real.weights.sum():.6g}, expected a positive sum"
        )
    generated = sample_targets(
        generator, real.conditions, seed=seed, track="validation"
    )
    finite: BoolArray = np.asarray(np.isfinite(generated).all(axis=1))
    if not finite.all():
        lost = np.count_nonzero(~finite)
        warnings.warn(
            f"{lost} of {len(finite)} generated rows are not finite and left out",
            PidganWarning,
            stacklevel=3,
        )
        real, generated = _take(real, finite), generated[finite]
        if not finite.any():
            raise DatasetError("no generated row is finite")
    floors = _floor_parts(dataset.part("train"), len(real.weights), seed=seed)
    return _Rows(dataset=dataset, real=real, generated=generated, floors=floors)


def _floor_parts(train: Part, n: int, *, seed: int) -> tuple[Part, ...]:
    """Disjoint random samples of about n rows of the train part."""
    order = np.random.default_rng(seed).permutation(len(train.weights))
    count = min(MAX_FLOOR_SAMPLES, max(1, round(len(order) / n)))
    size = min(n, len(order) // count)
    parts = [
        _take(train, np.sort(order[i * size : (i + 1) * size])) for i in range(count)
    ]
    usable = tuple(p for p in parts if len(p.weights) and p.weights.sum() > 0)
    if not usable or len(usable[0].weights) < MIN_FLOOR_SHARE * n:
        warnings.warn(
            f"the train part has {len(order)} rows, fewer than the {n} of the test "
            f"part: the floors come from fewer rows or are missing",
            PidganWarning,
            stacklevel=4,
        )
    return usable


def _take(part: Part, rows: Any) -> Part:
    """Rows of a part."""
    return Part(
        conditions=part.conditions[rows],
        targets=part.targets[rows],
        weights=part.weights[rows],
        alternatives=part.alternatives[rows],
    )


def _target_figures(
    rows: _Rows, edges: dict[str, tuple[float, ...]], *, seed: int
) -> dict[str, Any]:
    """Distances and atoms of each target."""
    w = rows.real.weights
    found: dict[str, Any] = {}
    for t, variable in enumerate(rows.dataset.sample.targets):
        real, generated = rows.real.targets[:, t], rows.generated[:, t]
        found[variable.name] = {
            "unit": variable.package_unit,
            "ks": _figure(
                weighted_ks(generated, real, w, w),
                ks_error(generated, real, w, w),
                [weighted_ks(f.targets[:, t], real, f.weights, w) for f in rows.floors],
                n_eff(w),
            ),
            "wasserstein": _wasserstein_figure(rows, t, variable.sentinels, seed=seed),
            "in_bins": _distances_in_bins(rows, t, edges),
            "atoms": _atom_figures(rows, t, variable.sentinels),
        }
    return found


def _wasserstein_figure(
    rows: _Rows, t: int, sentinels: tuple[float, ...], *, seed: int
) -> dict[str, Any]:
    """Wasserstein-1 distance of measured values: sentinels would swamp it."""
    w = rows.real.weights
    real, generated = rows.real.targets[:, t], rows.generated[:, t]
    use_r, use_g = ~np.isin(real, sentinels), ~np.isin(generated, sentinels)
    if not (_positive(w[use_r]) and _positive(w[use_g])):
        return _missing("no measured values")
    floors = []
    for floor in rows.floors:
        use = ~np.isin(floor.targets[:, t], sentinels)
        if _positive(floor.weights[use]):
            floors.append(
                wasserstein(
                    floor.targets[use, t], real[use_r], floor.weights[use], w[use_r]
                )
            )
    samples = (generated[use_g], real[use_r], w[use_g], w[use_r])
    return _figure(
        wasserstein(*samples),
        wasserstein_error(*samples, seed=seed),
        floors,
        n_eff(w[use_r]),
    )


def _distances_in_bins(
    rows: _Rows, t: int, edges: dict[str, tuple[float, ...]]
) -> dict[str, Any]:
    """KS and Wasserstein-1 distance in kinematic bins, with their floors."""
    shape = bin_shape(edges)
    n_bins = count_bins(edges)
    index = _bins(rows.dataset, rows.real, edges)
    floor_index = [_bins(rows.dataset, floor, edges) for floor in rows.floors]
    names = ("ks", "ks_error", "ks_floor", "wasserstein", "wasserstein_floor", "n_eff")
    table = {name: np.full(n_bins, np.nan) for name in names}
    for b in range(n_bins):
        inside = index == b
        w, real = rows.real.weights[inside], rows.real.targets[inside, t]
        generated = rows.generated[inside, t]
        table["n_eff"][b] = n_eff(w)
        if not _positive(w) or n_eff(w) < MIN_BIN_EFF:
            continue
        table["ks"][b] = weighted_ks(generated, real, w, w)
        table["ks_error"][b] = ks_error(generated, real, w, w)
        table["wasserstein"][b] = wasserstein(generated, real, w, w)
        floors = [
            (floor.targets[at == b, t], real, floor.weights[at == b], w)
            for floor, at in zip(rows.floors, floor_index, strict=True)
            if _positive(floor.weights[at == b])
        ]
        if floors:
            table["ks_floor"][b] = np.mean([weighted_ks(*f) for f in floors])
            table["wasserstein_floor"][b] = np.mean([wasserstein(*f) for f in floors])
    used = np.isfinite(table["ks"])
    with_floor = used & np.isfinite(table["ks_floor"])
    return {
        "edges": {name: list(e) for name, e in edges.items()},
        "shape": list(shape),
        "bins_left_out": int(np.count_nonzero(~used)),
        "ks_mean": _figure(
            float(np.mean(table["ks"][used])),
            float(np.sqrt(np.sum(table["ks_error"][used] ** 2)) / used.sum()),
            [float(np.mean(table["ks_floor"][with_floor]))] if with_floor.any() else [],
            float(np.sum(table["n_eff"][used])),
        )
        if used.any()
        else _missing(f"no bin has {MIN_BIN_EFF:g} effective rows"),
        **{name: values.reshape(shape).tolist() for name, values in table.items()},
    }


def _atom_figures(
    rows: _Rows, t: int, sentinels: tuple[float, ...]
) -> list[dict[str, Any]]:
    """Shares of the values that a finite part of the rows takes exactly."""
    values: set[float] = set()
    for sample in (rows.real.targets[:, t], rows.generated[:, t]):
        unique, counts = np.unique(sample, return_counts=True)
        often = counts >= max(MIN_ATOM_ROWS, MIN_ATOM_SHARE * len(sample))
        most = np.argsort(-counts[often], kind="stable")[:MAX_ATOMS]
        values.update(float(v) for v in unique[often][most])
    return [
        {
            "value": value,
            "sentinel": value in sentinels,
            **_share_figures(rows, partial(_equals, column=t, value=value)),
        }
        for value in sorted(values)
    ]


def _equals(y: FloatArray, *, column: int, value: float) -> BoolArray:
    """Rows in which a target has exactly this value."""
    return np.asarray(y[:, column] == value)


def _ties(y: FloatArray, *, pair: tuple[int, int], missing: Any) -> BoolArray:
    """Rows in which two targets are equal and measured."""
    first = y[:, pair[0]]
    return np.asarray((first == y[:, pair[1]]) & ~np.isin(first, missing))


def _tie_figures(rows: _Rows) -> dict[str, Any]:
    """Shares of rows in which two targets are equal and measured."""
    names = rows.dataset.sample.target_names
    sentinels = rows.dataset.sample.sentinels
    found: dict[str, Any] = {}
    for i, first in enumerate(names):
        for j in range(i + 1, len(names)):
            missing = sentinels.get(first, ()) + sentinels.get(names[j], ())

            tied = partial(_ties, pair=(i, j), missing=missing)
            share = max(tied(rows.real.targets).mean(), tied(rows.generated).mean())
            if share >= MIN_ATOM_SHARE:
                found[f"{first} == {names[j]}"] = _share_figures(rows, tied)
    return found


def _share_figures(
    rows: _Rows, select: Callable[[FloatArray], BoolArray]
) -> dict[str, Any]:
    """Share of selected rows, real and generated, and their difference."""
    record = _record(
        rows, ("",), {}, [select(y)[np.newaxis] for y in _both_targets(rows)]
    ).measured()
    shares = [
        floor.weights[select(floor.targets)].sum() / floor.weights.sum()
        for floor in rows.floors
    ]
    return _overall_figures(rows, record, 0, shares)


def _c2st_figure(rows: _Rows, *, seed: int, max_rows: int) -> dict[str, Any]:
    """The classifier test of all targets, and of the floor's rows."""
    n = len(rows.real.weights)
    if n < C2ST_MIN_ROWS:
        reason = f"{n} test rows; a C2ST needs {C2ST_MIN_ROWS}"
        warnings.warn(f"no C2ST: {reason}", PidganWarning, stacklevel=3)
        return _missing(reason)
    features = with_differences(rows.real.conditions, rows.real.targets)
    generated = with_differences(rows.real.conditions, rows.generated)
    w = rows.real.weights
    try:
        found = c2st(
            features, generated, w, w, seed=seed, max_rows=max_rows, paired=True
        )
    except DatasetError as error:
        warnings.warn(f"no C2ST: {error}", PidganWarning, stacklevel=3)
        return _missing(str(error))
    floor = None
    for part in rows.floors[:1]:
        if len(part.weights) >= C2ST_MIN_ROWS:
            x = with_differences(part.conditions, part.targets)
            floor = c2st(x, features, part.weights, w, seed=seed, max_rows=max_rows)
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


def _compare_cuts(
    rows: _Rows, cuts: Sequence[str]
) -> tuple[tuple[RealVsGenerated, ...], tuple[RealVsGenerated, ...], dict[str, Any]]:
    """Compare efficiencies against each condition and in bins of the first two."""
    sample = rows.dataset.sample
    binnings: list[dict[str, tuple[float, ...]]] = []
    for i, name in enumerate(sample.condition_names):
        edges = sample.binning.get(name)
        fallback = _quantile_edges(rows.real.conditions[:, i], DEFAULT_BINS)
        binnings.append({name: edges or fallback})
    plane = {name: e for binning in binnings[:2] for name, e in binning.items()}
    passes = [_accepts(rows, cuts, y) for y in _both_targets(rows)]
    floors = [_accepts(rows, cuts, floor.targets) for floor in rows.floors]
    *against, both = (
        _record(rows, cuts, edges, passes).measured() for edges in (*binnings, plane)
    )
    overall = _record(rows, cuts, {}, passes).measured()
    figures: dict[str, Any] = {}
    for i, cut in enumerate(cuts):
        shares = [
            floor.weights[accept[i]].sum() / floor.weights.sum()
            for floor, accept in zip(rows.floors, floors, strict=True)
        ]
        interval = overall.real.upper[i] - overall.real.lower[i]
        found = _overall_figures(rows, overall, i, shares)
        figures[cut] = {
            "overall": {"real": None, "real_error": float(interval) / 2, **found},
            "pull_rms": _pull_figure(rows, both, i, [a[i] for a in floors]),
            "against": {
                name: record.figures(i)
                for name, record in zip(sample.condition_names, against, strict=True)
            },
            "map": both.figures(i),
        }
    return tuple(against), (both,), figures


def _both_targets(rows: _Rows) -> tuple[FloatArray, FloatArray]:
    """Real and generated targets of the same rows."""
    return rows.real.targets, rows.generated


def _accepts(rows: _Rows, cuts: Sequence[str], targets: FloatArray) -> BoolArray:
    """Which rows pass cuts on targets, (n_cuts, n)."""
    sample = rows.dataset.sample
    columns = dict(zip(sample.target_names, targets.T, strict=True))
    parsed = [parse_cut(cut, names=sample.target_names) for cut in cuts]
    return np.array([cut.passes(columns, sample.sentinels) for cut in parsed])


def _record(
    rows: _Rows,
    cuts: Sequence[str],
    edges: dict[str, tuple[float, ...]],
    passes: Sequence[BoolArray],
) -> RealVsGenerated:
    """Efficiencies in bins, from which real and which generated rows pass."""
    sample = rows.dataset.sample
    return compare_outcomes(
        *passes,
        cuts=cuts,
        columns=_columns(rows.dataset, rows.real),
        weights=rows.real.weights,
        edges=edges,
        species=sample.species,
        units={v.name: v.package_unit for v in sample.conditions},
    )


def _overall_figures(
    rows: _Rows, record: RealVsGenerated, cut: int, floor_shares: Sequence[float]
) -> dict[str, Any]:
    """Efficiency of all rows, and its difference with the floor's."""
    real = float(record.real.efficiency[cut])
    return {
        "real": real,
        "generated": float(record.generated.efficiency[cut]),
        "difference": _figure(
            float(record.difference[cut]),
            float(record.difference_error[cut]),
            [abs(float(share - real)) for share in floor_shares],
            n_eff(rows.real.weights),
        ),
    }


def _pull_figure(
    rows: _Rows, record: RealVsGenerated, cut: int, floor_passes: Sequence[BoolArray]
) -> dict[str, Any]:
    """Rms of the pulls over bins, and that of the floor's rows."""
    pull = record.pull[cut][np.isfinite(record.pull[cut])]
    if len(pull) == 0:
        return _missing(f"no bin has {MIN_BIN_EFF:g} effective rows")
    n_bins = count_bins(record.binning)
    real = record.real
    half = (real.upper[cut] - real.lower[cut]) / 2
    floors = []
    for floor, passes in zip(rows.floors, floor_passes, strict=True):
        index = bin_index(_columns(rows.dataset, floor), record.binning)
        order = sort_rows(index, floor.weights, n_bins)
        other = table_of_shares(
            passes[np.newaxis, order.order], order, cuts=("",), edges=record.binning
        )
        use = other.n_eff >= MIN_BIN_EFF
        difference = np.where(use, other.efficiency[0], np.nan) - real.efficiency[cut]
        pulls = difference / np.hypot(half, (other.upper[0] - other.lower[0]) / 2)
        pulls = pulls[np.isfinite(pulls)]
        if len(pulls):
            floors.append(float(np.sqrt(np.mean(pulls**2))))
    rms = float(np.sqrt(np.mean(pull**2)))
    error = rms / math.sqrt(2 * len(pull))
    return {
        **_figure(rms, error, floors, n_eff(rows.real.weights)),
        "bins": len(pull),
        "bins_left_out": int(record.pull[cut].size - len(pull)),
    }


def _columns(dataset: Dataset, part: Part) -> dict[str, FloatArray]:
    """Conditions of a part by name."""
    return dict(zip(dataset.sample.condition_names, part.conditions.T, strict=True))


def _bins(dataset: Dataset, part: Part, edges: Mapping[str, Any]) -> IntArray:
    """Flat bin of each row of a part."""
    return bin_index(_columns(dataset, part), edges)


def _quantile_edges(values: FloatArray, n: int) -> tuple[float, ...]:
    """Edges of bins with equally many rows; fewer bins where values repeat."""
    edges = np.unique(np.quantile(values.astype(np.float64), np.linspace(0, 1, n + 1)))
    # A bin does not contain its upper edge; the largest value must be inside.
    last = float(np.nextafter(np.float32(edges[-1]), np.float32(np.inf)))
    inner = edges[:-1] if len(edges) > 1 else edges
    return (*map(float, inner), last)


def _median_cuts(rows: _Rows) -> tuple[str, ...]:
    """One cut per target at its median, for a sample without standard cuts."""
    found = []
    for variable in rows.dataset.sample.targets:
        values = rows.targets(variable.name)
        values = values[~np.isin(values, variable.sentinels)]
        if len(values):
            found.append(f"{variable.name} > {float(np.median(values)):.3g}")
    return tuple(found)


def _positive(w: FloatArray) -> bool:
    """Whether weights can be normalised."""
    return len(w) > 0 and float(w.sum()) > 0


def _figure(
    value: float, error: float, floors: Sequence[float], effective: float
) -> dict[str, Any]:
    """A figure with its error, its floor and the effective rows behind it."""
    spread = (
        np.std(floors, ddof=1) / math.sqrt(len(floors)) if len(floors) > 1 else None
    )
    return {
        "value": value,
        "error": error,
        "floor": float(np.mean(floors)) if floors else None,
        "floor_error": spread,
        "n_eff": effective,
    }


def _missing(reason: str) -> dict[str, Any]:
    """A figure that could not be measured."""
    names = ("value", "error", "floor", "floor_error", "n_eff")
    return {**dict.fromkeys(names), "reason": reason}


def _plain(value: Any) -> Any:
    """The value with None for what JSON does not know."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
