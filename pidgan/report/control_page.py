"""The page of a control channel."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pidgan.arguments import checked
from pidgan.efficiency.control_result import ControlClosure, CutClosure
from pidgan.files.writing import refuse_existing
from pidgan.report.index_page import refresh_index
from pidgan.report.page import Picture, Section, Table, with_error, write_page
from pidgan.report.plots.control import plot_control, plot_pulls
from pidgan.report.verdict import chi2_pull, judge


@checked
def write_control_report(
    control: ControlClosure | str | Path,
    directory: str | Path,
    *,
    overwrite: bool = False,
) -> Path:
    """Write report.html of a control channel to a directory, and return its path.

    Args:
        control: Result of `closure`, or its JSON file.
        directory: Directory to write into; a new one appears complete or not at all.
        overwrite: Whether the report in an existing directory is replaced.

    Raises:
        PidganError: The directory exists and `overwrite` is not set.
    """
    refuse_existing(directory, overwrite=overwrite)
    found = ControlClosure.open(control)
    looked = [
        (f"control - predicted, {one.cut}", chi2_pull(one.chi2, one.n_dof))
        for one in found
    ]
    how = "mass fits" if found.method == "fits" else "weights"
    made = "the bundle and its map" if found.has_generator else "the map alone"
    path = write_page(
        directory,
        f"Control channel: {found.species}",
        _sections(found),
        lead=(
            f"{found.n_rows} candidates, {found.n_eff:.0f} effective, counted by "
            f"{how}. The prediction is that of {made}."
        ),
        verdict=judge(
            looked,
            more="The floor of a difference is 0. The chi-squared has the covariance "
            "of the control sample and of the map.",
        ),
        overwrite=overwrite,
    )
    refresh_index(path)
    return path


def _sections(found: ControlClosure) -> Iterator[Section]:
    """Summary of all cuts with the pulls, and a section for each cut."""
    frame = found.frame()
    pulls = {one.cut: frame.loc[frame["cut"] == one.cut, "pull"] for one in found}
    left_out = [f"{n} rows: {why}" for why, n in found.dropped.items()]
    outside = (
        f"{found.n_outside} rows lie outside the map "
        f"({100 * found.outside_fraction:.2f} % of the weights) and are left out. "
    )
    yield Section(
        title="Summary",
        text=(
            "The factor is the ratio of the efficiency in the control channel to the "
            "predicted one, over all candidates. The first p-value is that of no "
            "difference, the second that of a factor that is the same in all bins. "
            f"{outside if found.n_outside else ''}"
            f"{'Left out: ' + '; '.join(left_out) + '.' if left_out else ''}"
        ),
        tables=[Table([_row(one) for one in found])],
        pictures=[
            Picture(
                plot_pulls(pulls, axis_name=f"bin of {' and '.join(found.binning)}"),
                "Pulls in the bins of the comparison. The bands are one and two "
                "standard deviations. Bins share the uncertainty of the map, so that "
                "their pulls are not independent.",
                "pulls",
            )
        ],
    )
    for one in found:
        yield _cut_section(found, one)


def _row(one: CutClosure) -> dict[str, Any]:
    return {
        "cut": one.cut,
        "control": with_error(one.control, one.control_error, unit="%"),
        "predicted": with_error(one.predicted, one.predicted_error, unit="%"),
        "factor": with_error(one.factor, one.factor_error),
        "chi2": f"{one.chi2:.1f} for {one.n_dof}",
        "p-value": f"{one.p_value:.2g}",
        "p-value, constant": f"{one.constant_p_value:.2g}",
        "remark": ", ".join(one.flags),
    }


def _cut_section(found: ControlClosure, one: CutClosure) -> Section:
    """The efficiencies of a cut in bins, as curves and as a table."""
    frame = found.frame()
    own = frame[frame["cut"] == one.cut]
    names = list(found.binning)
    edges = np.arange(len(own) + 1) + 0.5
    axis_name = f"number of the bin of {' and '.join(names)}"
    if len(names) == 1:
        edges, axis_name = np.array(found.binning[names[0]]), names[0]
    figure = plot_control(
        edges,
        (own["control"], own["control_error"]),
        (own["predicted"], own["predicted_error"]),
        axis_name=axis_name,
        cut=one.cut,
    )
    rows = []
    for _, line in own.iterrows():
        ends = [(n, line[f"{n}_low"], line[f"{n}_high"]) for n in names]
        where = {n: f"{low:.4g} to {high:.4g}" for n, low, high in ends}
        rows.append(
            {
                **where,
                "control": with_error(line["control"], line["control_error"], unit="%"),
                "predicted": with_error(
                    line["predicted"], line["predicted_error"], unit="%"
                ),
                "ratio": with_error(line["ratio"], line["ratio_error"]),
                "pull": f"{line['pull']:+.1f}",
                "effective rows": f"{line['n_eff']:.0f}",
            }
        )
    text = " ".join(f"A mass fit failed: {problem}." for problem in one.problems)
    caption = (
        f"Efficiency of {one.cut} in the control channel (points), and the predicted "
        "one with the uncertainty of the map. Below: their ratio."
    )
    return Section(
        title=one.cut,
        text=text,
        pictures=[Picture(figure, caption, f"control {one.cut}")],
        tables=[Table(rows)],
    )
