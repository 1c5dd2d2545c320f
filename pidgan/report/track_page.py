"""The report of a generator of tracks: main figures, and sections of the page."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pidgan.efficiency.binning import bin_shape
from pidgan.efficiency.real_vs_generated import RealVsGenerated
from pidgan.report import page, report
from pidgan.report.page import Picture, Section, Table
from pidgan.report.plots.efficiencies import plot_efficiency, plot_map
from pidgan.report.plots.samples import plot_mass_fit, plot_target
from pidgan.report.track_figures import OF_BIN, CutComparison, TrackRows
from pidgan.sample.grids import find_grid


@dataclass(frozen=True, kw_only=True)
class TrackData:
    """Measurements that the sections are drawn from.

    `edges` are those of the kinematic bins, `misid` has the efficiencies of each other
    species, `history` lists of losses by name, against "step". History and mass fit are
    empty if they are not known.
    """

    rows: TrackRows
    edges: dict[str, tuple[float, ...]]
    cuts: CutComparison
    misid: Mapping[str, CutComparison]
    history: Mapping[str, Sequence[float]]
    mass_fit: Mapping[str, Any]


def track_report(figures: dict[str, Any], data: TrackData) -> report.Report:
    """Return the report of figures of tracks."""
    sample, rows = data.rows.sample, figures["rows"]
    targets, cuts = figures["targets"], figures["efficiency"]
    return report.Report(
        figures=figures,
        title=f"Validation of {sample.name}: {sample.species}",
        lead=f"{rows['test']} test rows, {rows['n_eff']:.0f} effective.",
        main=_main_figures(figures, data),
        card={
            "floor": figures["floor"],
            "rows": rows,
            "ks": {name: found["ks"] for name, found in targets.items()},
            "ks_in_bins": {
                name: found["in_bins"]["ks_mean"] for name, found in targets.items()
            },
            "c2st": figures["c2st"],
            "efficiency": {cut: found["overall"] for cut, found in cuts.items()},
            "pull_rms": {cut: found["pull_rms"] for cut, found in cuts.items()},
        },
        data=data,
        draw=_sections,
    )


def _main_figures(
    figures: Mapping[str, Any], data: TrackData
) -> list[tuple[str, report.Measured]]:
    """Label and figure of each line of the summary."""
    targets, mean = figures["targets"], f"mean in bins of {', '.join(data.edges)}"
    found = [(f"weighted KS, {name}", f["ks"]) for name, f in targets.items()]
    found += [
        (f"KS, {name}, {mean}", f["in_bins"]["ks_mean"]) for name, f in targets.items()
    ]
    found.append(("C2ST, AUC of the better classifier", figures["c2st"]))
    for cut, f in figures["efficiency"].items():
        found.append((f"gen - real efficiency, {cut}", f["overall"]["difference"]))
        found.append((f"pull rms in bins, {cut}", f["pull_rms"]))
    return found


def _sections(figures: Mapping[str, Any], data: TrackData) -> Iterator[Section]:
    """Summary, mass fit, training, each target, ties, each cut."""
    yield Section(
        title="Summary",
        text=(
            "The floor is the same figure for real rows against real rows "
            f"({figures['floor']}); a perfect generator would show it. "
            "Generated rows share the conditions of the real rows and those of the "
            "floor do not, so that a perfect generator can lie slightly below the "
            "floor. The AUC of a classifier is 0.5 if it cannot tell generated from "
            "real rows. A pull is generated minus real, over its uncertainty. The "
            f"conditions are {', '.join(data.rows.sample.condition_names)}."
        ),
        tables=[report.figure_table(_main_figures(figures, data))],
    )
    if data.mass_fit:
        yield _fit_section(data.mass_fit)
    yield from report.training_sections(data.history)
    for t in range(len(data.rows.sample.targets)):
        yield _target_section(figures, data, t)
    text = "Shares of rows in which two targets are exactly equal and both measured."
    ties = figures["ties"]
    yield Section(
        title="Ties",
        text=text if ties else f"{text} There are none.",
        tables=[Table([_share_row("targets", *item) for item in ties.items()])],
    )
    for cut in figures["efficiency"]:
        yield _cut_section(figures, data, cut)


def _fit_section(fit: Mapping[str, Any]) -> Section:
    """The mass fit behind the sWeights."""
    values = {**fit.get("yields", {}), **fit.get("parameters", {})}
    quality = ""
    if "chi2" in fit:
        quality = (
            f"The chi-squared is {fit['chi2']:.1f} for {fit['n_dof']} degrees of "
            f"freedom, which corresponds to a p-value of {fit['p_value']:.3g}."
        )
    figure = plot_mass_fit(
        fit["edges"], fit["counts"], fit["signal"], fit["background"]
    )
    caption = (
        "Discriminant with the fitted components. The pulls are (data - fit) / "
        "sqrt(fit); the band marks one standard deviation."
    )
    rows = [
        {"parameter": name, "value": page.with_error(*v)} for name, v in values.items()
    ]
    pictures = [Picture(figure, caption)]
    return Section(
        title="Mass fit", text=quality, tables=[Table(rows)], pictures=pictures
    )


def _target_section(figures: Mapping[str, Any], data: TrackData, t: int) -> Section:
    """Distances, atoms and distributions of one target."""
    variable = data.rows.sample.targets[t]
    found = figures["targets"][variable.name]
    unit = variable.package_unit
    labels, bins = _bin_labels(data), found["in_bins"]
    arrays = {name: np.ravel(np.array(bins[name], np.float64)) for name in OF_BIN}
    in_bins = [
        {
            "bin": label,
            "KS": page.with_error(arrays["ks"][b], arrays["ks_error"][b]),
            "floor of KS": arrays["ks_floor"][b],
            "W1": arrays["wasserstein"][b],
            "floor of W1": arrays["wasserstein_floor"][b],
            "effective rows": f"{arrays['n_eff'][b]:.0f}",
        }
        for b, label in enumerate(labels)
    ]
    in_unit = "" if unit == "1" else f" [{unit}]"
    overall = [
        ("weighted KS", found["ks"]),
        (f"Wasserstein-1 (W1){in_unit}", found["wasserstein"]),
        ("KS, mean over kinematic bins", bins["ks_mean"]),
    ]
    atoms = [
        _share_row("value", f"{a['value']:g}{' (sentinel)' * a['sentinel']}", a)
        for a in found["atoms"]
    ]
    return Section(
        title=variable.name,
        tables=[
            report.figure_table(overall),
            Table(in_bins, title="In kinematic bins"),
            Table(atoms, title="Atoms: values that many rows take exactly"),
        ],
        pictures=_target_pictures(data, t, labels),
    )


def _target_pictures(data: TrackData, t: int, labels: Sequence[str]) -> list[Picture]:
    """Distribution overall, on a logarithmic axis, and in kinematic bins."""
    rows = data.rows
    variable = rows.sample.targets[t]
    name, kinematic = variable.name, " and ".join(data.edges)
    arguments: dict[str, Any] = {
        "name": name,
        "unit": variable.package_unit,
        "weights": rows.real.weights,
        "sentinels": variable.sentinels,
    }
    pair = rows.real.targets[:, t], rows.generated.targets[:, t]
    arguments["grid"] = find_grid(pair[0], sentinels=variable.sentinels)
    index = rows.bins(rows.real, data.edges)
    filled = [(label, index == b) for b, label in enumerate(labels) if b in index]
    return [
        Picture(
            plot_target(*pair, **arguments),
            f"{name}: real rows (points with errors sqrt(sum w²)) and generated rows "
            "(line, its error as a band). Below: the ratio, with the error of the "
            "generated rows on the points and that of the real rows as a grey band; "
            "arrows point to values outside the panel.",
        ),
        Picture(
            plot_target(*pair, log=True, **arguments), f"{name} on a logarithmic axis."
        ),
        Picture(
            plot_target(*pair, panels=filled, bins=25, **arguments),
            f"{name} in quantile bins of {kinematic}.",
        ),
    ]


def _cut_section(figures: Mapping[str, Any], data: TrackData, cut: str) -> Section:
    """Efficiency and misID of one cut, and the map of their difference."""
    own = figures["efficiency"][cut]
    species = data.rows.sample.species
    overall = [_overall_row(f"efficiency of {species}", own["overall"])]
    overall += [
        _overall_row(f"misID of {other}", found[cut]["overall"])
        for other, found in figures["misid"].items()
    ]
    kinds = ["Efficiency", *["MisID"] * len(data.misid)]
    pictures = [
        _efficiency_picture(item, cut, label=f"{kind} of {item.species}")
        for kind, found in zip(kinds, (data.cuts, *data.misid.values()), strict=True)
        for item in found.against
    ]
    return Section(
        title=cut,
        text="Sentinels fail the cut and stay in the denominator.",
        tables=[
            Table(overall, title="All rows"),
            report.figure_table([("rms of the pulls in bins", own["pull_rms"])]),
        ],
        pictures=[*pictures, _map_picture(data.cuts.plane, cut)],
    )


def _efficiency_picture(item: RealVsGenerated, cut: str, *, label: str) -> Picture:
    """Efficiency against one condition."""
    ((condition, edges),) = item.binning.items()
    i = item.cuts.index(cut)
    real, generated = (
        (table.efficiency[i], [table.lower[i], table.upper[i]])
        for table in (item.real, item.generated)
    )
    figure = plot_efficiency(
        edges,
        real,
        generated,
        (item.difference[i], item.difference_error[i]),
        condition=condition,
        unit=item.units[0],
        cut=cut,
        label=label,
    )
    return Picture(
        figure,
        f"{label} against {condition} for {cut}, with Wilson intervals. Below: "
        "the difference, whose error takes into account that real and generated rows "
        "share conditions and weights.",
    )


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
        figure,
        "Generated minus real efficiency (left) and its pull (right) in bins "
        f"of {' and '.join(item.binning)}.",
    )


def _bin_labels(data: TrackData) -> list[str]:
    """Text of each kinematic bin, momenta in GeV."""
    units = {v.name: v.package_unit for v in data.rows.sample.conditions}
    labels = []
    for place in np.ndindex(bin_shape(data.edges)):
        parts = []
        for (name, edges), i in zip(data.edges.items(), place, strict=True):
            scale, unit = (1e-3, " GeV") if units[name] == "MeV" else (1.0, "")
            low, high = edges[i] * scale, edges[i + 1] * scale
            parts.append(f"{name} {low:.3g}-{high:.3g}{unit}")
        labels.append(", ".join(parts))
    return labels


def _share_row(head: str, label: str, share: Mapping[str, Any]) -> dict[str, str]:
    """Shares of real and generated rows, and their difference."""
    return {
        head: label,
        "real": page.text_of(share["real"]),
        "generated": page.text_of(share["generated"]),
        **report.figure_cells(share["difference"], name="generated - real"),
    }


def _overall_row(label: str, found: Mapping[str, Any]) -> dict[str, str]:
    """Real efficiency with its error, generated efficiency, and the difference."""
    row = _share_row("rows", label, found)
    return row | {"real": page.with_error(found["real"], found["real_error"])}
