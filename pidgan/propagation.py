"""Efficiency of PID cuts on an analysis ntuple, with its uncertainty.

`pid_efficiency` takes ntuples with generated columns and an efficiency map. With
weights w, pass = 0 or 1, and b the bin of a row in the map,

    value = sum_i w_i v_i / sum_i w_i,             v_i = pass_i + d_b(i),
    stat^2 = sum_i w_i^2 (v_i - value)^2 / (sum_i w_i)^2,
    calibration^2 = f^T C f,                       f_b = sum_b w / sum w,
    binning = sum_b f_b (d'_b - d_b),
    transfer = sum_b f_b d_b (e_b (1 - e_b) / g_b (1 - g_b) - 1),

with d, C the discrepancy of the map and its covariance, d' the discrepancy found in
coarser bins, and g_b, e_b the generated efficiency in a bin for the rows of the map and
for those of the analysis. The transfer is how much the correction would change if the
error of the generator in a bin were a constant shift of the logit of the efficiency:
it matters where the analysis fills a wide bin differently.
"""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from pidgan.card import CardVariable
from pidgan.cuts import Cut, parse_cut
from pidgan.discrepancy import SCALE_FLOOR, difference_scale
from pidgan.efficiency import bin_index
from pidgan.efficiency_map import EfficiencyMap
from pidgan.errors import MapError, PidganWarning
from pidgan.mapping import (
    UNIT_CHECK_ENTRIES,
    Overrides,
    check_numbers,
    check_overrides,
    check_units,
    find_conditions,
)
from pidgan.nesting import common_shape, lay_out
from pidgan.quantile_map import QuantileMap, open_maps
from pidgan.typing import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from pidgan.ntuple import Source

Outside = Literal["grow", "refuse"]

INVALID_STATUS = 2 | 4 | 16
"""Bits of the status column: a condition is missing; no bundle for the species; the
selection of `apply` fails."""


@dataclass(frozen=True, kw_only=True)
class PidEfficiency:
    """Efficiency of one cut on an analysis ntuple.

    Attributes:
        cut: the cut.
        value: efficiency, corrected unless asked otherwise; never clipped.
        stat: statistical uncertainty of the analysis ntuple.
        syst: systematic uncertainties by name: "calibration", "binning", "transfer";
            "outside" if rows lie outside the map; "uncorrected" without the correction.
        total: all of them in quadrature.
        generated: efficiency of the generated targets.
        correction: what the map adds to it, whether or not it was added.
        n_rows: rows used.
        n_eff: their effective number, (sum w)^2 / sum w^2.
        outside_fraction: share of the sum of weights outside the map.
        n_invalid: rows left out, without targets.
        few_events: whether the reference has few rows on one side of the cut.
    """

    cut: str
    value: float
    stat: float
    syst: dict[str, float]
    total: float
    generated: float
    correction: float
    n_rows: int
    n_eff: float
    outside_fraction: float
    n_invalid: int
    few_events: bool


@dataclass(frozen=True, kw_only=True)
class PidEfficiencies:
    """Efficiencies of several cuts on the same rows.

    Attributes:
        results: one per cut.
        covariance: (n_cuts, n_cuts), of the values; the diagonal is total^2.
    """

    results: tuple[PidEfficiency, ...]
    covariance: FloatArray

    def __iter__(self) -> Iterator[PidEfficiency]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, number: int) -> PidEfficiency:
        return self.results[number]

    def to_json(self) -> str:
        """Return everything as JSON."""
        content = {
            "results": [asdict(result) for result in self.results],
            "covariance": self.covariance.tolist(),
        }
        return json.dumps(content, indent=2, allow_nan=False)

    def text(self) -> str:
        """Return a table: value and uncertainties in per cent."""
        names = list(dict.fromkeys(name for r in self.results for name in r.syst))
        width = max(len("cut"), *(len(r.cut) for r in self.results))
        head = ["value", "stat", *names, "total", "generated"]
        lines = [f"{'cut':{width}}" + "".join(f"{name:>13}" for name in head)]
        for r in self.results:
            numbers = [r.value, r.stat, *(r.syst.get(name, 0.0) for name in names)]
            numbers += [r.total, r.generated]
            cells = "".join(f"{100 * number:12.3f}%" for number in numbers)
            lines.append(f"{r.cut:{width}}{cells}")
        one = self.results[0]
        lines.append(
            f"{one.n_rows} rows, effectively {one.n_eff:.0f}; without targets, left "
            f"out: {one.n_invalid}; outside the map: {100 * one.outside_fraction:.2f} %"
        )
        few = [r.cut for r in self.results if r.few_events]
        if few:
            lines.append(f"few reference rows on one side of: {', '.join(few)}")
        return "\n".join(lines)


def pid_efficiency(
    files: str | Path | Sequence[str | Path],
    *,
    track: str,
    cuts: str | Sequence[str],
    map: EfficiencyMap | str | Path,
    species_from: str | None = None,
    weights: str | None = None,
    correction: bool = True,
    suffix: str = "",
    branches: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    scale: Mapping[str, float] | None = None,
    quantile_map: Mapping[str, str | Path | QuantileMap] | None = None,
    outside: Outside = "grow",
    chunk: int = 200_000,
) -> PidEfficiencies:
    """Return the efficiency of PID cuts on ntuples with generated columns.

    Rows whose targets are missing are left out and counted. Rows outside the map keep
    their generated outcome; nothing is known of the error there, so that their
    efficiency e may lie anywhere in [0, 1]: the share of such rows times
    max(e, 1 - e) / sqrt 3 is added.

    Args:
        files: files, `FILE:TREE` or patterns.
        track: prefix of the track; the columns are `{track}_{target}{suffix}`.
        cuts: cuts on target names, which the map holds.
        map: the efficiency map, or its JSON file.
        species_from: NAME of the branch `{track}_NAME` with PDG ids; only rows of the
            map's species, particle or antiparticle, are used.
        weights: branch with weights.
        correction: whether to add the correction; without it, the full correction is
            an uncertainty, which over-covers.
        suffix: suffix of the generated columns.
        branches: branch by condition, where it is not the default one; as for `apply`.
        units: unit of a condition in the file (`{"P": "GeV"}`); as for `apply`.
        scale: factor of a condition; the one that `apply` was given.
        quantile_map: map of a condition; the one that `apply` was given.
        outside: "refuse" raises where rows lie outside the map.
        chunk: rows read at a time; the result does not depend on it.

    Returns:
        A result per cut, and their covariance.

    Raises:
        MapError: the map does not hold a cut, or no row can be used.
        NtupleError: a file, tree or branch is missing, or a unit is wrong.
    """
    efficiency_map = map if isinstance(map, EfficiencyMap) else EfficiencyMap.open(map)
    texts = [cuts] if isinstance(cuts, str) else list(cuts)
    if not texts:
        raise ValueError("no cut given")
    numbers = [efficiency_map.cut_index(text) for text in texts]
    parsed = [parse_cut(text, names=efficiency_map.names) for text in texts]
    request = _Request(
        track=track,
        suffix=suffix,
        species=f"{track}_{species_from}" if species_from else None,
        weights=weights,
        overrides=Overrides(
            branches=branches or {},
            units=units or {},
            scales=scale or {},
            quantile_maps=open_maps(quantile_map or {}),
        ),
        chunk=chunk,
    )
    rows = _read_rows(files, efficiency_map, parsed, request)
    if rows.n_invalid:
        warnings.warn(
            f"{rows.n_invalid} of {rows.n_invalid + len(rows.weights)} rows have no "
            f"generated targets for {track} and are left out",
            PidganWarning,
            stacklevel=2,
        )
    result = combine_rows(
        efficiency_map,
        numbers,
        place=rows.place,
        passed=rows.passed,
        weights=rows.weights,
        correction=correction,
        outside=outside,
    )
    named = tuple(
        replace(one, cut=text, n_invalid=rows.n_invalid)
        for one, text in zip(result, texts, strict=True)
    )
    return PidEfficiencies(results=named, covariance=result.covariance)


def combine_rows(
    efficiency_map: EfficiencyMap,
    numbers: Sequence[int],
    *,
    place: IntArray,
    passed: BoolArray,
    weights: FloatArray,
    correction: bool = True,
    outside: Outside = "grow",
) -> PidEfficiencies:
    """Return the efficiencies from arrays; `pid_efficiency` reads them from files.

    Args:
        efficiency_map: the map.
        numbers: which cuts of the map.
        place: (n,), bin of each row in the map, -1 outside.
        passed: (n_cuts, n), which rows pass the cuts.
        weights: (n,), of any sign.
        correction: as for `pid_efficiency`.
        outside: as for `pid_efficiency`.
    """
    if outside not in ("grow", "refuse"):
        raise ValueError(f"outside is {outside!r}, expected 'grow' or 'refuse'")
    w = np.asarray(weights, dtype=np.float64)
    total = float(w.sum())
    if len(w) == 0 or not np.isfinite(total) or total <= 0:
        raise MapError(
            f"{len(w)} rows with a sum of weights of {total:.6g}, expected a positive "
            "sum"
        )
    chosen = np.asarray(numbers)
    inside = place >= 0
    fractions = np.bincount(place[inside], w[inside], len(efficiency_map.n_eff)) / total
    n_outside = int(np.count_nonzero(~inside))
    if n_outside:
        _report_outside(efficiency_map, n_outside, len(w), outside)

    shift = np.zeros((len(chosen), len(w)))
    shift[:, inside] = efficiency_map.discrepancy[chosen][:, place[inside]]
    generated = passed @ w / total
    corrections = efficiency_map.discrepancy[chosen] @ fractions
    values = generated + corrections if correction else generated
    stat = _statistical_covariance(passed + shift if correction else passed + 0.0, w)
    shifts = {
        name: variation[chosen] @ fractions
        for name, variation in efficiency_map.variations.items()
    }
    shifts["transfer"] = np.array(
        [
            _transfer(efficiency_map, number, place[inside], flags[inside], w[inside])
            / total
            for number, flags in zip(chosen, passed, strict=True)
        ]
    )
    share_outside = abs(float(w[~inside].sum())) / total
    if n_outside:
        e = np.array([_share(p[~inside], w[~inside]) for p in passed])
        shifts["outside"] = share_outside * np.maximum(e, 1 - e) / np.sqrt(3)
    if not correction:
        shifts["uncorrected"] = corrections
    calibration = efficiency_map.propagate(fractions)[np.ix_(chosen, chosen)]
    covariance = stat + calibration
    for values_of_shift in shifts.values():
        covariance = covariance + np.outer(values_of_shift, values_of_shift)

    n_eff = total**2 / float((w**2).sum())
    flagged = efficiency_map.flagged
    results = tuple(
        PidEfficiency(
            cut=efficiency_map.cuts[number],
            value=float(values[i]),
            stat=float(np.sqrt(stat[i, i])),
            syst={"calibration": float(np.sqrt(calibration[i, i]))}
            | {name: float(abs(shift_of[i])) for name, shift_of in shifts.items()},
            total=float(np.sqrt(covariance[i, i])),
            generated=float(generated[i]),
            correction=float(corrections[i]),
            n_rows=len(w),
            n_eff=n_eff,
            outside_fraction=share_outside,
            n_invalid=0,
            few_events=efficiency_map.cuts[number] in flagged,
        )
        for i, number in enumerate(chosen)
    )
    return PidEfficiencies(results=results, covariance=covariance)


def _transfer(
    efficiency_map: EfficiencyMap,
    number: int,
    place: IntArray,
    passed: BoolArray,
    w: FloatArray,
) -> float:
    """Return sum_b w d_b (e_b (1 - e_b) / g_b (1 - g_b) - 1), e_b of the analysis.

    The estimate of e (1 - e) is unbiased for few rows; bins with fewer than two
    effective rows do not tell, and are left out.
    """
    n_bins = len(efficiency_map.n_eff)
    total, total2 = np.bincount(place, w, n_bins), np.bincount(place, w**2, n_bins)
    with np.errstate(divide="ignore", invalid="ignore"):
        n_eff = total**2 / total2
        e = np.clip(np.bincount(place, w * passed, n_bins) / total, 0, 1)
    use = (total > 0) & (n_eff >= 2)
    own = e[use] * (1 - e[use]) * n_eff[use] / (n_eff[use] - 1)
    scale = difference_scale(efficiency_map.generated[number][use])
    ratio = np.maximum(4 * own, SCALE_FLOOR) / scale
    d = efficiency_map.discrepancy[number][use]
    return float(total[use] @ (d * (ratio - 1)))


def _statistical_covariance(values: FloatArray, w: FloatArray) -> FloatArray:
    """Covariance of weighted means, never below that of half a row on either side."""
    total = w.sum()
    means = values @ w / total
    scaled = (values - means[:, np.newaxis]) * (w / total)
    covariance = scaled @ scaled.T
    n_eff = total**2 / (w**2).sum()
    p = 0.5 / (n_eff + 1)
    floor = p * (1 - p) / n_eff
    lift = np.maximum(floor - np.diag(covariance), 0.0)
    return np.asarray(covariance + np.diag(lift))


def _share(passed: BoolArray, w: FloatArray) -> float:
    """Weighted share, or one half where the weights do not allow it."""
    total = float(w.sum())
    return float(np.clip(passed @ w / total, 0, 1)) if total > 0 else 0.5


def _report_outside(
    efficiency_map: EfficiencyMap, n_outside: int, n: int, outside: Outside
) -> None:
    limits = ", ".join(
        f"{name} {edges[0]:g} to {edges[-1]:g}"
        for name, edges in efficiency_map.binning.items()
    )
    message = f"{n_outside} of {n} rows lie outside the efficiency map ({limits})"
    if outside == "refuse":
        raise MapError(message)
    warnings.warn(
        f"{message}; they are not corrected, and the uncertainty grows",
        PidganWarning,
        stacklevel=4,
    )


@dataclass(frozen=True, kw_only=True)
class _Request:
    track: str
    suffix: str
    species: str | None
    weights: str | None
    overrides: Overrides
    chunk: int

    @property
    def status(self) -> str:
        return f"{self.track}_pidgan_status{self.suffix}"


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Bin (n,), pass flags (n_cuts, n) and weights (n,) of the rows that are used."""

    place: IntArray
    passed: BoolArray
    weights: FloatArray
    n_invalid: int


def _read_rows(
    files: str | Path | Sequence[str | Path],
    efficiency_map: EfficiencyMap,
    cuts: Sequence[Cut],
    request: _Request,
) -> _Rows:
    """Read every file."""
    from pidgan.ntuple import find_sources

    metadata = efficiency_map.metadata
    names = {v["name"] for v in metadata["conditions"]}
    check_overrides(request.overrides, {request.track: names})
    sources = find_sources([files] if isinstance(files, str | Path) else list(files))
    parts = [
        part
        for source in sources
        for part in _read_source(source, efficiency_map, cuts, request)
    ]
    n_invalid = sum(part.n_invalid for part in parts)
    if not any(len(part.weights) for part in parts):
        which = f" with {request.species} = {metadata['species']}"
        raise MapError(
            f"{', '.join(map(str, sources))}: no usable row for {request.track}"
            f"{which if request.species else ''} ({n_invalid} without targets)"
        )
    return _Rows(
        place=np.concatenate([part.place for part in parts]),
        passed=np.concatenate([part.passed for part in parts], axis=1),
        weights=np.concatenate([part.weights for part in parts]),
        n_invalid=n_invalid,
    )


def _read_source(
    source: "Source",
    efficiency_map: EfficiencyMap,
    cuts: Sequence[Cut],
    request: _Request,
) -> Iterator[_Rows]:
    """Read one tree in chunks."""
    from pidgan.ntuple import describe_tree, iterate_entries

    metadata, tree = efficiency_map.metadata, describe_tree(source)
    needed = {name for cut in cuts for name in cut.names}
    targets = {
        v["name"]: f"{request.track}_{v['name']}{request.suffix}"
        for v in metadata["targets"]
        if v["name"] in needed
    }
    wanted = needed | set(efficiency_map.binning)
    conditions = find_conditions(
        [
            CardVariable.model_validate(v)
            for v in metadata["conditions"]
            if v["name"] in wanted
        ],
        request.track,
        source,
        tree.branches,
        overrides=request.overrides,
    )
    status = [request.status] if request.status in tree.branches else []
    extra = [name for name in (request.species, request.weights) if name]
    inputs = [name for condition in conditions for name in condition.inputs]
    branches = list(dict.fromkeys([*targets.values(), *inputs, *extra, *status]))
    check_numbers(branches, tree, source, request.track)
    where = f"{source}, {request.track}"
    own = [*targets.values(), *inputs, *status]
    types = {name: tree.types[name] for name in branches}
    shape = common_shape(types, own=own, where=where)
    is_first = True
    for arrays in iterate_entries(source, branches, chunk=request.chunk):
        rows, _ = lay_out(arrays, branches, shape, where=where)
        if is_first:
            head = {name: v[:UNIT_CHECK_ENTRIES] for name, v in rows.items()}
            check_units(conditions, head, source, request.track)
        is_first = False
        columns = {name: rows[branch] for name, branch in targets.items()}
        columns |= {c.variable.name: c.evaluate(rows) for c in conditions}
        keep, n_invalid = _usable(rows, columns, status, request, metadata)
        w = rows[request.weights] if request.weights else np.ones(len(keep))
        yield _Rows(
            place=bin_index(columns, efficiency_map.binning)[keep],
            passed=np.array([c.passes(columns, _sentinels(metadata)) for c in cuts])[
                :, keep
            ],
            weights=np.asarray(w, dtype=np.float64)[keep],
            n_invalid=n_invalid,
        )


def _usable(
    rows: Mapping[str, npt.NDArray[Any]],
    columns: Mapping[str, npt.NDArray[Any]],
    status: Sequence[str],
    request: _Request,
    metadata: Mapping[str, Any],
) -> tuple[BoolArray, int]:
    """Return which rows to use, and how many of the species have no targets."""
    n = len(next(iter(rows.values())))
    chosen = np.ones(n, dtype=np.bool_)
    if request.species:
        ids = rows[request.species].astype(np.float64)
        chosen = np.abs(ids) == abs(metadata["pdgid"])
    valid = np.ones(n, dtype=np.bool_)
    for values in columns.values():
        valid &= ~np.isnan(np.asarray(values, dtype=np.float64))
    for name in status:
        valid &= (rows[name].astype(np.int64) & INVALID_STATUS) == 0
    return chosen & valid, int(np.count_nonzero(chosen & ~valid))


def _sentinels(metadata: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    return {v["name"]: tuple(v["sentinels"]) for v in metadata["targets"]}
