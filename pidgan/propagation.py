"""Efficiency of PID cuts on an analysis ntuple, with its uncertainty.

`pid_efficiency` takes ntuples with generated columns and an efficiency map. With
weights w, pass = 0 or 1, and b the bin of a row in the map,

    value = sum_i w_i v_i / sum_i w_i,             v_i = pass_i + d_b(i),
    stat^2 = sum_i w_i^2 (v_i - value)^2 / (sum_i w_i)^2,
    calibration^2 = f^T C f,                       f_b = sum_b w / sum w,
    binning = sum_b f_b (d'_b - d_b),

with d, C the discrepancy of the map and its covariance, and d' the discrepancy found in
coarser bins.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pidgan.cuts import Cut, parse_cut
from pidgan.discrepancy import SCALE_FLOOR, difference_scale
from pidgan.efficiency import bin_index
from pidgan.efficiency_map import EfficiencyMap
from pidgan.errors import MapError, PidganWarning, nearest
from pidgan.sample import UNIT_FACTORS
from pidgan.typing import BoolArray, FloatArray, IntArray

Outside = Literal["grow", "refuse"]

INVALID_STATUS = 2 | 4
"""Bits of the status column: a condition is missing; no bundle for the species."""


@dataclass(frozen=True, kw_only=True)
class PidEfficiency:
    """Efficiency of one cut on an analysis ntuple.

    Attributes:
        cut: the cut.
        value: efficiency, corrected unless asked otherwise; never clipped.
        stat: statistical uncertainty of the analysis ntuple.
        syst: systematic uncertainties by name: "calibration" and "binning"; "outside"
            if rows lie outside the map; "uncorrected" without the correction.
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
        species_from: branch with PDG ids; only rows of the map's species are used.
        weights: branch with weights.
        correction: whether to add the correction; without it, the full correction is
            an uncertainty, which over-covers.
        suffix: suffix of the generated columns.
        branches: branch by condition, where it is not the default one.
        units: unit of a condition in the file (`{"P": "GeV"}`), if not that of the map.
        outside: "refuse" raises where rows lie outside the map.
        chunk: rows read at a time; the result does not depend on it.

    Returns:
        A result per cut, and their covariance.

    Raises:
        MapError: the map does not hold a cut, or no row can be used.
        NtupleError: a file, tree or branch is missing.
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
        species_from=species_from,
        weights=weights,
        branches=dict(branches or {}),
        units=dict(units or {}),
    )
    place, passed, w, n_invalid = _read_rows(
        files, efficiency_map, parsed, request, chunk=chunk
    )
    if n_invalid:
        warnings.warn(
            f"{n_invalid} of {n_invalid + len(w)} rows have no generated targets for "
            f"{track} and are left out",
            PidganWarning,
            stacklevel=2,
        )
    result = combine_rows(
        efficiency_map,
        numbers,
        place=place,
        passed=passed,
        weights=w,
        correction=correction,
        outside=outside,
    )
    named = tuple(
        replace(one, cut=text, n_invalid=n_invalid)
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
    w = weights
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
    """Return sum_b w d_b (s_b / g_b (1 - g_b) - 1), with s_b the analysis' e_b (1 - e_b).

    The difference of e (1 - e) is unbiased for few rows; bins with fewer than two
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
    species_from: str | None
    weights: str | None
    branches: dict[str, str]
    units: dict[str, str]


def _read_rows(
    files: str | Path | Sequence[str | Path],
    efficiency_map: EfficiencyMap,
    cuts: Sequence[Cut],
    request: _Request,
    *,
    chunk: int,
) -> tuple[IntArray, BoolArray, FloatArray, int]:
    """Return bin, pass flags and weights of the usable rows, and how many are not."""
    from pidgan.ntuple import find_sources, iterate_columns, list_branches

    metadata = efficiency_map.metadata
    sentinels = {v["name"]: tuple(v["sentinels"]) for v in metadata["targets"]}
    needed = {name for cut in cuts for name in cut.names}
    targets = {
        v["name"]: f"{request.track}_{v['name']}{request.suffix}"
        for v in metadata["targets"]
        if v["name"] in needed
    }
    wanted = needed | set(efficiency_map.binning)
    conditions = [v for v in metadata["conditions"] if v["name"] in wanted]
    _check_request(request, metadata)
    parts: list[tuple[Any, Any, Any]] = []
    n_invalid = 0
    sources = find_sources([files] if isinstance(files, str | Path) else list(files))
    for source in sources:
        present = list_branches(source)
        found = {
            v["name"]: _find_branch(str(source), v, present, request)
            for v in conditions
        }
        status = f"{request.track}_pidgan_status{request.suffix}"
        extra = [name for name in (request.species_from, request.weights) if name]
        extra += [status] if status in present else []
        names = list(dict.fromkeys([*targets.values(), *found.values(), *extra]))
        for _, frame in iterate_columns(source, names, chunk=chunk):
            columns = {name: frame[branch] for name, branch in targets.items()}
            for v in conditions:
                values = frame[found[v["name"]]].to_numpy(dtype=np.float64)
                columns[v["name"]] = values * _factor(v, request)
            keep = np.ones(len(frame), dtype=np.bool_)
            if request.species_from:
                ids = np.abs(frame[request.species_from].to_numpy(dtype=np.float64))
                keep = ids == abs(metadata["pdgid"])
            valid = np.ones(len(frame), dtype=np.bool_)
            for name in (*targets, *found):
                valid &= ~np.isnan(np.asarray(columns[name], dtype=np.float64))
            if status in present:
                flags = frame[status].to_numpy(dtype=np.int64)
                valid &= (flags & INVALID_STATUS) == 0
            n_invalid += int(np.count_nonzero(keep & ~valid))
            keep &= valid
            w = frame[request.weights] if request.weights else np.ones(len(frame))
            parts.append(
                (
                    bin_index(columns, efficiency_map.binning)[keep],
                    np.array([cut.passes(columns, sentinels)[keep] for cut in cuts]),
                    np.asarray(w, dtype=np.float64)[keep],
                )
            )
    if not any(len(w) for _, _, w in parts):
        of = f" with |{request.species_from}| of {metadata['species']}"
        raise MapError(
            f"{', '.join(map(str, sources))}: no usable row for {request.track}"
            f"{of if request.species_from else ''} ({n_invalid} without targets)"
        )
    place = np.concatenate([part[0] for part in parts])
    passed = np.concatenate([part[1] for part in parts], axis=1)
    return place, passed, np.concatenate([part[2] for part in parts]), n_invalid


def _check_request(request: _Request, metadata: Mapping[str, Any]) -> None:
    """Refuse names of conditions and units that do not exist."""
    known = [v["name"] for v in metadata["conditions"]]
    for name in (*request.branches, *request.units):
        if name not in known:
            raise MapError(
                f"the efficiency map has no condition {name!r}"
                f"{nearest(name, known) or '; known: ' + ', '.join(known)}"
            )
    for name, unit in request.units.items():
        if unit not in UNIT_FACTORS:
            raise MapError(
                f"unit of {name} is {unit!r}, expected one of {', '.join(UNIT_FACTORS)}"
            )


def _find_branch(
    where: str,
    variable: Mapping[str, Any],
    present: Mapping[str, str],
    request: _Request,
) -> str:
    name = str(variable["name"])
    if name in request.branches:
        return request.branches[name]
    patterns = [*variable["patterns"], f"{{track}}_{name}", name]
    tried = [str(p).replace("{track}", request.track) for p in patterns]
    for branch in tried:
        if branch in present:
            return branch
    raise MapError(
        f"{where} has no branch for condition {name!r}: tried "
        f"{', '.join(dict.fromkeys(tried))}{nearest(tried[0], present)}; name it with "
        f"branches={{{name!r}: ...}}"
    )


def _factor(variable: Mapping[str, Any], request: _Request) -> float:
    unit = request.units.get(variable["name"])
    return 1.0 if unit is None else UNIT_FACTORS[unit]
