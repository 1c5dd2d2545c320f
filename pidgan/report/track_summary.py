"""The summary of a report of tracks: what its verdict looks at, and its tables."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pidgan.report import page, report
from pidgan.report.page import Cell, Section, Table, pull_cell
from pidgan.report.plots.canvas import display_unit
from pidgan.report.projections import Looked, projection_figures, run_text
from pidgan.report.report import pull_of

WORST = 8  # figures that the summary shows at once


def main_figures(figures: Mapping[str, Any]) -> list[Looked]:
    """Label and figure of each line of the printed summary."""
    targets = figures["targets"]
    kinematic = next(iter(targets.values()))["in_bins"]["edges"]
    mean = f"mean in bins of {', '.join(kinematic)}"
    projected = figures["projections"]["targets"]
    found = [
        (f"weighted KS, {name}", f["ks"] | _pull(projected[name], "ks_pull"))
        for name, f in targets.items()
    ]
    found += [
        (
            f"KS, {name}, {mean}",
            f["in_bins"]["ks_mean"] | _pull(projected[name], "ks_in_bins_pull"),
        )
        for name, f in targets.items()
    ]
    found.append(("C2ST, AUC of the better classifier", _c2st(figures["c2st"])))
    for cut, f in figures["efficiency"].items():
        plane = figures["projections"]["efficiency"][cut]["map"]
        found.append(
            (f"gen - real efficiency, {cut}", with_pull(f["overall"]["difference"]))
        )
        pull = _pull(plane, "pull_rms_pull")
        found.append((f"pull rms in bins, {cut}", f["pull_rms"] | pull))
    return found


def further_figures(figures: Mapping[str, Any]) -> list[Looked]:
    """Label and figure of what else the verdict looks at."""
    found: list[Looked] = []
    for what, one in projections(figures):
        found += projection_figures(one, what)
    for species, cuts in figures["misid"].items():
        for cut, f in cuts.items():
            label = f"gen - real misID of {species}, {cut}"
            found.append((label, with_pull(f["overall"]["difference"])))
            plane = figures["projections"]["misid"][species][cut]["map"]
            label = f"pull rms in bins, misID of {species}, {cut}"
            found.append((label, f["pull_rms"] | _pull(plane, "pull_rms_pull")))
    for pair, f in figures["correlations"].items():
        found.append((f"correlation of {pair}", f["difference"]))
    for pair, f in figures["correlations_in_bins"].items():
        ((name, edges),) = f["edges"].items()
        scale, unit = display_unit(f["unit"])
        after = "" if unit == "1" else f" {unit}"
        for b, one in enumerate(f["bins"]):
            low, high = scale * edges[b], scale * edges[b + 1]
            where = f"{name} {low:.4g} to {high:.4g}{after}"
            found.append((f"correlation of {pair}, {where}", one["difference"]))
    for name, f in figures["targets"].items():
        for atom in f["atoms"]:
            label = f"share of {name} = {atom['value']:g}"
            found.append((label, with_pull(atom["difference"])))
    for pair, f in figures["ties"].items():
        found.append((f"share of {pair}", with_pull(f["difference"])))
    return found


def remark(figures: Mapping[str, Any]) -> str:
    """Return how far efficiencies are off: what a significant pull means for a cut."""
    differences = {
        cut: f["overall"]["difference"] for cut, f in figures["efficiency"].items()
    }
    known = {c: f for c, f in differences.items() if f["value"] is not None}
    if not known:
        return ""
    cut = max(known, key=lambda name: abs(known[name]["value"]))
    text = page.with_error(known[cut]["value"], known[cut]["error"], unit="%")
    return f"Of all cuts, the efficiency of {cut} differs most, by {text}."


def projections(figures: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what is projected, and the figures of the projection."""
    found = figures["projections"]
    yield from found["targets"].items()
    kinds = [("efficiency", found["efficiency"])]
    kinds += [(f"misID of {name}", cuts) for name, cuts in found["misid"].items()]
    for kind, cuts in kinds:
        for cut, by_condition in cuts.items():
            for name, one in by_condition.items():
                where = "in two conditions" if name == "map" else f"against {name}"
                if one and "chi2" in one:
                    yield f"{kind} {where}, {cut}", one


def summary_section(
    figures: Mapping[str, Any], looked: Sequence[Looked], conditions: Sequence[str]
) -> Section:
    """The worst figures, and all of them folded below."""
    ranked = sorted(
        looked, key=lambda pair: -(p if (p := pull_of(pair[1])) is not None else -99.0)
    )
    return Section(
        title="Summary",
        text=(
            "The floor is the same figure for real rows against real rows "
            f"({figures['floor']}). A pull is the number of standard deviations by "
            "which a figure is worse than that of a perfect generator: for the same "
            "rows, after real and generated targets have been exchanged in a random "
            "half of them; for the C2ST it is the distance from the floor. The AUC of "
            "a classifier is 0.5 if it cannot tell generated from real rows."
        ),
        tables=[report.figure_table(ranked[:WORST], title="Worst figures", rows=False)],
        parts=[
            Section(
                title="Main figures",
                tables=[report.figure_table(main_figures(figures), rows=False)],
                folded=True,
            ),
            Section(
                title="Projections: chi2, largest pull, largest run",
                text="A run is a set of neighbouring bins whose pulls have one sign; "
                "its chi2 is the sum of their squares. It sees a coherent distortion "
                "whose single pulls are small. Beside each figure stands its own pull, "
                "which takes into account how many bins were looked at. The "
                f"conditions are {', '.join(conditions)}.",
                tables=[projection_table(figures)],
                folded=True,
            ),
            Section(
                title=f"All {len(looked)} figures, the worst first",
                tables=[report.figure_table(ranked, rows=False)],
                folded=True,
            ),
        ],
    )


def projection_table(figures: Mapping[str, Any]) -> Table:
    """The table of all projections."""
    return Table([projection_row(what, one) for what, one in projections(figures)])


def projection_row(what: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the table of projections."""
    row: dict[str, Any] = {
        "projection": what,
        "chi2 / ndf": f"{found['chi2']:.1f} / {found['ndf']}",
        "of chi2": pull_cell(found["chi2_pull"]),
        "largest pull": Cell(
            text=f"{found['largest_pull']:+.1f} at {found['largest_at']}", level="text"
        ),
        "of the pull": pull_cell(found["largest_pull_pull"]),
    }
    if "run_chi2" in found:
        bins = "1 bin" if found["run_bins"] == 1 else f"{found['run_bins']} bins"
        text = f"{found['run_chi2']:.1f} in {bins}, {run_text(found)}"
        row["largest run"] = Cell(text=text, level="text")
        row["of the run"] = pull_cell(found["run_pull"])
    return row


def _c2st(figure: report.Measured) -> report.Measured:
    """Return the C2ST with its pull; a floor below 0.5 is a fluctuation."""
    if figure["value"] is None or figure["floor"] is None:
        return figure
    raised = figure | {"floor": max(figure["floor"], 0.5)}
    return figure | {"pull": pull_of(raised)}


def with_pull(difference: report.Measured) -> report.Measured:
    """Return a difference, which is 0 for a perfect generator, with its pull."""
    if difference["value"] is None or not difference["error"]:
        return difference | {"pull": None}
    return difference | {"pull": abs(difference["value"]) / difference["error"]}


def _pull(found: Mapping[str, Any] | None, name: str) -> dict[str, Any]:
    """The pull of exchanged rows, for a figure that has one."""
    pull = (found or {}).get(name)
    return {} if pull is None else {"pull": pull}
