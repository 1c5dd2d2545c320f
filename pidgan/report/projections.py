"""Projections: distributions of targets and efficiencies, and how their pulls lie.

Each projection has its chi2, its largest pull and its largest run of pulls of one
sign, beside what a perfect generator shows, see `exchange`. A distortion that an
average hides, such as a pull rms near 1, is seen by at least one of the three.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pidgan.arrays import BoolArray, FloatArray, IntArray
from pidgan.efficiency.binning import bin_index, count_bins
from pidgan.efficiency.real_vs_generated import MIN_BIN_EFF, RealVsGenerated
from pidgan.report.exchange import Differences, exchange, largest_ks, projection
from pidgan.report.plots.bins import edges_of
from pidgan.report.plots.canvas import display_unit
from pidgan.report.plots.targets import few_values
from pidgan.report.report import Measured
from pidgan.report.track_cuts import CutComparison
from pidgan.report.track_figures import Edges, TrackRows
from pidgan.report.verdict import sigmas
from pidgan.sample.grids import find_grid
from pidgan.sample.variables import Variable
from pidgan.sample.weights import n_eff

Looked = tuple[str, Measured]

KS_BINS = 1000  # of equal population, in which the distances of exchanged rows are
KS_BINS_OF_PART = 200  # of each kinematic bin


def target_bins(variable: Variable, real: FloatArray, weights: FloatArray) -> Any:
    """Return the edges in which a target is drawn and compared, sentinels left out."""
    inside = ~np.isin(real, variable.sentinels)
    values = real[inside]
    if (kinds := few_values(values)) is not None:
        middles = (kinds[1:] + kinds[:-1]) / 2
        return np.array([-np.inf, *middles, np.inf])
    grid = find_grid(values, sentinels=variable.sentinels)
    return edges_of(values, weights[inside], grid=grid)


def target_projections(
    rows: TrackRows, kinematic: Edges, *, seed: int
) -> dict[str, dict[str, Any]]:
    """Return the projection of each target, with the pulls of its KS distances."""
    w, place = rows.real.weights, rows.bins(rows.real, kinematic)
    parts = [place == b for b in range(count_bins(kinematic))]
    used = [
        part for part in parts if w[part].sum() > 0 and n_eff(w[part]) >= MIN_BIN_EFF
    ]
    found = {}
    for t, variable in enumerate(rows.sample.targets):
        y, g = rows.real.targets[:, t], rows.generated.targets[:, t]
        edges = target_bins(variable, y, w)
        # The bins beyond both ends count too.
        whole = np.array([-np.inf, *edges[np.isfinite(edges)], np.inf])
        absent = variable.sentinels
        pairs = [
            _places(y, g, whole, absent, start=0),
            _places(y, g, _population(y, KS_BINS), (), start=len(whole) - 1),
        ]
        start = len(whole) - 1 + KS_BINS
        for part in used:
            own = _population(y[part], KS_BINS_OF_PART)
            pairs.append(_places(y, g, own, (), start=start, only=part))
            start += KS_BINS_OF_PART
        sums = exchange(w, pairs, start, seed=seed)
        cuts = np.cumsum([len(whole) - 1, KS_BINS])
        labels = _bin_texts(whole, few_values(y[~np.isin(y, absent)]))
        found[variable.name] = {
            "bins": len(whole) - 1,
            **(projection(sums.part(slice(0, cuts[0])), labels) or {}),
            "ks_pull": largest_ks(sums.part(slice(*cuts)), [w.sum()], (1, KS_BINS)),
            "ks_in_bins_pull": largest_ks(
                sums.part(slice(cuts[1], None)),
                [w[part].sum() for part in used],
                (len(used), KS_BINS_OF_PART),
            )
            if used
            else None,
        }
    return found


def cut_projections(
    rows: TrackRows, compared: CutComparison, *, seed: int
) -> dict[str, dict[str, Any]]:
    """Return the projections of each cut: against each condition, and of the plane."""
    columns, w = rows.columns(rows.real), rows.real.weights
    cuts = compared.plane.cuts
    records = [*compared.drawn, compared.plane]
    passing = [rows.passing(part, cuts) for part in (rows.real, rows.generated)]
    index = [bin_index(columns, record.binning) for record in records]
    sizes = [count_bins(record.binning) for record in records]
    starts = np.cumsum([0, *sizes])
    found: dict[str, dict[str, Any]] = {}
    for i, cut in enumerate(cuts):
        pairs = []
        for place, start in zip(index, starts, strict=False):
            real, made = (
                np.where(p[i] & (place >= 0), place + start, -1) for p in passing
            )
            pairs.append((real, made))
        sums = exchange(w, pairs, int(starts[-1]), seed=seed)
        found[cut] = {
            name: _of_record(record, i, sums.part(slice(start, start + size)))
            for name, record, start, size in zip(
                [*(next(iter(r.binning)) for r in compared.drawn), "map"],
                records,
                starts,
                sizes,
                strict=False,
            )
        }
        pull_rms = _rms_pull(compared.plane, i, sums.part(slice(starts[-2], None)))
        found[cut]["map"] = {**(found[cut]["map"] or {}), "pull_rms_pull": pull_rms}
    return found


def _of_record(
    record: RealVsGenerated, number: int, sums: Differences
) -> dict[str, Any] | None:
    """The projection of one cut in the bins of a record, with the errors of it."""
    error = record.difference_error[number].ravel() * record.real.sum_weights.ravel()
    names, texts = list(record.binning), []
    for edges, unit in zip(record.binning.values(), record.units, strict=True):
        scale, shown = display_unit(unit)
        after = "" if shown == "1" else f" {shown}"
        texts.append([f"{t}{after}" for t in _bin_texts(scale * np.array(edges))])
    labels = [
        ", ".join(f"{n} {text}" for n, text in zip(names, one, strict=True))
        for one in itertools.product(*texts)
    ]
    return projection(sums, labels, error=error, ordered=len(names) == 1)


def _rms_pull(record: RealVsGenerated, number: int, sums: Differences) -> float | None:
    """How far the rms of the pulls in the plane lies above that of exchanged rows."""
    error = record.difference_error[number].ravel() * record.real.sum_weights.ravel()
    use = np.isfinite(error) & (error > 0)
    if not use.any():
        return None
    rms, null = (
        np.sqrt(np.mean((values[..., use] / error[use]) ** 2, axis=-1))
        for values in (sums.value, sums.exchanged)
    )
    return sigmas(float(rms), null)


def projection_figures(found: Mapping[str, Any], what: str) -> list[Looked]:
    """Return the three figures of a projection, for the verdict."""
    if "chi2" not in found:
        return []
    n = found["ndf"]
    figures = [
        (f"chi2/ndf, {what}", found["chi2"] / n, "chi2"),
        (
            f"largest pull, {what}, at {found['largest_at']}",
            abs(found["largest_pull"]),
            "largest_pull",
        ),
    ]
    if "run_chi2" not in found:
        figures.pop(0)  # the rms of the pulls in two conditions says the same
    else:
        n_pulls = "1 pull" if found["run_bins"] == 1 else f"{found['run_bins']} pulls"
        label = f"run of {n_pulls}, {what}, {run_text(found)}"
        figures.append((label, found["run_chi2"], "run"))
    return [
        (
            label,
            {
                "value": value,
                "error": None,
                "floor": found[f"{name}_floor"] / (n if name == "chi2" else 1),
                "floor_error": found[f"{name}_spread"] / (n if name == "chi2" else 1),
                "pull": found[f"{name}_pull"],
                "n_eff": None,
            },
        )
        for label, value, name in figures
    ]


def run_text(found: Mapping[str, Any]) -> str:
    """Return the place of the largest run, and whether it is above or below."""
    first, last = found["run_from"], found["run_to"]
    between = first if first == last else f"{first} ... {last}"
    return f"{between} {'above' if found['run_sign'] > 0 else 'below'}"


def _places(
    real: FloatArray,
    generated: FloatArray,
    edges: FloatArray,
    absent: Sequence[float],
    *,
    start: int,
    only: BoolArray | None = None,
) -> tuple[IntArray, IntArray]:
    """Bins of real and generated values, counted from a start, negative without one."""
    found = []
    for values in (real, generated):
        place = np.searchsorted(edges, values, side="right") - 1
        place = np.clip(place, 0, len(edges) - 2) + start
        place[np.isin(values, list(absent))] = -1
        if only is not None:
            place[~only] = -1
        found.append(place)
    return found[0], found[1]


def _population(values: FloatArray, n_bins: int) -> FloatArray:
    """Edges of bins of about equal population, which ties can leave empty."""
    inner = np.quantile(values, np.linspace(0, 1, n_bins + 1)[1:-1])
    return np.array([-np.inf, *inner, np.inf])


def _bin_texts(edges: FloatArray, kinds: FloatArray | None = None) -> list[str]:
    """Text of each bin: its range, or the one value in it."""
    if kinds is not None:
        return [f"= {kind:g}" for kind in kinds]
    texts = []
    for low, high in itertools.pairwise(edges):
        if np.isinf(low):
            texts.append(f"< {high:.4g}")
        elif np.isinf(high):
            texts.append(f"> {low:.4g}")
        else:
            texts.append(f"{low:.4g} to {high:.4g}")
    return texts
