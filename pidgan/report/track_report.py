"""The report of a generator of tracks: its figures, and the page that shows them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pidgan.efficiency.binning import bin_shape
from pidgan.efficiency.real_vs_generated import RealVsGenerated
from pidgan.report import measured
from pidgan.report.measured import Measured
from pidgan.report.page import (
    JSON_NAME,
    Picture,
    Section,
    Table,
    text_of,
    with_error,
    write_page,
)
from pidgan.report.plots import (
    plot_efficiency,
    plot_history,
    plot_map,
    plot_mass_fit,
    plot_target,
)
from pidgan.report.track_rows import TrackRows


@dataclass(frozen=True, kw_only=True)
class Report:
    """The outcome of a validation of tracks.

    Attributes:
        figures: Everything that was measured, nested by kind and name, in values that
            JSON knows; a missing number is None.
        rows: Real and generated rows that were compared.
        kinematic_edges: Quantile edges of the first two conditions.
        efficiencies: Real and generated efficiencies against each condition.
        misids: The same for each other species.
        maps: Real and generated efficiencies in bins of the first two conditions.
        history: Losses of the training by name, against "step"; empty if unknown.
        mass_fit: Summary of the fit behind the sWeights; empty if there was none.
    """

    figures: dict[str, Any]
    rows: TrackRows
    kinematic_edges: dict[str, tuple[float, ...]]
    efficiencies: tuple[RealVsGenerated, ...]
    misids: tuple[RealVsGenerated, ...]
    maps: tuple[RealVsGenerated, ...]
    history: Mapping[str, Sequence[float]]
    mass_fit: Mapping[str, Any]

    def to_json(self) -> str:
        """Return all figures as JSON."""
        return measured.to_json(self.figures)

    def headline(self) -> dict[str, Any]:
        """Return the figures that belong on the card of a bundle."""
        targets, cuts = self.figures["targets"], self.figures["efficiency"]
        return {
            "floor": self.figures["floor"],
            "rows": self.figures["rows"],
            "ks": {name: found["ks"] for name, found in targets.items()},
            "ks_in_bins": {
                name: found["in_bins"]["ks_mean"] for name, found in targets.items()
            },
            "c2st": self.figures["c2st"],
            "efficiency": {cut: found["overall"] for cut, found in cuts.items()},
            "pull_rms": {cut: found["pull_rms"] for cut, found in cuts.items()},
        }

    def headline_rows(self) -> list[tuple[str, Measured]]:
        """Return label and figure of each line of the summary."""
        head = self.headline()
        mean = f"mean in bins of {', '.join(self.kinematic_edges)}"
        found = [(f"weighted KS, {name}", f) for name, f in head["ks"].items()]
        found += [(f"KS, {name}, {mean}", f) for name, f in head["ks_in_bins"].items()]
        found.append(("C2ST, AUC of the better classifier", head["c2st"]))
        for cut, figures in head["efficiency"].items():
            found.append((f"gen - real efficiency, {cut}", figures["difference"]))
            found.append((f"pull rms in bins, {cut}", head["pull_rms"][cut]))
        return found

    def summary(self) -> str:
        """Return the main figures as a table of a few lines."""
        rows, sample = self.figures["rows"], self.rows.sample
        head = (
            f"{sample.name}, {sample.species}: {rows['test']} test rows, effective "
            f"{rows['n_eff']:.0f}; floor: {self.figures['floor']}"
        )
        return measured.text(head, self.headline_rows())

    def save(
        self,
        directory: str | Path,
        *,
        extra_sections: Sequence[Section] = (),
        overwrite: bool = False,
    ) -> Path:
        """Write report.html, with all figures inside, and report.json.

        Args:
            directory: Directory to write into; a new one appears complete or not at
                all.
            extra_sections: Further sections at the end of the page.
            overwrite: Whether the two files of an existing directory are replaced.

        Returns:
            The path of report.html.

        Raises:
            PidganError: The directory exists and `overwrite` is not set.
        """
        rows, sample = self.figures["rows"], self.rows.sample
        return write_page(
            directory,
            f"Validation of {sample.name}: {sample.species}",
            [*_sections(self), *extra_sections],
            lead=(
                f"{rows['test']} test rows, {rows['n_eff']:.0f} effective. "
                f"Conditions: {', '.join(sample.condition_names)}. "
                f"Targets: {', '.join(sample.target_names)}."
            ),
            beside={JSON_NAME: self.to_json()},
            overwrite=overwrite,
        )


def _sections(report: Report) -> Iterator[Section]:
    """Summary, mass fit, training, each target, ties, each cut."""
    yield Section(
        title="Summary",
        text=(
            "The floor is the same figure for real rows against real rows "
            f"({report.figures['floor']}); a perfect generator would show it. "
            "Generated rows share the conditions of the real rows and those of the "
            "floor do not, so that a perfect generator can lie slightly below the "
            "floor. The AUC of a classifier is 0.5 if it cannot tell generated from "
            "real rows. A pull is a difference divided by its uncertainty."
        ),
        tables=[measured.table(report.headline_rows())],
    )
    if report.mass_fit:
        yield _fit_section(report.mass_fit)
    if report.history.get("step"):
        yield Section(
            title="Training",
            pictures=[
                Picture(
                    figure=plot_history(report.history),
                    caption="Losses against the number of generator steps.",
                )
            ],
        )
    for t in range(len(report.rows.sample.targets)):
        yield _target_section(report, t)
    text = "Shares of rows in which two targets are exactly equal and both measured."
    ties = report.figures["ties"]
    yield Section(
        title="Ties",
        text=text if ties else f"{text} There are none.",
        tables=[Table(rows=[_share_row("targets", *item) for item in ties.items()])],
    )
    for cut in report.figures["efficiency"]:
        yield _cut_section(report, cut)


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
    return Section(
        title="Mass fit",
        text=quality,
        tables=[
            Table(
                rows=[
                    {"parameter": name, "value": with_error(*pair)}
                    for name, pair in values.items()
                ]
            )
        ],
        pictures=[Picture(figure=figure, caption=caption)],
    )


def _target_section(report: Report, t: int) -> Section:
    """Distances, atoms and distributions of one target."""
    variable = report.rows.sample.targets[t]
    found = report.figures["targets"][variable.name]
    unit = variable.package_unit
    labels, bins = _bin_labels(report), found["in_bins"]
    columns = {
        name: np.ravel(np.array(bins[name], dtype=np.float64))
        for name in ("ks", "ks_error", "ks_floor", "wasserstein", "wasserstein_floor")
    }
    effective = np.ravel(np.array(bins["n_eff"], dtype=np.float64))
    in_bins = [
        {
            "bin": label,
            "KS": with_error(columns["ks"][i], columns["ks_error"][i]),
            "floor of KS": columns["ks_floor"][i],
            "W1": columns["wasserstein"][i],
            "floor of W1": columns["wasserstein_floor"][i],
            "effective rows": f"{effective[i]:.0f}",
        }
        for i, label in enumerate(labels)
    ]
    overall = [
        ("weighted KS", found["ks"]),
        (
            f"Wasserstein-1 (W1){'' if unit == '1' else f' [{unit}]'}",
            found["wasserstein"],
        ),
        ("KS, mean over kinematic bins", bins["ks_mean"]),
    ]
    atoms = [
        _share_row("value", f"{a['value']:g}{' (sentinel)' * a['sentinel']}", a)
        for a in found["atoms"]
    ]
    return Section(
        title=variable.name,
        tables=[
            measured.table(overall),
            Table(rows=in_bins, title="In kinematic bins"),
            Table(rows=atoms, title="Atoms: values that many rows take exactly"),
        ],
        pictures=_target_pictures(report, t, labels),
    )


def _target_pictures(report: Report, t: int, labels: Sequence[str]) -> list[Picture]:
    """Distribution overall, on a logarithmic axis, and in kinematic bins."""
    rows = report.rows
    variable = rows.sample.targets[t]
    arguments: dict[str, Any] = {
        "name": variable.name,
        "unit": variable.package_unit,
        "weights": rows.real.weights,
        "sentinels": variable.sentinels,
    }
    pair = rows.real.targets[:, t], rows.generated.targets[:, t]
    index = rows.bins(rows.real, report.kinematic_edges)
    masks = [(label, index == b) for b, label in enumerate(labels)]
    filled = [(label, mask) for label, mask in masks if mask.any()]
    name = variable.name
    return [
        Picture(
            figure=plot_target(*pair, **arguments),
            caption=f"{name}: real rows (points with errors sqrt(sum w²)) and "
            "generated rows (line, its error as a band). Below: the ratio, with the "
            "error of the generated rows on the points and that of the real rows as "
            "a grey band; arrows point to values outside the panel.",
        ),
        Picture(
            figure=plot_target(*pair, log=True, **arguments),
            caption=f"{name} on a logarithmic axis.",
        ),
        Picture(
            figure=plot_target(*pair, panels=filled, bins=25, **arguments),
            caption=f"{name} in quantile bins of "
            f"{' and '.join(report.kinematic_edges)}.",
        ),
    ]


def _cut_section(report: Report, cut: str) -> Section:
    """Efficiency and misID of one cut, and the map of their difference."""
    found = report.figures["efficiency"][cut]
    species = report.rows.sample.species
    overall = [_overall_row(f"efficiency of {species}", found["overall"])]
    overall += [
        _overall_row(f"misID of {other}", figures[cut]["overall"])
        for other, figures in report.figures["misid"].items()
    ]
    pictures = [
        _efficiency_picture(item, cut, label=f"{kind} of {item.species}")
        for kind, items in (
            ("Efficiency", report.efficiencies),
            ("MisID", report.misids),
        )
        for item in items
    ]
    pictures += [_map_picture(item, cut) for item in report.maps]
    return Section(
        title=cut,
        text="Sentinels fail the cut and stay in the denominator.",
        tables=[
            Table(rows=overall, title="All rows"),
            measured.table([("rms of the pulls in bins", found["pull_rms"])]),
        ],
        pictures=pictures,
    )


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
    return Picture(
        figure=figure,
        caption=f"{label} against {condition} for {cut}, with Wilson intervals. Below: "
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
        figure=figure,
        caption="Generated minus real efficiency (left) and its pull (right) in bins "
        f"of {' and '.join(item.binning)}.",
    )


def _bin_labels(report: Report) -> list[str]:
    """Text of each kinematic bin, momenta in GeV."""
    units = {v.name: v.package_unit for v in report.rows.sample.conditions}
    labels = []
    for place in np.ndindex(bin_shape(report.kinematic_edges)):
        parts = []
        for (name, edges), i in zip(report.kinematic_edges.items(), place, strict=True):
            scale, unit = (1e-3, " GeV") if units[name] == "MeV" else (1.0, "")
            low, high = edges[i] * scale, edges[i + 1] * scale
            parts.append(f"{name} {low:.3g}-{high:.3g}{unit}")
        labels.append(", ".join(parts))
    return labels


def _share_row(head: str, label: str, share: Mapping[str, Any]) -> dict[str, str]:
    """Shares of real and generated rows, and their difference."""
    return {
        head: label,
        "real": text_of(share["real"]),
        "generated": text_of(share["generated"]),
        **measured.cells(share["difference"], name="generated - real"),
    }


def _overall_row(label: str, found: Mapping[str, Any]) -> dict[str, str]:
    """Real efficiency with its error, generated efficiency, and the difference."""
    row = _share_row("rows", label, found)
    return row | {"real": with_error(found["real"], found["real_error"])}
