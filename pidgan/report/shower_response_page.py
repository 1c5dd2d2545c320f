"""The section of the response of showers: figures, tables and pictures by energy."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.report import page, report
from pidgan.report.page import Picture, Section, Table
from pidgan.report.plots import showers
from pidgan.report.plots.canvas import display_unit
from pidgan.report.shower_data import ShowerData
from pidgan.report.shower_metrics import ResolutionFit, Response, fit_resolution
from pidgan.sample.species import species_name

BAND = 2.0  # errors of a difference of two real samples, shaded in ratios

_PULLS = {
    "linearity": "mean response",
    "resolution": "resolution",
    "shape": "distribution of the response",
    "low": "share below half of the median",
    "empty": "share of empty showers",
    "start": "start of the shower",
}
_TAILS = {
    "low": "share with less than half of the median response",
    "far": "share more than 3 widths below the median response",
    "empty": "share of empty showers",
}


def worst_lines(figures: Mapping[str, Any]) -> list[tuple[str, report.Measured]]:
    """Return label and figure of the largest differences and of the tails."""
    worst = figures["response"]["all"]["worst"]
    return [
        ("largest difference of the mean response", worst["linearity"]),
        ("largest difference of the resolution", worst["resolution"]),
        *((_TAILS[name], figure) for name, figure in figures["tails"].items()),
    ]


def bin_pulls(figures: Mapping[str, Any]) -> Iterator[tuple[str, report.Measured]]:
    """Yield label and figure of each bin of the energy, for the verdict."""
    for name, found in figures["response"].items():
        factor, unit = display_unit(found["unit"])
        of = "" if name == "all" else f", {of_species(name)}"
        for key, label in _PULLS.items():
            for energy, pull in zip(found["energy"], found[f"{key}_pull"], strict=True):
                if pull is not None:
                    at = f"{factor * energy:.3g} {unit}"
                    figure = {"value": None, "floor": None, "pull": pull}
                    yield f"{label} at {at}{of}", figure


def response_table(figures: Mapping[str, Any], data: ShowerData) -> Table:
    """Return the table of the largest differences of each species, and of its fits."""
    return Table(
        title="Response: largest difference in any bin, and fits with E in GeV",
        rows=[_response_row(figures, data, name) for name in data.response],
    )


def _response_row(
    figures: Mapping[str, Any], data: ShowerData, name: str
) -> dict[str, Any]:
    found, fits = figures["response"][name], map(fit_resolution, data.response[name])
    real, generated = (_fit_text(fit, data.energy_unit) for fit in fits)
    row: dict[str, Any] = {"showers": of_species(name)}
    for key, label in (("linearity", "mean"), ("resolution", "resolution")):
        one = found["worst"][key]
        row[f"worst {label}"] = page.with_error(one["value"], one["error"], unit="%")
        row[f"floor of {label}"] = page.with_error(one["floor"], None, unit="%")
    fit = page.Cell(text=f"{real}; generated {generated}", level="text")
    return row | {"real sigma / E": fit}


def response_section(figures: Mapping[str, Any], data: ShowerData) -> Section:
    """Return linearity, resolution and tails of each species in bins of the energy."""
    factor, unit = display_unit(data.energy_unit)
    pictures, tables = [_distributions(data)], list[Table]()
    for name in data.response:
        pictures += _pictures(figures["response"][name], data, name)
        tables += _tables(figures["response"][name], factor, unit, of_species(name))
    return Section(
        title="Linearity, resolution and tails",
        text=(
            "The shaded part of a ratio is where two samples of real showers of this "
            f"size agree in 95 % of the cases ({BAND:g} errors of their difference). "
            "The pull of a bin is positive if the difference is larger than expected "
            "of a perfect generator."
        ),
        pictures=pictures,
        tables=tables,
    )


def of_species(name: str) -> str:
    """Return "e-" for "species 11"."""
    code = name.removeprefix("species ")
    if code == name or not code.lstrip("-").isdecimal():
        return name
    return species_name(int(code))


def _distributions(data: ShowerData) -> Picture:
    """Draw the response of single showers in each bin of the energy."""
    factor, unit = display_unit(data.energy_unit)
    place = np.searchsorted(data.edges, data.energy, side="right") - 1
    items = []
    for i in range(len(data.edges) - 1):
        rows = place == i
        if np.sum(rows) > 1:
            low, high = (factor * edge for edge in data.edges[i : i + 2])
            name = f"$E_{{vis}}/E$, {low:.3g} to {high:.3g} {unit}"
            items.append((name, "1", *(r[rows] for r in data.responses)))
    draw = partial(showers.plot_observables, items, log=True)
    caption = "Response of single showers in bins of the incident energy."
    return Picture(draw, caption, "response in bins")


def _pictures(found: Mapping[str, Any], data: ShowerData, name: str) -> list[Picture]:
    factor, unit = display_unit(data.energy_unit)
    pair, shown = data.response[name], of_species(name)
    x = pair[0].energy * factor
    bands = [
        BAND * np.array(found[f"{key}_floor"], dtype=np.float64)
        for key in ("linearity", "resolution")
    ]
    linearity = partial(
        showers.plot_response,
        x,
        *((r.mean, r.mean_error) for r in pair),
        what="Mean $E_{vis}/E$",
        unit=unit,
        allowed=bands[0],
    )
    resolution = partial(
        showers.plot_response,
        x,
        *((100 * r.resolution, 100 * r.resolution_error) for r in pair),
        what="Resolution $\\sigma/E$ [%]",
        unit=unit,
        curves=[_fit_curve(r, factor) for r in pair],
        allowed=bands[1],
        zero=True,
    )
    captions = (
        f"Linearity, {shown}: mean of the visible over the incident energy.",
        f"Resolution, {shown}: half width of the central 68.3 % over the median, "
        "with fits of a/√E ⊕ b/E ⊕ c.",
    )
    return [
        Picture(linearity, captions[0], f"linearity, {shown}"),
        Picture(resolution, captions[1], f"resolution, {shown}"),
    ]


def _tables(
    f: Mapping[str, Any], factor: float, unit: str, shown: str
) -> Iterator[Table]:
    """Yield the table of means and widths, and that of tails and starts."""
    where = [
        {f"E [{unit}]": f"{factor * e:.4g}", "showers": f"{n:.0f}"}
        for e, n in zip(f["energy"], f["showers"], strict=True)
        if e is not None
    ]
    kept = [i for i, e in enumerate(f["energy"]) if e is not None]
    first, second = [], []
    for i, row in zip(kept, where, strict=True):
        mean, ratio = (
            page.with_error(f[key][i], f[f"{key}_error"][i], unit=u)
            for key, u in (("linearity", "%"), ("resolution_ratio", ""))
        )
        first.append(
            row
            | {"generated / real mean - 1": mean}
            | {"pull": page.pull_cell(f["linearity_pull"][i])}
            | {"generated / real resolution": ratio}
            | {"its pull": page.pull_cell(f["resolution_pull"][i])}
        )
        tail: dict[str, Any] = dict(row)
        second.append(tail)
        for key, label in (("low", "below half"), ("empty", "empty")):
            for kind in ("real", "generated"):
                share = f[f"{key}_{kind}"][i]
                tail[f"{label}, {kind}"] = "-" if share is None else f"{share:.1%}"
            tail[f"pull of {label}"] = page.pull_cell(f[f"{key}_pull"][i])
        for key in ("shape", "start"):
            tail[f"pull of {key}"] = page.pull_cell(f[f"{key}_pull"][i])
    yield Table(first, title=f"Mean and resolution, {shown}")
    yield Table(second, title=f"Tails, distribution and start, {shown}")


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
