"""The report of generated showers: main figures, and sections of the page."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.calorimeter.geometry import Geometry, View
from pidgan.calorimeter.observables import depths, layer_edges
from pidgan.report import report
from pidgan.report.page import Picture, Section, Table
from pidgan.report.plots import showers
from pidgan.report.plots.canvas import display_unit
from pidgan.report.shower_data import ShowerData
from pidgan.report.shower_response_page import (
    bin_pulls,
    response_section,
    response_table,
    worst_lines,
)
from pidgan.report.verdict import flagged

MOST_LAYERS = 5  # of a view in a picture of cells
OBSERVABLES_A_FIGURE = 9
FLAGS = 6  # figures that a flag names

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


def shower_report(figures: dict[str, Any], data: ShowerData) -> report.Report:
    """Return the report of figures of showers."""
    main = _main_figures(figures)
    further = [
        *((f"separation of {name}", f) for name, f in figures["separation"].items()),
        *bin_pulls(figures),
    ]
    pulls = [(label, report.pull_of(figure)) for label, figure in (*main, *further)]
    flags = flagged(pulls)
    figures = figures | {"flags": flags}
    return report.Report(
        numbers=figures,
        title=f"Showers in {data.geometry.name}",
        lead=(
            f"{figures['showers']} real showers that the generator was not fitted to, "
            "and one generated for the conditions of each; "
            f"{data.geometry.n_cells} cells."
        ),
        main=main,
        card=figures,
        data=data,
        draw=_sections,
        further=further,
        remark=_flag_text(flags, len(pulls)),
    )


def _main_figures(f: Mapping[str, Any]) -> list[tuple[str, report.Measured]]:
    """Label and figure of each line of the summary."""
    found: list[tuple[str, report.Measured]] = []
    if "c2st" in f:
        found.append(("AUC of a classifier on observables", f["c2st"]["high"]))
        found.append(("AUC of a classifier on cells / E", f["c2st"]["low"]))
    found.append(("mean separation power", f["separation_mean"]))
    if "fpd" in f:
        found += [("FPD", f["fpd"]), ("KPD", f["kpd"]), *f["prdc"].items()]
    found += [
        (f"rms difference of layer correlations, {view}", figure)
        for view, figure in f["correlations"].items()
    ]
    found += [
        (f"separation of the first layer with 5 %, {view}", figure)
        for view, figure in f["start"].items()
    ]
    found += [
        (f"separation of the energies of cells, {view}", figure)
        for view, figure in f["spectrum"].items()
    ]
    return [*found, *worst_lines(f)]


def _flag_text(flags: Sequence[Mapping[str, Any]], looked: int) -> str:
    """Say which figures chance does not explain, worst first."""
    if not flags:
        return "No figure is flagged."
    worst = [f"{one['figure']} ({one['pull']:.1f} sigma)" for one in flags[:FLAGS]]
    more = f", and {len(flags) - FLAGS} more" if len(flags) > FLAGS else ""
    return f"Flagged, with account of {looked} figures: {', '.join(worst)}{more}."


def _starts(figures: Mapping[str, Any]) -> Section:
    """Where showers begin, in each view with layers."""
    tables = []
    for view, found in figures["start"].items():
        rows = [
            {
                "first layer with 5 %": str(i) if i else "no energy",
                "real": f"{real:.2%}",
                "generated": f"{made:.2%}",
            }
            for i, (real, made) in enumerate(
                zip(found["real"], found["generated"], strict=True)
            )
            if real > 0 or made > 0
        ]
        tables.append(Table(rows, title=f"{view}, shares of showers"))
    return Section(title="Start of the shower", tables=tables, folded=True)


def _sections(figures: Mapping[str, Any], data: ShowerData) -> Iterator[Section]:
    """Summary, speed, training, response, pictures, profiles, observables."""
    yield Section(
        title="Summary",
        text=(
            f"The floor is the same figure for {figures['floor']}; a perfect "
            "generator would show it. Distances are between the real showers of one "
            "half and the showers generated for the other half, so that both have "
            "equal sizes. The AUC of a classifier is 0.5 if it cannot tell generated "
            "from real showers. Precision and density say whether single showers are "
            "plausible, recall and coverage whether all kinds of showers are generated."
        ),
        tables=[
            report.figure_table(_main_figures(figures)),
            response_table(figures, data),
        ],
    )
    if "speed" in figures:
        yield Section(title="Speed", tables=[Table(rows=figures["speed"])])
    yield from report.training_sections(data.history)
    yield response_section(figures, data)
    yield _starts(figures)
    yield _pictures(data)
    yield _profiles(data)
    yield _observables(figures, data)


def _pictures(data: ShowerData) -> Section:
    """Average shower and single showers in the layers of each view."""
    pictures = []
    factor, unit = display_unit(data.energy_unit)
    for view in (one for one in data.geometry.views if one.has_plane):
        part = data.geometry.view_slices[view.name]
        ends = np.cumsum([layer.n_cells for layer in view.layers])
        layers = _shown_layers(view, data.average[0][part])
        outlines = [view.layers[i].outlines() for i in layers]
        titles = [_layer_title(view, i) for i in layers]
        named = f", {view.name}"
        pairs = [("average shower", f"Average shower, {view.name}.", *data.average)]
        single = zip(*data.single, data.single_energy, strict=True)
        for number, (y, g, energy) in enumerate(single, start=1):
            caption = (
                f"Single shower of {factor * energy:.3g} {unit}, {view.name}, and one "
                "generated for the same conditions."
            )
            pairs.append((f"shower {number}", caption, y, g))
        for name, caption, real, generated in pairs:
            rows = []
            for label, cells in (("real", real), ("generated", generated)):
                split = np.split(cells[part], ends[:-1])
                rows.append((label, [split[i] for i in layers]))
            draw = partial(
                showers.plot_shower,
                outlines,
                rows,
                titles=titles,
                unit=data.energy_unit,
            )
            pictures.append(Picture(draw, caption, name + named))
    text = "Grey cells are empty." if pictures else "No view has cells in the plane."
    return Section(title="Pictures of showers", text=text, pictures=pictures)


def _profiles(data: ShowerData) -> Section:
    """Means over showers: profiles, spectra of cells, correlations of layers."""
    names = {
        "profile": ("Depth", "Energy of a layer", False, False),
        "lateral": ("Distance to the centre", "Share of the energy", False, True),
        "spectrum": ("Energy of a cell", "Cells of a shower", True, True),
    }
    pictures = []
    for key, (real, generated) in data.curves.items():
        kind, _, view = key.partition("/")
        name, what, logx, logy = names[kind]
        unit = data.energy_unit if kind == "spectrum" else "mm"
        if kind == "profile":
            if layer_edges(data.geometry.view(view)) is None:
                name, unit = "Layer", "1"
            what += f" [{data.energy_unit}]"
        draw = partial(
            showers.plot_curves,
            real.edges,
            *((one.mean, one.error) for one in (real, generated)),
            name=name,
            unit=unit,
            what=what,
            logx=logx,
            logy=logy,
        )
        caption = f"{what}, mean over showers, {view}."
        pictures.append(Picture(draw, caption, f"{kind}, {view}"))
    for deep in (one for one in data.geometry.views if one.has_depth):
        fractions = _fractions(data, deep)
        matrices = [np.nan_to_num(np.corrcoef(f, rowvar=False)) for f in fractions]
        draw = partial(showers.plot_matrix, *matrices)
        caption = f"Correlations of the layers' shares of energy, {deep.name}."
        pictures.append(Picture(draw, caption, f"correlations of layers, {deep.name}"))
    return Section(title="Profiles, spectra and correlations", pictures=pictures)


def _observables(figures: Mapping[str, Any], data: ShowerData) -> Section:
    """Distributions of observables and their separation powers."""
    whole = [name for name in data.observables if "[" not in name]
    pictures: list[Picture] = []
    for start in range(0, len(whole), OBSERVABLES_A_FIGURE):
        names = whole[start : start + OBSERVABLES_A_FIGURE]
        items = [
            (*_label(name, data.geometry), *data.observables[name]) for name in names
        ]
        draw = partial(showers.plot_observables, items)
        number = len(pictures) + 1
        caption = "; ".join(names) + "."
        pictures.append(Picture(draw, caption, f"observables {number}"))
    return Section(
        title="Observables",
        text="The separation power of two histograms is 0 if they are equal and 1 if "
        "they have no bin in common.",
        pictures=pictures,
        tables=[report.figure_table(figures["separation"].items())],
    )


def _fractions(data: ShowerData, view: View) -> list[FloatArray]:
    """Real and generated shares (n, layers) of a view with layers."""
    prefix = f"{view.name}." if len(data.geometry.views) > 1 else ""
    names = [f"{prefix}fraction[{layer.name}]" for layer in view.layers]
    columns = [data.observables[name] for name in names]
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
