"""The report of generated showers: one HTML page with pictures, its JSON beside."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.calorimeter.geometry import Geometry, View
from pidgan.calorimeter.observables import depths, layer_edges
from pidgan.files.writing import refuse_existing
from pidgan.report.page import (
    HTML_NAME,
    JSON_NAME,
    Picture,
    Section,
    Table,
    render_page,
    write_files,
)
from pidgan.report.plots import (
    plot_curves,
    plot_matrix,
    plot_observables,
    plot_response,
    plot_shower,
    png,
)
from pidgan.report.shower_metrics import Response
from pidgan.report.shower_validation import ShowerReport
from pidgan.sample.species import species_name

MOST_LAYERS = 5  # of a view in a picture of cells
OBSERVABLES_A_FIGURE = 9
LINEARITY, RESOLUTION = 0.005, 0.2
"""Shaded in the ratios: half a per cent of the response, a fifth of the resolution."""

_LABELS = {
    "response": "$E_{vis}/E$",
    "x": "$\\langle x\\rangle$",
    "y": "$\\langle y\\rangle$",
    "r": "$\\langle r\\rangle$",
    "width_x": "$\\sigma_x$",
    "width_y": "$\\sigma_y$",
    "width_r": "$\\sigma_r$",
    "depth": "$\\langle z\\rangle$",
    "width_depth": "$\\sigma_z$",
    "skew_depth": "skewness of $z$",
    "peak": "share of the hottest cell",
    "sparsity": "share of empty cells",
}
_DEPTHS = ("depth", "width_depth")
_LENGTHS = ("x", "y", "r", "width_x", "width_y", "width_r", *_DEPTHS)


def write_shower_report(
    report: ShowerReport,
    directory: str | Path,
    *,
    title: str = "",
    speed: Sequence[Mapping[str, Any]] = (),
    overwrite: bool = False,
) -> Path:
    """Write report.html, with every figure inside, and report.json to a directory.

    Args:
        report: from `validate_showers`.
        directory: made for the purpose; it appears complete or not at all.
        title: of the page.
        speed: rows of the table of speed: names and values, such as {"generator":
            "gflash", "ms at batch 1": 0.2}; they go into the JSON too.
        overwrite: replace the two files in a directory that exists.

    Returns:
        The path of report.html.

    Raises:
        PidganError: the directory exists and `overwrite` is not set.
    """
    refuse_existing(directory, overwrite=overwrite)
    figures = report.figures | (
        {"speed": [dict(row) for row in speed]} if speed else {}
    )
    sections = [
        _summary(report),
        *([_speed(speed)] if speed else []),
        _response(report),
        _pictures(report),
        _profiles(report),
        _observables(report),
    ]
    page = render_page(
        title or f"Showers in {report.geometry.name}",
        sections,
        lead=(
            f"{figures['showers']} real showers that the generator was not fitted to, "
            f"and one generated for the conditions of each; "
            f"{report.geometry.n_cells} cells."
        ),
    )
    whole = ShowerReport(**(vars(report) | {"figures": figures}))
    files = {HTML_NAME: page, JSON_NAME: whole.to_json()}
    return write_files(directory, files, overwrite=overwrite) / HTML_NAME


def _summary(report: ShowerReport) -> Section:
    f = report.figures
    rows = []
    for level, name in (("high", "observables"), ("low", "cells / E")):
        if "c2st" in f:
            rows.append([f"AUC of a classifier on {name}", *_cells(f["c2st"][level])])
    rows.append(["mean separation power", *_cells(f["separation_mean"])])
    rows.append(["FPD x 1000", *_cells(f["fpd"], 1000)])
    rows.append(["KPD x 1000", *_cells(f["kpd"], 1000)])
    rows += [[name, *_cells(found)] for name, found in f["prdc"].items()]
    rows += [
        [f"rms difference of correlations of layers, {view}", *_cells(found)]
        for view, found in f["correlations"].items()
    ]
    response = [
        [
            _of_species(name),
            _number(100 * found["worst_linearity"]),
            _number(100 * found["worst_resolution"]),
            *(
                _fit_text(found[f"fit_{kind}"], found["unit"])
                for kind in ("real", "generated")
            ),
        ]
        for name, found in f["response"].items()
    ]
    return Section(
        title="Summary",
        text=(
            f"Floor: {f['floor']}, what a perfect generator would show. Distances are "
            "between the real showers of one half and those generated for the other. "
            "The AUC of a classifier is 0.5 if it cannot tell the two apart."
        ),
        tables=[
            Table(head=("figure", "value", "error", "floor"), rows=rows),
            Table(
                head=(
                    "showers",
                    "worst linearity [%]",
                    "worst resolution [%]",
                    "real sigma / E",
                    "generated sigma / E",
                ),
                rows=response,
                title="Response: largest differences of any bin of the energy",
            ),
        ],
    )


def _speed(speed: Sequence[Mapping[str, Any]]) -> Section:
    head = list(dict.fromkeys(name for row in speed for name in row))
    rows = [[_text(row.get(name, "-")) for name in head] for row in speed]
    return Section(title="Speed", tables=[Table(head=head, rows=rows)])


def _response(report: ShowerReport) -> Section:
    factor, unit = _incident_unit(report)
    pictures, tables = [], []
    for name, (real, generated) in report.response.items():
        x = real.energy * factor
        shown = _of_species(name)
        pictures.append(
            Picture(
                png=png(
                    plot_response(
                        x,
                        (real.mean, real.mean_error),
                        (generated.mean, generated.mean_error),
                        what="Mean $E_{vis}/E$",
                        unit=unit,
                        allowed=LINEARITY,
                    )
                ),
                caption=f"Linearity, {shown}; shaded: {LINEARITY:.1%} of the real one.",
            )
        )
        found = report.figures["response"][name]
        curves = {
            kind: _fit_curve(found[f"fit_{kind}"], response, factor)
            for kind, response in (("real", real), ("generated", generated))
        }
        pictures.append(
            Picture(
                png=png(
                    plot_response(
                        x,
                        (100 * real.resolution, 100 * real.resolution_error),
                        (100 * generated.resolution, 100 * generated.resolution_error),
                        what="Resolution $\\sigma/E$ [%]",
                        unit=unit,
                        curves=curves,
                        allowed=RESOLUTION,
                        zero=True,
                    )
                ),
                caption=(
                    f"Resolution, {shown}: half of the central 68.3 %, with fits of "
                    f"a/sqrt(E) + b/E + c in quadrature; shaded: {RESOLUTION:.0%}."
                ),
            )
        )
        rows = [
            [
                f"{e:.4g}",
                f"{n:.0f}",
                *(f"{100 * v:.3f}" for v in (a, b)),
                *(f"{v:.3f}" for v in (c, d)),
            ]
            for e, n, a, b, c, d in zip(
                x,
                found["showers"],
                found["linearity"],
                found["linearity_error"],
                found["resolution_ratio"],
                found["resolution_ratio_error"],
                strict=True,
            )
        ]
        head = (
            f"E [{unit}]",
            "showers",
            "linearity [%]",
            "error",
            "resolution gen. / real",
            "error",
        )
        tables.append(Table(head=head, rows=rows, title=shown))
    return Section(title="Linearity and resolution", tables=tables, pictures=pictures)


def _incident_unit(report: ShowerReport) -> tuple[float, str]:
    """Return factor and unit in which incident energies are shown."""
    if report.energy_unit == "MeV":
        return 1e-3, "GeV"
    return 1.0, report.energy_unit


def _of_species(name: str) -> str:
    """Return "e-" for "species 11"."""
    code = name.removeprefix("species ")
    if code == name or not code.lstrip("-").isdecimal():
        return name
    return species_name(int(code))


def _pictures(report: ShowerReport) -> Section:
    pictures = []
    factor, unit = _incident_unit(report)
    first = 0
    for view in report.geometry.views:
        part = slice(first, first + view.n_cells)
        first = part.stop
        if not view.has_plane:
            continue
        real, generated = (e[part] for e in report.average)
        layers = _shown_layers(view, real)
        outlines = [view.layers[i].outlines() for i in layers]
        titles = [_layer_title(view, i) for i in layers]
        rows = [
            ("real", _of_layers(view, real, layers)),
            ("generated", _of_layers(view, generated, layers)),
        ]
        figure = plot_shower(outlines, rows, titles=titles, unit=report.energy_unit)
        pictures.append(
            Picture(png=png(figure), caption=f"Average shower, {view.name}.")
        )
        singles = zip(*report.single, report.single_energy, strict=True)
        for y, g, energy in singles:
            rows = [
                ("real", _of_layers(view, y[part], layers)),
                ("generated", _of_layers(view, g[part], layers)),
            ]
            figure = plot_shower(outlines, rows, titles=titles, unit=report.energy_unit)
            caption = (
                f"Single shower, {view.name}, of {factor * energy:.3g} {unit}, "
                "and one generated for the same conditions."
            )
            pictures.append(Picture(png=png(figure), caption=caption))
    text = "Grey cells are empty." if pictures else "No view has cells in the plane."
    return Section(title="Pictures of showers", text=text, pictures=pictures)


def _profiles(report: ShowerReport) -> Section:
    names = {
        "profile": ("Depth", "Energy of a layer", False, False),
        "lateral": ("Distance to the centre", "Share of the energy", False, True),
        "spectrum": ("Energy of a cell", "Cells of a shower", True, True),
    }
    pictures = []
    for key, (real, generated) in report.curves.items():
        kind, _, view = key.partition("/")
        name, what, logx, logy = names[kind]
        unit = "mm"
        if kind == "spectrum":
            unit = report.energy_unit
        elif kind == "profile" and layer_edges(report.geometry.view(view)) is None:
            name, unit = "Layer", "1"
        if kind == "profile":
            what += f" [{report.energy_unit}]"
        figure = plot_curves(
            real.edges,
            (real.mean, real.error),
            (generated.mean, generated.error),
            name=name,
            unit=unit,
            what=what,
            logx=logx,
            logy=logy,
        )
        pictures.append(Picture(png=png(figure), caption=f"{what}, {view}."))
    for view_ in report.geometry.views:
        fractions = _fractions(report, view_)
        if fractions is not None:
            matrices = [np.nan_to_num(np.corrcoef(f, rowvar=False)) for f in fractions]
            figure = plot_matrix(
                matrices[0], matrices[1], what="correlation", name="layer"
            )
            caption = f"Correlations of the layers' shares of energy, {view_.name}."
            pictures.append(Picture(png=png(figure), caption=caption))
    return Section(title="Profiles, spectra and correlations", pictures=pictures)


def _observables(report: ShowerReport) -> Section:
    powers = report.figures["separation"]
    rows = [
        [name, *_cells(found), _number(found["floor_error"])]
        for name, found in powers.items()
    ]
    head = ("observable", "separation", "error", "floor", "floor's error")
    whole = [name for name in report.observables if "[" not in name]
    pictures = []
    for start in range(0, len(whole), OBSERVABLES_A_FIGURE):
        names = whole[start : start + OBSERVABLES_A_FIGURE]
        items = [
            (*_label(name, report.geometry), *report.observables[name])
            for name in names
        ]
        figure = plot_observables(items)
        pictures.append(Picture(png=png(figure), caption="; ".join(names) + "."))
    return Section(
        title="Observables",
        text="Separation power: 0 for equal histograms, 1 for disjoint ones.",
        pictures=pictures,
        tables=[Table(head=head, rows=rows)],
    )


def _fractions(report: ShowerReport, view: View) -> list[FloatArray] | None:
    """Real and generated shares (n, layers) of a view with layers."""
    prefix = f"{view.name}." if len(report.geometry.views) > 1 else ""
    names = [f"{prefix}fraction[{layer.name}]" for layer in view.layers]
    if not view.has_depth:
        return None
    columns = [report.observables[name] for name in names]
    result = [np.stack([c[i] for c in columns], axis=1) for i in (0, 1)]
    # Layers that are always empty have no correlation.
    some = (result[0].std(axis=0) > 0) & (result[1].std(axis=0) > 0)
    return [shares[:, some] for shares in result]


def _shown_layers(view: View, average: FloatArray) -> list[int]:
    """Numbers of layers with several cells, spread over the energy."""
    starts = np.cumsum([0, *(layer.n_cells for layer in view.layers[:-1])])
    energies = np.add.reduceat(average, starts)
    several = [i for i, layer in enumerate(view.layers) if layer.n_cells > 1]
    if len(several) <= MOST_LAYERS:
        return several
    cumulated = np.cumsum(energies[several]) / energies[several].sum()
    levels = np.linspace(0.02, 0.98, MOST_LAYERS)
    return [several[i] for i in dict.fromkeys(np.searchsorted(cumulated, levels))]


def _of_layers(
    view: View, cells: FloatArray, layers: Sequence[int]
) -> list[FloatArray]:
    starts = np.cumsum([0, *(layer.n_cells for layer in view.layers)])
    return [cells[starts[i] : starts[i + 1]] for i in layers]


def _layer_title(view: View, i: int) -> str:
    if not view.has_depth:
        return ""
    title = f"layer {view.layers[i].name}"
    return f"{title}, {depths(view)[i]:.4g} mm" if _has_positions(view) else title


def _has_positions(view: View) -> bool:
    return all(np.isfinite(layer.middle) for layer in view.layers)


def _label(name: str, geometry: Geometry) -> tuple[str, str]:
    """Text and unit of an observable."""
    view, _, short = name.rpartition(".")
    text = _LABELS.get(short, short.replace("_", " "))
    unit = "mm" if short in _LENGTHS else "1"
    of = geometry.view(view) if view else geometry.views[0]
    if short in _DEPTHS and not _has_positions(of):
        unit = "layers"
    return (f"{text}, {view}" if view else text), unit


def _fit_curve(
    fit: Mapping[str, float], response: Response, factor: float
) -> tuple[FloatArray, FloatArray]:
    e = np.geomspace(np.nanmin(response.energy), np.nanmax(response.energy), 100)
    squares = (
        fit["stochastic"] ** 2 / e + fit["noise"] ** 2 / e**2 + fit["constant"] ** 2
    )
    return e * factor, 100 * np.sqrt(squares)


def _fit_text(fit: Mapping[str, float], unit: str) -> str:
    """The fit for energies in GeV, in per cent."""
    scale = 1e-3 if unit == "MeV" else 1.0
    a = 100 * fit["stochastic"] * np.sqrt(scale)
    b, c = 100 * fit["noise"] * scale, 100 * fit["constant"]
    quality = f"chi2 {fit['chi2']:.1f}/{fit['n_dof']}"
    return f"{a:.2f} %/sqrt(E) + {b:.2f} %/E + {c:.3f} % ({quality})"


def _cells(figure: Mapping[str, float], factor: float = 1.0) -> list[str]:
    return [_number(factor * figure[key]) for key in ("value", "error", "floor")]


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _number(value: float) -> str:
    if not np.isfinite(value):
        return "-"
    return f"{value:.2e}" if 0 < abs(value) < 1e-4 else f"{value:.4f}"
