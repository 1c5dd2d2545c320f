"""The report of a validation: one self-contained HTML page, with its JSON beside."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from pidgan.efficiency.binning import bin_shape
from pidgan.efficiency.real_vs_generated import RealVsGenerated
from pidgan.errors import PidganError
from pidgan.files.writing import refuse_existing, writing_files, writing_folder
from pidgan.report.plots import (
    plot_efficiency,
    plot_history,
    plot_map,
    plot_mass_fit,
    plot_target,
    png,
)
from pidgan.report.validation import Report

HTML_NAME, JSON_NAME = "report.html", "report.json"
TEMPLATE = "report/report.html"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text under a line of headings."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A drawn figure, as `plots.png` gives it, with its caption."""

    png: bytes
    caption: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page with a line in the table of contents."""

    title: str
    text: str = ""
    tables: Sequence[Table] = field(default_factory=tuple)
    pictures: Sequence[Picture] = field(default_factory=tuple)


def write_report(
    report: Report,
    directory: str | Path,
    *,
    history: Mapping[str, Sequence[float]] | None = None,
    mass_fit: Mapping[str, Any] | None = None,
    extra_sections: Sequence[Section] = (),
    overwrite: bool = False,
) -> Path:
    """Write report.html, with every figure inside, and report.json to a directory.

    Args:
        report: from `validate`.
        directory: made for the purpose; it appears complete or not at all.
        history: losses by name against "step", for the training's section.
        mass_fit: summary of an sWeights fit (edges, counts, signal, background,
            yields, parameters, chi2, n_dof, p_value), for its section.
        extra_sections: further parts, at the end of the page.
        overwrite: replace the two files in a directory that exists.

    Returns:
        The path of report.html.

    Raises:
        PidganError: the directory exists and `overwrite` is not set.
    """
    refuse_existing(directory, overwrite=overwrite)
    sections = [
        _summary_section(report),
        *([_fit_section(mass_fit)] if mass_fit else []),
        *([_history_section(history)] if history and history.get("step") else []),
        *(_target_section(report, t) for t in range(len(report.target_names))),
        _tie_section(report),
        *_efficiency_sections(report),
        *extra_sections,
    ]
    rows = report.figures["rows"]
    page = render_page(
        f"Validation of {report.sample}: {report.species}",
        sections,
        lead=(
            f"{rows['test']} test rows, effective {rows['n_eff']:.0f}; "
            f"conditions {', '.join(report.condition_names)}; "
            f"targets {', '.join(report.target_names)}."
        ),
    )
    files = {HTML_NAME: page, JSON_NAME: report.to_json()}
    return write_files(directory, files, overwrite=overwrite) / HTML_NAME


def write_files(
    directory: str | Path, files: Mapping[str, str], *, overwrite: bool = False
) -> Path:
    """Write texts to a directory, which appears complete or not at all.

    Args:
        directory: made for the purpose, or with `overwrite` one that exists.
        files: text by name.
        overwrite: replace these files in a directory that exists.

    Returns:
        The directory.
    """
    target = Path(directory)
    if target.exists() and overwrite:
        paths = [target / name for name in files]
        with writing_files(paths, overwrite=True) as temporary:
            for path, text in zip(temporary, files.values(), strict=True):
                path.write_text(text, encoding="utf-8")
        return target
    with writing_folder(target) as folder:
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    return target


def render_page(title: str, sections: Sequence[Section], *, lead: str = "") -> str:
    """Return a page that needs nothing else, as text."""
    try:
        from jinja2 import Environment
    except ImportError:
        raise PidganError(
            "the report needs jinja2: install pidgan's extra 'train'"
        ) from None

    template = (files("pidgan") / TEMPLATE).read_text(encoding="utf-8")
    contents = [
        {
            "title": section.title,
            "anchor": f"section-{i}",
            "text": section.text,
            "tables": section.tables,
            "pictures": [
                {
                    "caption": picture.caption,
                    "content": base64.b64encode(picture.png).decode(),
                }
                for picture in section.pictures
            ],
        }
        for i, section in enumerate(sections)
    ]
    page: str = (
        Environment(autoescape=True)
        .from_string(template)
        .render(
            title=title,
            lead=lead,
            sections=contents,
        )
    )
    return page


def _summary_section(report: Report) -> Section:
    """The main figures, each with its error and floor."""
    rows = [[label, *_cells(figure)] for label, figure in report.headline_rows()]
    return Section(
        title="Summary",
        text=(
            "Floor: the same figure for real against real "
            f"({report.figures['floor']}), what a perfect generator would show. "
            "Generated rows share the conditions of the real ones, the floor's rows "
            "do not, so that a perfect generator can lie slightly below it. The AUC of "
            "a classifier is 0.5 if it cannot tell the two apart; a pull is a "
            "difference over its error."
        ),
        tables=[Table(head=_HEAD, rows=rows)],
    )


def _fit_section(fit: Mapping[str, Any]) -> Section:
    """The mass fit behind the sWeights."""
    values = {**fit.get("yields", {}), **fit.get("parameters", {})}
    rows = [[name, f"{v:.5g}", f"{e:.2g}"] for name, (v, e) in values.items()]
    quality = ""
    if "chi2" in fit:
        quality = (
            f"Chi-squared {fit['chi2']:.1f} for {fit['n_dof']} degrees of freedom, "
            f"p-value {fit['p_value']:.3g}."
        )
    figure = plot_mass_fit(
        fit["edges"], fit["counts"], fit["signal"], fit["background"]
    )
    return Section(
        title="Mass fit",
        text=quality,
        tables=[Table(head=("parameter", "value", "error"), rows=rows)],
        pictures=[
            Picture(png=png(figure), caption="Discriminant with fitted components.")
        ],
    )


def _history_section(history: Mapping[str, Sequence[float]]) -> Section:
    """Losses of the training."""
    figure = plot_history(history)
    return Section(
        title="Training",
        pictures=[Picture(png=png(figure), caption="Losses against generator steps.")],
    )


def _target_section(report: Report, t: int) -> Section:
    """Distances, atoms and distributions of one target."""
    name, unit = report.target_names[t], report.target_units[t]
    found = report.figures["targets"][name]
    in_unit = "" if unit == "1" else f" [{unit}]"
    overall = [
        ["weighted KS", *_cells(found["ks"])],
        [f"Wasserstein-1{in_unit}", *_cells(found["wasserstein"])],
        ["KS, mean over kinematic bins", *_cells(found["in_bins"]["ks_mean"])],
    ]
    labels = _bin_labels(report)
    bins = found["in_bins"]
    columns = (
        "ks",
        "ks_error",
        "ks_floor",
        "wasserstein",
        "wasserstein_floor",
        "n_eff",
    )
    arrays = [np.ravel(np.array(bins[c], dtype=np.float64)) for c in columns]
    table = [
        [label, *(_number(a[i]) for a in arrays[:-1]), f"{arrays[-1][i]:.0f}"]
        for i, label in enumerate(labels)
    ]
    atoms = [
        [
            f"{atom['value']:g}{' (sentinel)' if atom['sentinel'] else ''}",
            *_share_cells(atom),
        ]
        for atom in found["atoms"]
    ]
    tables = [
        Table(head=_HEAD, rows=overall),
        Table(
            title="In bins",
            head=("bin", "KS", "error", "floor", "W1", "W1 floor", "eff. rows"),
            rows=table,
        ),
    ]
    if atoms:
        tables.append(Table(title="Atoms", head=("value", *_SHARE_HEAD), rows=atoms))
    return Section(
        title=name, tables=tables, pictures=_target_pictures(report, t, labels)
    )


def _target_pictures(report: Report, t: int, labels: Sequence[str]) -> list[Picture]:
    """Distribution overall, on a logarithmic axis, and in kinematic bins."""
    name = report.target_names[t]
    arguments: dict[str, Any] = {
        "name": name,
        "unit": report.target_units[t],
        "weights": report.weights,
        "sentinels": report.sentinels.get(name, ()),
    }
    real, generated = report.real[:, t], report.generated[:, t]
    masks = [(label, report.kinematic_bin == b) for b, label in enumerate(labels)]
    filled = [(label, mask) for label, mask in masks if mask.any()]
    caption = "real (points, errors sqrt(sum w²)) and generated (line); band: error"
    return [
        Picture(
            png=png(plot_target(real, generated, **arguments)),
            caption=f"{name}: {caption} of the generated histogram (above) and of the "
            "real one (below).",
        ),
        Picture(
            png=png(plot_target(real, generated, log=True, **arguments)),
            caption=f"{name} on a logarithmic axis.",
        ),
        Picture(
            png=png(plot_target(real, generated, panels=filled, bins=25, **arguments)),
            caption=f"{name} in quantile bins of "
            f"{' and '.join(report.kinematic_edges)}.",
        ),
    ]


def _tie_section(report: Report) -> Section:
    """Shares of rows in which two targets are equal."""
    rows = [
        [tie, *_share_cells(share)] for tie, share in report.figures["ties"].items()
    ]
    text = "Share of rows in which two targets are exactly equal and measured."
    if not rows:
        return Section(title="Ties", text=f"{text} There are none.")
    return Section(
        title="Ties",
        text=text,
        tables=[Table(head=("targets", *_SHARE_HEAD), rows=rows)],
    )


def _efficiency_sections(report: Report) -> list[Section]:
    """One section per cut: efficiency, misID, and the map of their difference."""
    sections = []
    for cut, found in report.figures["efficiency"].items():
        rows = [[f"{report.species}, all rows", *_overall_cells(found["overall"])]]
        for species, other in report.figures["misid"].items():
            rows.append(
                [f"{species}, all rows", *_overall_cells(other[cut]["overall"])]
            )
        pull = [["pull rms in bins", *_cells(found["pull_rms"])]]
        pictures = [
            _efficiency_picture(item, cut, label=f"{kind} of {item.species}")
            for kind, items in (
                ("Efficiency", report.efficiencies),
                ("MisID", report.misids),
            )
            for item in items
            if cut in item.cuts
        ]
        pictures += [_map_picture(item, cut) for item in report.maps]
        sections.append(
            Section(
                title=cut,
                tables=[
                    Table(head=("rows", "real", "error", *_DIFFERENCE), rows=rows),
                    Table(head=_HEAD, rows=pull),
                ],
                pictures=pictures,
            )
        )
    return sections


def _efficiency_picture(item: RealVsGenerated, cut: str, *, label: str) -> Picture:
    """Efficiency against one condition."""
    ((condition, edges),) = item.binning.items()
    i = item.cuts.index(cut)
    real, generated = item.real, item.generated
    figure = plot_efficiency(
        edges,
        real.efficiency[i],
        np.stack([real.lower[i], real.upper[i]]),
        generated.efficiency[i],
        np.stack([generated.lower[i], generated.upper[i]]),
        difference=item.difference[i],
        difference_error=item.difference_error[i],
        condition=condition,
        unit=item.units[0],
        cut=cut,
        label=label,
    )
    return Picture(png=png(figure), caption=f"{label} against {condition}, {cut}.")


def _map_picture(item: RealVsGenerated, cut: str) -> Picture:
    """Difference and pull in two conditions; in one, as a map of one row."""
    names, edges = list(item.binning), list(item.binning.values())
    if len(names) == 1:
        names, edges = [*names, ""], [*edges, (0.0, 1.0)]
    shape = (len(edges[0]) - 1, len(edges[1]) - 1)
    i = item.cuts.index(cut)
    figure = plot_map(
        edges[0],
        edges[1],
        item.difference[i].reshape(shape),
        item.difference_error[i].reshape(shape),
        names=(names[0], names[1]),
        units=(item.units[0], item.units[1] if len(item.units) > 1 else "1"),
        cut=cut,
    )
    return Picture(
        png=png(figure),
        caption=f"Generated minus real efficiency in {' and '.join(item.binning)}.",
    )


def _bin_labels(report: Report) -> list[str]:
    """Text of each kinematic bin, momenta in GeV."""
    units = dict(zip(report.condition_names, report.condition_units, strict=True))
    shape = bin_shape(report.kinematic_edges)
    labels = []
    for place in np.ndindex(shape):
        parts = []
        for (name, edges), i in zip(report.kinematic_edges.items(), place, strict=True):
            scale, unit = (1e-3, " GeV") if units[name] == "MeV" else (1.0, "")
            low, high = edges[i] * scale, edges[i + 1] * scale
            parts.append(f"{name} {low:.3g}-{high:.3g}{unit}")
        labels.append(", ".join(parts))
    return labels


_HEAD = ("figure", "value", "error", "floor", "floor's error", "eff. rows")
_DIFFERENCE = ("gen. - real", "error", "floor", "eff. rows")
_SHARE_HEAD = ("real", "generated", *_DIFFERENCE)


def _cells(figure: Mapping[str, Any]) -> list[str]:
    """Value, error, floor, its error and effective rows as text."""
    if figure["value"] is None:
        return [figure.get("reason", "too few rows"), "", "", "", ""]
    effective = figure["n_eff"]
    return [
        *(_number(figure[k]) for k in ("value", "error", "floor", "floor_error")),
        "-" if effective is None else f"{effective:.0f}",
    ]


def _difference_cells(figure: Mapping[str, Any]) -> list[str]:
    """Difference, error, floor and effective rows as text."""
    cells = _cells(figure)
    return [*cells[:3], cells[4]]


def _share_cells(share: Mapping[str, Any]) -> list[str]:
    """Shares of real and generated rows, and their difference."""
    shares = [_number(share["real"]), _number(share["generated"])]
    return [*shares, *_difference_cells(share["difference"])]


def _overall_cells(found: Mapping[str, Any]) -> list[str]:
    """Real efficiency with error, and the difference."""
    real = [_number(found["real"]), _number(found["real_error"])]
    return [*real, *_difference_cells(found["difference"])]


def _number(value: float | None) -> str:
    """A number with four digits after the point, more where it is tiny."""
    if value is None or not np.isfinite(value):
        return "-"
    return f"{value:.2e}" if 0 < abs(value) < 1e-4 else f"{value:.4f}"
