"""The report of a generator of tracks: main figures, and sections of the page."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pidgan.report import page, report, track_pictures
from pidgan.report.page import Picture, Section, Table
from pidgan.report.plots.samples import plot_mass_fit
from pidgan.report.track_cuts import CutComparison
from pidgan.report.track_figures import OF_BIN, TrackRows
from pidgan.report.track_pictures import bin_labels
from pidgan.report.track_summary import (
    further_figures,
    main_figures,
    projection_row,
    remark,
    summary_section,
    with_pull,
)
from pidgan.report.weights_section import weights_section


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
        numbers=figures,
        title=f"Validation of {sample.name}: {sample.species}",
        lead=f"{rows['test']} test rows, {rows['n_eff']:.0f} effective.",
        main=main_figures(figures),
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
        further=further_figures(figures),
        remark=remark(figures),
    )


def _sections(figures: Mapping[str, Any], data: TrackData) -> Iterator[Section]:
    """Summary, cuts, targets, relations, training, and shares of single values."""
    looked = [*main_figures(figures), *further_figures(figures)]
    yield summary_section(figures, looked, data.rows.sample.condition_names)
    yield Section(
        title="Efficiency and misID" if data.misid else "Efficiency",
        text="Sentinels fail the cut and stay in the denominator. Intervals are those "
        "of Wilson. Below the curves: the difference, whose error takes into account "
        "that real and generated rows share conditions and weights. Bins beyond the "
        "binning of the sample show the rest of the range.",
        tables=[Table(_overall_rows(figures, data), title="All rows")],
        parts=[_cut_section(figures, data, cut) for cut in figures["efficiency"]],
    )
    yield Section(
        title="Distributions",
        text="Points are real rows with errors sqrt(sum w²), lines are generated rows "
        "with a band for their error. Below: the ratio, with the error of the "
        "generated rows on the points and that of the real rows as a grey band; arrows "
        "point to values outside the panel. The widths of bins follow from the "
        "effective rows, "
        "and axes end at the 0.5 and 99.5 % quantiles; a panel on a logarithmic axis "
        "shows the whole range.",
        parts=[
            _target_section(figures, data, t)
            for t in range(len(data.rows.sample.targets))
        ],
    )
    if figures["correlations"]:
        yield _correlation_section(figures, data)
    yield _condition_section(figures, data)
    if data.mass_fit:
        yield _fit_section(data.mass_fit)
    yield from weights_section(figures)
    yield from report.training_sections(data.history)
    yield _shares_section(figures)


def _overall_rows(figures: Mapping[str, Any], data: TrackData) -> list[dict[str, Any]]:
    """Efficiencies and misIDs of all cuts over all rows."""
    species = data.rows.sample.species
    kinds = [(f"efficiency of {species}", figures["efficiency"])]
    kinds += [(f"misID of {other}", found) for other, found in figures["misid"].items()]
    return [
        _overall_row(f"{kind}, {cut}", found["overall"])
        for kind, cuts in kinds
        for cut, found in cuts.items()
    ]


def _cut_section(figures: Mapping[str, Any], data: TrackData, cut: str) -> Section:
    """Efficiency and misID of one cut, and the map of their difference."""
    own = figures["efficiency"][cut]
    kinds = ["Efficiency", *["MisID"] * len(data.misid)]
    compared = (data.cuts, *data.misid.values())
    pictures = [
        track_pictures.efficiency(item, cut, label=f"{kind} of {item.species}")
        for kind, found in zip(kinds, compared, strict=True)
        for item in found.drawn
    ]
    projected = figures["projections"]
    rows = [
        projection_row(f"efficiency, {_where(name)}", one)
        for name, one in projected["efficiency"][cut].items()
        if one and "chi2" in one
    ]
    rows += [
        projection_row(f"misID of {species}, {_where(name)}", one)
        for species, cuts in projected["misid"].items()
        for name, one in cuts[cut].items()
        if one and "chi2" in one
    ]
    return Section(
        title=cut,
        tables=[
            report.figure_table([("rms of the pulls in bins", own["pull_rms"])]),
            Table(rows),
        ],
        pictures=[*pictures, track_pictures.plane(data.cuts.plane, cut)],
    )


def _where(name: str) -> str:
    return "in two conditions" if name == "map" else f"against {name}"


def _target_section(figures: Mapping[str, Any], data: TrackData, t: int) -> Section:
    """Distances and distributions of one target."""
    variable = data.rows.sample.targets[t]
    found = figures["targets"][variable.name]
    projected = figures["projections"]["targets"][variable.name]
    unit = variable.package_unit
    in_unit = "" if unit == "1" else f" [{unit}]"
    bins = found["in_bins"]
    overall = [
        ("weighted KS", found["ks"] | {"pull": projected["ks_pull"]}),
        (f"Wasserstein-1 (W1){in_unit}", found["wasserstein"]),
        (
            "KS, mean over kinematic bins",
            bins["ks_mean"] | {"pull": projected["ks_in_bins_pull"]},
        ),
    ]
    tables = [report.figure_table(overall)]
    if "chi2" in projected:
        tables.append(Table([projection_row("distribution", projected)]))
    return Section(
        title=variable.name,
        tables=tables,
        pictures=track_pictures.target(data.rows, t),
        parts=[
            Section(
                title=f"{variable.name} in kinematic bins",
                tables=[Table(_bin_rows(bins, bin_labels(data.rows, data.edges)))],
                pictures=track_pictures.target_in_bins(data.rows, t, data.edges),
            )
        ],
    )


def _bin_rows(bins: Mapping[str, Any], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Distances in each kinematic bin."""
    arrays = {name: np.ravel(np.array(bins[name], np.float64)) for name in OF_BIN}
    return [
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


def _correlation_section(figures: Mapping[str, Any], data: TrackData) -> Section:
    """Correlations of all pairs of targets, and of some in bins of a condition."""
    pictures = []
    for pair, found in figures["correlations_in_bins"].items():
        if all(one["difference"]["value"] is None for one in found["bins"]):
            continue  # one of both has a single value wherever both are measured
        pictures.append(track_pictures.correlation(pair, found, data.rows))
        pictures.append(track_pictures.two_targets(pair, found, data.rows))
    rows = [
        _share_row("targets", pair, found)
        for pair, found in figures["correlations"].items()
    ]
    return Section(
        title="Correlations of targets",
        text="Rank correlations (Spearman), with the weights of the rows.",
        pictures=pictures,
        parts=[Section(title="All pairs", tables=[Table(rows)])],
    )


def _condition_section(figures: Mapping[str, Any], data: TrackData) -> Section:
    """Conditions of test rows beside those of the train rows of the floor."""
    found = figures["conditions"].items()
    worst = [f["pull"] for _, f in found if f.get("pull") is not None]
    text = "Real test rows beside the train rows of the floor. "
    if worst:
        text += (
            "They agree: the test rows are drawn from the same distribution."
            if max(worst) < 3
            else "They differ: the report judges the generator on other conditions "
            "than those it was trained on."
        )
    return Section(
        title="Conditions",
        text=text,
        tables=[report.figure_table((f"KS, {name}", f) for name, f in found)],
        pictures=track_pictures.conditions(data.rows),
    )


def _fit_section(fit: Mapping[str, Any]) -> Section:
    """The mass fit behind the sWeights."""
    values = {**fit.get("yields", {}), **fit.get("parameters", {})}
    quality = ""
    if "chi2" in fit:
        quality = (
            f"The chi-squared is {fit['chi2']:.1f} for {fit['n_dof']} degrees of "
            f"freedom, which corresponds to a p-value of {fit['p_value']:.3g}."
        )
    draw = partial(
        plot_mass_fit, fit["edges"], fit["counts"], fit["signal"], fit["background"]
    )
    caption = (
        "Discriminant with the fitted components. The pulls are (data - fit) / "
        "sqrt(fit); the band marks one standard deviation."
    )
    rows = [
        {"parameter": name, "value": page.with_error(*v)} for name, v in values.items()
    ]
    pictures = [Picture(draw, caption, name="mass fit")]
    return Section(
        title="Mass fit", text=quality, tables=[Table(rows)], pictures=pictures
    )


def _shares_section(figures: Mapping[str, Any]) -> Section:
    """Values that many rows take exactly, and targets that are exactly equal."""
    atoms = [
        _share_row(
            "value",
            f"{name} = {a['value']:g}{' (sentinel)' * a['sentinel']}",
            a,
        )
        for name, found in figures["targets"].items()
        for a in found["atoms"]
    ]
    ties = figures["ties"]
    about = "Atoms are values that many rows take exactly. Ties are two targets that "
    about += "are exactly equal and both measured."
    return Section(
        title="Ties and atoms",
        text=about if ties else f"{about} There are no ties.",
        tables=[
            Table([_share_row("targets", *item) for item in ties.items()], "Ties"),
            Table(atoms, "Atoms"),
        ],
    )


def _share_row(head: str, label: str, share: Mapping[str, Any]) -> dict[str, Any]:
    """Shares of real and generated rows, and their difference."""
    cells = report.figure_cells(with_pull(share["difference"]), name="generated - real")
    return {
        head: label,
        "real": page.text_of(share["real"]),
        "generated": page.text_of(share["generated"]),
        **cells,
    }


def _overall_row(label: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Real efficiency with its error, generated efficiency, and the difference."""
    difference = found["difference"]
    row: dict[str, Any] = {
        "": label,
        "real": page.with_error(found["real"], found["real_error"], unit="%"),
        "generated": f"{100 * found['generated']:.2f} %",
        "generated - real": page.with_error(
            difference["value"], difference["error"], unit="%"
        ),
        "floor": page.with_error(
            difference["floor"], difference.get("floor_error"), unit="%"
        ),
    }
    return row | {"pull": page.pull_cell(with_pull(difference)["pull"])}
