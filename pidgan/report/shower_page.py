"""The report of generated showers: main figures, and sections of the page."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.calorimeter.geometry import Geometry, View
from pidgan.calorimeter.observables import depths, layer_edges
from pidgan.report import page, report
from pidgan.report.page import Picture, Section, Table
from pidgan.report.plots import showers
from pidgan.report.plots.canvas import display_unit
from pidgan.report.shower_metrics import Curve, ResolutionFit, Response, fit_resolution
from pidgan.sample.species import species_name

MOST_LAYERS = 5  # of a view in a picture of cells
OBSERVABLES_A_FIGURE = 9
LINEARITY, RESOLUTION = 0.005, 0.2  # shaded in the ratios

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


@dataclass(frozen=True, kw_only=True)
class ShowerData:
    """Measurements that the sections are drawn from; pairs are real and generated.

    The response is by species, "all" first, curves are named "profile/VIEW",
    "lateral/VIEW" and "spectrum/VIEW". Cells are averages (n_cells,) and `single`
    showers (k, n_cells), the history lists of losses by name, against "step".
    """

    geometry: Geometry
    energy_unit: str
    response: dict[str, tuple[Response, Response]]
    curves: dict[str, tuple[Curve, Curve]]
    observables: dict[str, tuple[FloatArray, FloatArray]]
    average: tuple[FloatArray, FloatArray]
    single: tuple[FloatArray, FloatArray]
    single_energy: FloatArray
    history: Mapping[str, Sequence[float]] = field(default_factory=dict)


def shower_report(figures: dict[str, Any], data: ShowerData) -> report.Report:
    """Return the report of figures of showers."""
    return report.Report(
        numbers=figures,
        title=f"Showers in {data.geometry.name}",
        lead=(
            f"{figures['showers']} real showers that the generator was not fitted to, "
            "and one generated for the conditions of each; "
            f"{data.geometry.n_cells} cells."
        ),
        main=_main_figures(figures),
        card=figures,
        data=data,
        draw=_sections,
        further=[
            (f"separation of {name}", figure)
            for name, figure in figures["separation"].items()
        ],
    )


def _main_figures(f: Mapping[str, Any]) -> list[tuple[str, report.Measured]]:
    """Label and figure of each line of the summary."""
    found: list[tuple[str, report.Measured]] = []
    if "c2st" in f:
        found.append(("AUC of a classifier on observables", f["c2st"]["high"]))
        found.append(("AUC of a classifier on cells / E", f["c2st"]["low"]))
    found.append(("mean separation power", f["separation_mean"]))
    found += [("FPD", f["fpd"]), ("KPD", f["kpd"]), *f["prdc"].items()]
    return found + [
        (f"rms difference of layer correlations, {view}", figure)
        for view, figure in f["correlations"].items()
    ]


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
            Table(
                title="Response: largest difference in any bin, and fits with E in GeV",
                rows=[_response_row(figures, data, name) for name in data.response],
            ),
        ],
    )
    if "speed" in figures:
        yield Section(title="Speed", tables=[Table(rows=figures["speed"])])
    yield from report.training_sections(data.history)
    yield _response(figures, data)
    yield _pictures(data)
    yield _profiles(data)
    yield _observables(figures, data)


def _response_row(
    figures: Mapping[str, Any], data: ShowerData, name: str
) -> dict[str, str]:
    found, fits = figures["response"][name], map(fit_resolution, data.response[name])
    real, generated = (_fit_text(fit, data.energy_unit) for fit in fits)
    return {
        "showers": _of_species(name),
        "worst linearity": f"{found['worst_linearity']:.2%}",
        "worst resolution": f"{found['worst_resolution']:.1%}",
        "real sigma / E": real,
        "generated sigma / E": generated,
    }


def _response(figures: Mapping[str, Any], data: ShowerData) -> Section:
    """Linearity and resolution of each species in bins of the incident energy."""
    factor, unit = display_unit(data.energy_unit)
    pictures, tables = [], []
    for name, pair in data.response.items():
        x, shown = pair[0].energy * factor, _of_species(name)
        draw = partial(
            showers.plot_response,
            x,
            *((r.mean, r.mean_error) for r in pair),
            what="Mean $E_{vis}/E$",
            unit=unit,
            allowed=LINEARITY,
        )
        caption = (
            f"Linearity, {shown}: mean of the visible over the incident energy. The "
            f"shaded part of the ratio marks {LINEARITY:.1%}."
        )
        pictures.append(Picture(draw, caption, f"linearity, {shown}"))
        draw = partial(
            showers.plot_response,
            x,
            *((100 * r.resolution, 100 * r.resolution_error) for r in pair),
            what="Resolution $\\sigma/E$ [%]",
            unit=unit,
            curves=[_fit_curve(r, factor) for r in pair],
            allowed=RESOLUTION,
            zero=True,
        )
        caption = (
            f"Resolution, {shown}: half width of the central 68.3 % over the median, "
            "with fits of a/√E ⊕ b/E ⊕ c. The shaded part of the ratio marks "
            f"{RESOLUTION:.0%}."
        )
        pictures.append(Picture(draw, caption, f"resolution, {shown}"))
        f = figures["response"][name]
        mean, ratio = (
            zip(f[key], f[f"{key}_error"], strict=True)
            for key in ("linearity", "resolution_ratio")
        )
        rows = [
            {
                f"E [{unit}]": f"{e:.4g}",
                "showers": f"{n:.0f}",
                "generated / real mean - 1": page.with_error(*linearity, unit="%"),
                "generated / real resolution": page.with_error(*resolution),
            }
            for e, n, linearity, resolution in zip(
                x, f["showers"], mean, ratio, strict=True
            )
        ]
        tables.append(Table(rows, title=shown))
    numbers = Section(title="In numbers", tables=tables, folded=True)
    title = "Linearity and resolution"
    return Section(title=title, pictures=pictures, parts=[numbers])


def _of_species(name: str) -> str:
    """Return "e-" for "species 11"."""
    code = name.removeprefix("species ")
    if code == name or not code.lstrip("-").isdecimal():
        return name
    return species_name(int(code))


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


def _fit_curve(response: Response, factor: float) -> tuple[FloatArray, FloatArray]:
    """Energies in the shown unit, and the fitted resolution in per cent."""
    fit = fit_resolution(response)
    e = np.geomspace(np.nanmin(response.energy), np.nanmax(response.energy), 100)
    squares = fit.stochastic**2 / e + fit.noise**2 / e**2 + fit.constant**2
    return e * factor, 100 * np.sqrt(squares)


def _fit_text(fit: ResolutionFit, unit: str) -> str:
    """The fit for energies in GeV, in per cent."""
    scale = 1e-3 if unit == "MeV" else 1.0
    a = 100 * fit.stochastic * np.sqrt(scale)
    b, c = 100 * fit.noise * scale, 100 * fit.constant
    quality = f"chi2 {fit.chi2:.1f}/{fit.n_dof}"
    return f"{a:.2f} %/√E ⊕ {b:.2f} %/E ⊕ {c:.3f} % ({quality})"
