"""Reports of efficiency maps and of working points."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pidgan.arguments import checked
from pidgan.arrays import FloatArray, IntArray
from pidgan.bundle.reference import REPEATS, parse_cuts
from pidgan.efficiency import real_vs_generated
from pidgan.efficiency.among import reference_among
from pidgan.efficiency.binning import bin_index
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.map_averages import (
    average,
    averages,
    generated_text,
    measure_whole,
)
from pidgan.efficiency.real_vs_generated import MIN_BIN_EFF, RealVsGenerated
from pidgan.efficiency.systematics import STREAM
from pidgan.efficiency.variation_parts import parts_of_variations
from pidgan.efficiency.working_point import WorkingPoint
from pidgan.files.writing import refuse_existing
from pidgan.report.index_page import refresh_index
from pidgan.report.map_input import GivenInput, open_input
from pidgan.report.map_input import MapInput as MapInput
from pidgan.report.page import Picture, Section, Table, with_error, write_page
from pidgan.report.plots import Figure, efficiencies
from pidgan.report.verdict import chi2_pull, judge

CORRECTED = (
    "Here the floor of a difference is 0, and the figures are those of generated "
    "efficiencies before the correction. A discrepancy costs uncertainty; the error "
    "of the corrected efficiency holds it."
)


@checked
def write_map_report(
    nominal: GivenInput,
    directory: str | Path,
    *,
    misid: Sequence[GivenInput] = (),
    overwrite: bool = False,
) -> Path:
    """Write report.html of an efficiency map to a directory, and return its path.

    Each cut has curves against every condition, real, generated and corrected, with
    the ratio to real; maps of the discrepancy and of its pull, as measured and as
    smoothed; and the parts of the uncertainty. Everything refers to the kinematics of
    the reference rows.

    Args:
        nominal: Map of the signal species with its generator; or the path of the map,
            if its bundle lies beside it, or "demo-kaon".
        directory: Directory to write into; a new one appears complete or not at all.
        misid: Maps of other species with the same cuts, whose misID is shown too.
        overwrite: Whether the report in an existing directory is replaced.

    Raises:
        PidganError: The directory exists and `overwrite` is not set, or a map has no
            bundle beside it.
    """
    refuse_existing(directory, overwrite=overwrite)
    given = map(open_input, (nominal, *misid))
    views = [_view(one, misid=i > 0) for i, one in enumerate(given)]
    meta = views[0].map.metadata
    path = write_page(
        directory,
        f"Systematic uncertainty: {meta['species']} ({meta['detector']})",
        _map_sections(views),
        lead=(
            f"{meta['reference']['rows']} reference rows, "
            f"effectively {meta['reference']['n_eff']:.0f}, with a sum of weights of "
            f"{meta['reference']['sum_weights']:.1f}. "
            f"Bins in {', '.join(views[0].edges)}."
        ),
        verdict=judge(_looked(views), more=CORRECTED),
        overwrite=overwrite,
    )
    refresh_index(path)
    return path


@checked
def write_working_point_report(
    point: WorkingPoint, directory: str | Path, *, overwrite: bool = False
) -> Path:
    """Write report.html of a working point, with ROC curves, and return its path.

    Args:
        point: Working point, from `working_point`.
        directory: Directory to write into; a new one appears complete or not at all.
        overwrite: Whether the report in an existing directory is replaced.

    Raises:
        PidganError: The directory exists and `overwrite` is not set.
    """
    path = write_page(
        directory,
        f"Working point: {point.cut}",
        _working_point_sections(point),
        lead=f"Found from {point.scan.cut} at {len(point.scan.thresholds)} thresholds.",
        overwrite=overwrite,
    )
    refresh_index(path)
    return path


def _working_point_sections(point: WorkingPoint) -> Iterator[Section]:
    signal, *others = point.points
    kinds = ["efficiency", *["misID"] * len(others)]
    rows = [
        {
            "": f"{kind} of {one.species}",
            "corrected": with_error(one.value, one.error, unit="%"),
            "real": with_error(one.real, one.real_error, unit="%"),
            "generated": f"{one.generated:.3%}",
            "remark": "few rows" if one.few else "",
        }
        for kind, one in zip(kinds, point.points, strict=True)
    ]
    yield Section(
        title="Working point",
        text=(
            f"The wanted {point.wanted} is {100 * point.target:g} %. The uncertainty "
            f"of the {point.wanted} moves the threshold by "
            f"{point.threshold_error:.2g}. Every efficiency refers to the kinematics "
            "of the reference rows of its species."
        ),
        tables=[Table(rows)],
        pictures=[
            Picture(
                draw_roc(point, i),
                f"Efficiency of {signal.species} against the misID of "
                f"{other.species}, on a logarithmic axis. The band is the uncertainty "
                "of the corrected efficiency at a given misID. Thresholds whose misID "
                "is known to less than 50 % are not drawn.",
            )
            for i, other in enumerate(others, start=1)
        ],
    )
    scan, pictures = point.scan, []
    for i, (kind, one) in enumerate(zip(kinds, point.points, strict=True)):
        label = f"{kind[0].upper()}{kind[1:]} of {one.species}"
        real, error = scan.real[i], scan.real_error[i]
        figure = efficiencies.plot_corrected(
            scan.thresholds,
            (real, [real - error, real + error]),
            generated=scan.generated[i],
            corrected=(scan.corrected[i], scan.error[i]),
            axis_name="threshold x",
            cut=scan.cut,
            label=label,
            log=i > 0,
        )
        pictures.append(Picture(figure, f"{label} against the threshold x."))
    yield Section(title="Scan", pictures=pictures)


def draw_roc(point: WorkingPoint, i: int) -> Figure:
    """ROC curve of the signal against species i."""
    scan, kinds = point.scan, ("real", "generated", "corrected")
    signal, other = point.points[0], point.points[i]
    return efficiencies.plot_roc(
        {kind: getattr(scan, kind)[0] for kind in kinds},
        {kind: getattr(scan, kind)[i] for kind in kinds},
        errors={
            "real": (scan.real_error[0], scan.real_error[i]),
            "corrected": (scan.error[0], scan.error[i]),
        },
        species=(signal.species, other.species),
        cut=scan.cut,
        point=(other.value, signal.value, other.error, signal.error),
    )


@dataclass(frozen=True, kw_only=True)
class _View:
    """A map with the weights of its reference in the bins, and how to draw it."""

    map: EfficiencyMap
    kind: str
    units: dict[str, str]
    weights: FloatArray
    rows: real_vs_generated.ComparedRows
    overall: RealVsGenerated
    averages: dict[str, dict[str, float]]

    @property
    def edges(self) -> dict[str, tuple[float, ...]]:
        return self.map.binning

    def in_bins(self, *conditions: str) -> RealVsGenerated:
        """Real and generated efficiencies in bins of some conditions."""
        edges = {name: self.edges[name] for name in conditions}
        return self.rows.in_bins(edges).measured()

    def groups(self, *conditions: str) -> list[IntArray]:
        """Numbers of the bins of the map in each bin of some conditions."""
        numbers = np.arange(len(self.weights)).reshape(self.map.shape)
        axes = [list(self.edges).index(name) for name in conditions]
        moved = np.moveaxis(numbers, axes, range(len(axes)))
        return list(moved.reshape(np.prod(moved.shape[: len(axes)]), -1))

    def mean(self, number: int, bins: IntArray) -> tuple[float, float]:
        """Corrected efficiency of some bins together, and its uncertainty."""
        found = average(self.map, self.weights, bins)
        return float(found.corrected[number]), float(found.error[number])


def _view(given: MapInput, *, misid: bool = False) -> _View:
    card = given.generator.card
    frame, own = reference_among(
        given.generator, given.reference, given.map.where or None
    )
    edges, meta = given.map.binning, given.map.metadata
    # The same draws as those of the map: one number, wherever it is shown.
    compared = real_vs_generated.compare_rows(
        given.generator,
        frame,
        parse_cuts(card, given.map.cuts),
        seed=int(meta.get("seed", 1)),
        repeats=int(meta.get("repeats", REPEATS)),
        stream=STREAM,
        among=own.targets if own else None,
    )
    rows = compared.take(bin_index(compared.columns, edges) >= 0)
    whole = measure_whole(rows, edges)
    return _View(
        map=given.map,
        kind=f"{'MisID' if misid else 'Efficiency'} of {meta['species']}",
        units={v.name: v.unit for v in card.conditions},
        weights=np.array(whole["shares"]),
        rows=rows,
        overall=rows.in_bins({}),
        averages=averages(given.map, whole),
    )


def _map_sections(views: Sequence[_View]) -> Iterator[Section]:
    """Summary of all cuts, and one section for each cut, maps folded at its end."""
    yield _summary_section(views)
    for cut in views[0].map.cuts:
        curves, maps = [], []
        for view in views:
            if cut in view.map.cuts:
                number = view.map.cuts.index(cut)
                curves += [_curve_picture(view, number, name) for name in view.edges]
                maps += _map_pictures(view, number)
        parts = [Section(title=f"Maps of the discrepancy, {cut}", pictures=maps)]
        yield Section(title=cut, pictures=curves, parts=parts if maps else ())


def _looked(views: Sequence[_View]) -> list[tuple[str, float | None]]:
    """Label and pull of generated minus real: of all rows, and in bins of conditions.

    Bins have no rows in common, so that the sum of their squared pulls is a chi2.
    """
    found: list[tuple[str, float | None]] = []
    for view in views:
        for number, cut in enumerate(view.map.cuts):
            what = f"{view.kind}, {cut}"
            pull = abs(float(view.overall.pull[number]))
            found.append((f"generated - real, {what}", pull))
            for name in view.edges:
                pulls = view.in_bins(name).pull[number]
                pulls = pulls[np.isfinite(pulls)]
                label = f"chi2 of generated - real against {name}, {what}"
                found.append((label, chi2_pull(float(np.sum(pulls**2)), len(pulls))))
    return found


def _summary_section(views: Sequence[_View]) -> Section:
    """Overall efficiencies of each cut, and the parts of their uncertainty."""
    rows, pictures = [], []
    for view in views:
        real = view.overall.real
        names = ["calibration", *parts_of_variations(view.map.variations)]
        parts = {
            name: [own[f"error_{name}"] for own in view.averages.values()]
            for name in names
        }
        totals = [own["corrected_error"] for own in view.averages.values()]
        for cut, own in view.averages.items():
            rows.append(
                {
                    "": f"{view.kind}, {cut}",
                    "corrected": with_error(
                        own["corrected"], own["corrected_error"], unit="%"
                    ),
                    "real": with_error(own["real"], own["real_error"], unit="%"),
                    "generated": generated_text(own),
                    "sum of weights that pass": f"{own['passing']:.1f}",
                    "that fail": f"{own['failing']:.1f}",
                    "remark": _remark(view.map, cut),
                }
            )
        parts["real rows alone"] = real.error.tolist()
        caption = (
            f"{view.kind}: parts of the uncertainty. The part 'real rows alone' is the "
            "statistical uncertainty of the real efficiency, for comparison; it does "
            "not enter the total."
        )
        drawn = (view.map.cuts, parts, totals)
        figure = efficiencies.plot_breakdown(*drawn, title=view.kind)
        pictures.append(Picture(figure, caption))
    return Section(
        title="Summary",
        text=(
            "Efficiencies for the kinematics of the reference rows. The corrected "
            "efficiency is the generated one plus the smoothed discrepancy. Its error "
            "holds the covariance of the discrepancy and all variations of the map. "
            "The command 'pidgan systematics' prints the same numbers. "
            "An analysis ntuple has uncertainties of its own, which the command "
            "'pidgan efficiency' adds."
        ),
        tables=[Table(rows)],
        pictures=pictures,
    )


def _remark(given: EfficiencyMap, cut: str) -> str:
    """Say that few reference rows pass or fail."""
    if cut not in given.flagged:
        return ""
    number = given.cuts.index(cut)
    passing, failing = given.passing[number], given.failing[number]
    which = "pass" if passing < failing else "fail"
    return f"few rows: effectively {min(passing, failing):.1f} {which}"


def _curve_picture(view: _View, number: int, condition: str) -> Picture:
    """Real, generated and corrected efficiency against one condition."""
    cut, found = view.map.cuts[number], view.in_bins(condition)
    means = [view.mean(number, bins) for bins in view.groups(condition)]
    corrected, error = np.array(means).T
    real = found.real
    figure = efficiencies.plot_corrected(
        view.edges[condition],
        (real.efficiency[number], [real.lower[number], real.upper[number]]),
        generated=found.generated.efficiency[number],
        corrected=(corrected, error),
        axis_name=condition,
        unit=view.units[condition],
        cut=cut,
        label=view.kind,
    )
    text = (
        f"{view.kind} against {condition} for {cut}: real rows (points with "
        f"Wilson intervals; not drawn below {MIN_BIN_EFF:.0f} effective rows), "
        "generated rows, and the corrected efficiency with its uncertainty. Below: "
        "ratios to the real efficiency, whose uncertainty is the grey band."
    )
    if real.unphysical[number].any():
        text += (
            " A point above 1 or below 0 comes from negative weights; it is not "
            "clipped, and its interval is Wilson's with weighted sums."
        )
    return Picture(figure, text)


def _map_pictures(view: _View, number: int) -> list[Picture]:
    """Difference and pull in two conditions, as measured and as smoothed."""
    pictures = []
    for pair in itertools.combinations(list(view.edges)[:3], 2):
        found = view.in_bins(*pair)
        measured = found.difference[number], found.difference_error[number]
        both = " and ".join(pair)
        texts = (
            f"as measured. Bins with fewer than {MIN_BIN_EFF:.0f} effective rows are "
            "hatched. The pulls of a perfect generator have width 1.",
            "smoothed as for the correction.",
        )
        shown = (measured, _smoothed(view, number, *pair))
        for (difference, error), text in zip(shown, texts, strict=True):
            figure = efficiencies.plot_map(
                view.edges[pair[0]],
                view.edges[pair[1]],
                difference,
                error,
                names=pair,
                units=(view.units[pair[0]], view.units[pair[1]]),
                cut=view.map.cuts[number],
            )
            caption = f"{view.kind}: generated minus real in bins of {both}, "
            pictures.append(Picture(figure, caption + text))
    return pictures


def _smoothed(
    view: _View, number: int, first: str, second: str
) -> tuple[FloatArray, FloatArray]:
    """Smoothed generated minus real in two conditions, and its uncertainty."""
    shape = tuple(len(view.edges[name]) - 1 for name in (first, second))
    difference, error = np.full(shape, np.nan), np.full(shape, np.nan)
    for place, bins in enumerate(view.groups(first, second)):
        total = view.weights[bins].sum()
        if total > 0:
            f = view.weights[bins] / total
            # The map stores real minus generated.
            difference.flat[place] = -f @ view.map.discrepancy[number, bins]
            error.flat[place] = view.mean(number, bins)[1]
    return difference, error
