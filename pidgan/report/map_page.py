"""Reports of efficiency maps, and of working points: what they rest on, in figures."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pidgan.arrays import FloatArray, IntArray
from pidgan.bundle.card import Generator
from pidgan.bundle.reference import parse_cuts, reference_frame
from pidgan.efficiency.binning import bin_index
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.real_vs_generated import (
    MIN_BIN_EFF,
    ComparedRows,
    RealVsGenerated,
    compare_rows,
)
from pidgan.efficiency.working_point import CutScan, WorkingPoint
from pidgan.files.writing import refuse_existing
from pidgan.report.page import (
    HTML_NAME,
    Picture,
    Section,
    Table,
    render_page,
    write_files,
)
from pidgan.report.plots import (
    plot_breakdown,
    plot_corrected,
    plot_map,
    plot_roc,
    png,
)


@dataclass(frozen=True, kw_only=True)
class MapInput:
    """An efficiency map with the generator and the rows that it was made from."""

    map: EfficiencyMap
    generator: Generator
    reference: Any = None


def write_map_report(
    efficiency: MapInput,
    directory: str | Path,
    *,
    misid: Sequence[MapInput] = (),
    overwrite: bool = False,
) -> Path:
    """Write report.html of an efficiency map to a directory.

    Each cut has curves against every condition, real, generated and corrected, with
    the ratio to real; maps of the discrepancy and of its pull, as measured and as
    smoothed; and the parts of the uncertainty. Everything refers to the kinematics of
    the reference rows.

    Args:
        efficiency: the map of the signal species.
        directory: made for the purpose; it appears complete or not at all.
        misid: maps of other species with the same cuts, whose misID is shown too.
        overwrite: replace the report in a directory that exists.

    Returns:
        The path of report.html.

    Raises:
        PidganError: the directory exists and `overwrite` is not set.
    """
    refuse_existing(directory, overwrite=overwrite)
    views = [_view(one) for one in (efficiency, *misid)]
    own = views[0]
    sections = [_summary_section(views)]
    for cut in own.map.cuts:
        pictures = []
        for i, view in enumerate(views):
            if cut not in view.map.cuts:
                continue
            kind = f"{'Efficiency' if i == 0 else 'MisID'} of {view.map_species}"
            number = view.map.cuts.index(cut)
            pictures += [
                _curve_picture(view, number, name, kind) for name in view.edges
            ]
            pictures += _map_pictures(view, number, kind)
        sections.append(Section(title=cut, pictures=pictures))
    meta = own.map.metadata
    page = render_page(
        f"Systematic uncertainty: {meta['species']} ({meta['detector']})",
        sections,
        lead=(
            f"{meta['reference']['rows']} reference rows, effective "
            f"{meta['reference']['n_eff']:.0f}; bins in {', '.join(own.edges)}."
        ),
    )
    return write_files(directory, {HTML_NAME: page}, overwrite=overwrite) / HTML_NAME


def write_working_point_report(
    point: WorkingPoint, directory: str | Path, *, overwrite: bool = False
) -> Path:
    """Write report.html of a working point: its ROC curves and its scan.

    Args:
        point: from `working_point`.
        directory: as for `write_map_report`.
        overwrite: as for `write_map_report`.

    Returns:
        The path of report.html.
    """
    refuse_existing(directory, overwrite=overwrite)
    scan, (signal, *others) = point.scan, point.points
    rows = [
        [
            f"{'efficiency' if one is signal else 'misID'} of {one.species}",
            *(f"{100 * v:.3f} %" for v in (one.value, one.error, one.real)),
            *(f"{100 * v:.3f} %" for v in (one.real_error, one.generated)),
            "few rows" if one.few else "",
        ]
        for one in point.points
    ]
    head = ("", "corrected", "error", "real", "error", "generated", "")
    rocs = [
        Picture(
            png=png(_roc(scan, i, point)),
            caption=f"Efficiency of {signal.species} against misID of {other.species}, "
            "on a logarithmic axis; band: uncertainty of the corrected efficiency at a "
            "given misID. Not drawn where the misID is known to less than 50 %.",
        )
        for i, other in enumerate(others, start=1)
    ]
    curves = [
        Picture(
            png=png(_scan_figure(scan, i, kind)),
            caption=f"{kind} against the threshold x.",
        )
        for i, one in enumerate(point.points)
        for kind in [f"{'Efficiency' if i == 0 else 'MisID'} of {one.species}"]
    ]
    page = render_page(
        f"Working point: {point.cut}",
        [
            Section(
                title="Working point",
                text=(
                    f"Wanted: {point.wanted} {100 * point.target:g} %. The uncertainty "
                    f"of it moves the threshold by {point.threshold_error:.2g}. "
                    "Kinematics are those of each species' reference rows."
                ),
                tables=[Table(head=head, rows=rows)],
                pictures=rocs,
            ),
            Section(title="Scan", pictures=curves),
        ],
        lead=f"Found from {scan.cut} at {len(scan.thresholds)} thresholds.",
    )
    return write_files(directory, {HTML_NAME: page}, overwrite=overwrite) / HTML_NAME


@dataclass(frozen=True, kw_only=True)
class _View:
    """A map with the weights of its reference in the bins, and how to draw it."""

    map: EfficiencyMap
    generator: Generator
    weights: FloatArray
    rows: ComparedRows
    overall: RealVsGenerated

    @property
    def edges(self) -> dict[str, tuple[float, ...]]:
        return self.map.binning

    @property
    def map_species(self) -> str:
        return str(self.map.metadata["species"])

    def unit(self, condition: str) -> str:
        return next(
            v.unit for v in self.generator.card.conditions if v.name == condition
        )

    def closure(self, conditions: Sequence[str]) -> RealVsGenerated:
        return self.rows.in_bins({name: self.edges[name] for name in conditions})

    def mean(self, number: int, bins: IntArray) -> tuple[float, float]:
        """Corrected efficiency of some bins together, and its uncertainty."""
        total = self.weights[bins].sum()
        if total <= 0:
            return np.nan, np.nan
        f = self.weights[bins] / total
        variance = f @ self.map.covariance[number][np.ix_(bins, bins)] @ f
        for shift in self.map.variations.values():
            variance += (f @ shift[number, bins]) ** 2
        return float(f @ self.map.nominal[number, bins]), float(np.sqrt(variance))


def _view(given: MapInput) -> _View:
    frame = reference_frame(given.generator, given.reference)
    place = bin_index(frame, given.map.binning)
    w = frame["weight"].to_numpy(dtype=np.float64)
    inside, n_bins = place >= 0, len(given.map.n_eff)
    cuts = parse_cuts(given.generator.card, given.map.cuts)
    rows = compare_rows(given.generator, frame, cuts)
    return _View(
        map=given.map,
        generator=given.generator,
        weights=np.bincount(place[inside], w[inside], n_bins).astype(np.float64),
        rows=rows,
        overall=rows.in_bins({}),
    )


def _summary_section(views: Sequence[_View]) -> Section:
    """Overall efficiencies of each cut, and the parts of their uncertainty."""
    rows, pictures = [], []
    for i, view in enumerate(views):
        kind = "efficiency" if i == 0 else "misID"
        bins = np.arange(len(view.weights))
        f = view.weights / view.weights.sum()
        parts: dict[str, list[float]] = {"calibration": []}
        totals = []
        for number, cut in enumerate(view.map.cuts):
            value, error = view.mean(number, bins)
            real, made = view.overall.real, view.overall.generated
            rows.append(
                [
                    f"{kind} of {view.map_species}, {cut}",
                    *(f"{100 * v:.3f} %" for v in (value, error)),
                    f"{100 * real.efficiency[number]:.3f} %",
                    f"{100 * real.error[number]:.3f} %",
                    f"{100 * made.efficiency[number]:.3f} %",
                    f"{view.map.passing[number]:.0f} / {view.map.failing[number]:.0f}",
                    "few rows" if cut in view.map.flagged else "",
                ]
            )
            own = f @ view.map.covariance[number] @ f
            parts["calibration"].append(float(np.sqrt(own)))
            for name, shift in view.map.variations.items():
                parts.setdefault(name, []).append(float(f @ shift[number]))
            totals.append(error)
        parts["real rows alone"] = view.overall.real.error.tolist()
        pictures.append(
            Picture(
                png=png(
                    plot_breakdown(
                        view.map.cuts,
                        parts,
                        totals,
                        title=f"{kind} of {view.map_species}",
                    )
                ),
                caption=f"Parts of the uncertainty, {kind} of {view.map_species}. "
                "Real rows alone: the statistical uncertainty of the real efficiency, "
                "for comparison; it is no part of the total.",
            )
        )
    head = ("", "corrected", "error", "real", "error", "generated")
    return Section(
        title="Summary",
        text=(
            "Efficiencies for the kinematics of the reference rows. Corrected: "
            "generated + smoothed discrepancy. Its error holds the covariance of the "
            "discrepancy and all variations of the map; what an analysis ntuple adds "
            "is given by pidgan efficiency. Last: effective rows that pass and fail."
        ),
        tables=[Table(head=(*head, "pass / fail", ""), rows=rows)],
        pictures=pictures,
    )


def _curve_picture(view: _View, number: int, condition: str, kind: str) -> Picture:
    """Real, generated and corrected efficiency against one condition."""
    cut = view.map.cuts[number]
    table = view.closure([condition])
    places = _places(view.map)[condition]
    found = [
        view.mean(number, np.flatnonzero(places == i))
        for i in range(len(view.edges[condition]) - 1)
    ]
    corrected, error = np.array(found).T
    use = table.real.n_eff >= MIN_BIN_EFF
    figure = plot_corrected(
        view.edges[condition],
        np.where(use, table.real.efficiency[number], np.nan),
        np.where(
            use, np.stack([table.real.lower[number], table.real.upper[number]]), np.nan
        ),
        generated=np.where(use, table.generated.efficiency[number], np.nan),
        corrected=corrected,
        corrected_error=error,
        axis_name=condition,
        unit=view.unit(condition),
        cut=cut,
        label=kind,
    )
    return Picture(
        png=png(figure),
        caption=f"{kind} against {condition}, {cut}: real rows (points, intervals of "
        f"Wilson; not drawn below {MIN_BIN_EFF:.0f} effective rows), generated, and "
        "corrected with its uncertainty. Below: ratios to real, whose uncertainty is "
        "the grey band.",
    )


def _map_pictures(view: _View, number: int, kind: str) -> list[Picture]:
    """Difference and pull in two conditions, as measured and as smoothed."""
    cut, pictures = view.map.cuts[number], []
    for first, second in itertools.combinations(list(view.edges)[:3], 2):
        names, cells = (first, second), _cells(view, number, first, second)
        table = view.closure(names)
        use = table.real.n_eff >= MIN_BIN_EFF
        measured = (
            np.where(use, table.difference[number], np.nan),
            table.difference_error[number],
        )
        texts = (
            "as measured; hatched: fewer than "
            f"{MIN_BIN_EFF:.0f} effective rows. The pulls of a perfect generator have "
            "width 1",
            "as smoothed and used for the correction",
        )
        for (difference, error), text in zip((measured, cells), texts, strict=True):
            figure = plot_map(
                view.edges[first],
                view.edges[second],
                difference,
                error,
                names=names,
                units=(view.unit(first), view.unit(second)),
                cut=cut,
            )
            pictures.append(
                Picture(
                    png=png(figure),
                    caption=f"{kind}: generated minus real in {first} and {second}, "
                    f"{text}.",
                )
            )
    return pictures


def _cells(
    view: _View, number: int, first: str, second: str
) -> tuple[FloatArray, FloatArray]:
    """Smoothed generated minus real in two conditions, and its uncertainty."""
    places = _places(view.map)
    shape = tuple(len(view.edges[name]) - 1 for name in (first, second))
    difference, error = np.full(shape, np.nan), np.full(shape, np.nan)
    for i, j in np.ndindex(*shape):
        bins = np.flatnonzero((places[first] == i) & (places[second] == j))
        total = view.weights[bins].sum()
        if total > 0:
            f = view.weights[bins] / total
            difference[i, j] = -f @ view.map.discrepancy[number, bins]
            error[i, j] = view.mean(number, bins)[1]
    return difference, error


def _places(efficiency_map: EfficiencyMap) -> dict[str, IntArray]:
    """Bin number along each condition, of every bin of a map."""
    n_bins = len(efficiency_map.n_eff)
    places = np.unravel_index(np.arange(n_bins), efficiency_map.shape)
    return dict(zip(efficiency_map.binning, places, strict=True))


def _roc(scan: CutScan, i: int, point: WorkingPoint) -> Any:
    """ROC curve of the signal against species i."""
    kinds = ("real", "generated", "corrected")
    signal, other = point.points[0], point.points[i]
    return plot_roc(
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


def _scan_figure(scan: CutScan, i: int, kind: str) -> Any:
    """Efficiency of one species against the threshold."""
    real, error = scan.real[i], scan.real_error[i]
    return plot_corrected(
        scan.thresholds,
        real,
        np.stack([real - error, real + error]),
        generated=scan.generated[i],
        corrected=scan.corrected[i],
        corrected_error=scan.error[i],
        axis_name="threshold x",
        cut=scan.cut,
        label=kind,
        log=i > 0,
    )
