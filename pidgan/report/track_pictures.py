"""Pictures of tracks: efficiencies, targets, correlations and conditions."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from pidgan.efficiency.binning import bin_shape
from pidgan.efficiency.real_vs_generated import RealVsGenerated
from pidgan.report.page import Picture
from pidgan.report.plots import Figure
from pidgan.report.plots.canvas import SIGNAL
from pidgan.report.plots.efficiencies import plot_efficiency, plot_map
from pidgan.report.plots.targets import (
    plot_correlation,
    plot_target,
    plot_two_targets,
)
from pidgan.report.plots.variables import Drawn, Panel, plot_variables
from pidgan.report.track_cuts import quantile_edges
from pidgan.report.track_figures import Edges, TrackRows
from pidgan.sample.grids import find_grid

PANELS_OF_CONDITION = 3  # quantile bins of each condition beyond the first two
PLANES = 3  # bins of the first condition in which two targets are drawn


def efficiency(item: RealVsGenerated, cut: str, *, label: str) -> Picture:
    """Efficiency against one condition, over all of its range."""
    ((condition, edges),) = item.binning.items()
    i = item.cuts.index(cut)
    real, generated = (
        (table.efficiency[i], [table.lower[i], table.upper[i]])
        for table in (item.real, item.generated)
    )
    draw = partial(
        plot_efficiency,
        edges,
        real,
        generated,
        (item.difference[i], item.difference_error[i]),
        condition=condition,
        unit=item.units[0],
        cut=cut,
        label=label,
    )
    name = f"{label[:1].lower()}{label[1:]}, {cut}, {condition}"
    return Picture(draw, f"{label} against {condition} for {cut}.", name)


def plane(item: RealVsGenerated, cut: str) -> Picture:
    """Difference and pull in two conditions; in one, as a map of one row."""
    names, edges = list(item.binning), list(item.binning.values())
    if len(names) == 1:
        names, edges = [*names, ""], [*edges, (0.0, 1.0)]
    shape = (len(edges[0]) - 1, len(edges[1]) - 1)
    i = item.cuts.index(cut)
    draw = partial(
        plot_map,
        edges[0],
        edges[1],
        item.difference[i].reshape(shape),
        item.difference_error[i].reshape(shape),
        names=(names[0], names[1]),
        units=(item.units[0], item.units[1] if len(item.units) > 1 else "1"),
        cut=cut,
    )
    return Picture(
        draw,
        f"Generated minus real efficiency of {item.species} (left) and its pull "
        f"(right) in bins of {' and '.join(item.binning)}.",
        f"plane {cut}",
    )


def target(rows: TrackRows, t: int) -> list[Picture]:
    """Distribution of one target over all rows, and its tails."""
    name = rows.sample.targets[t].name
    draw = partial(_draw_target, rows, t, tail=True)
    return [Picture(draw, f"{name}, all rows.", name)]


def target_in_bins(rows: TrackRows, t: int, edges: Edges) -> list[Picture]:
    """Distributions of one target in kinematic bins, and in those of the others."""
    name, conditions = rows.sample.targets[t].name, rows.sample.conditions
    binnings = [(" and ".join(edges), edges)]
    for c, variable in enumerate(conditions[2:], start=2):
        own = quantile_edges(rows.real.conditions[:, c], PANELS_OF_CONDITION)
        binnings.append((variable.name, {variable.name: own}))
    return [
        Picture(
            partial(_draw_in_bins, rows, t, binning),
            f"{name} in quantile bins of {text}.",
            f"{name} in bins of {text}",
        )
        for text, binning in binnings
    ]


def _draw_target(
    rows: TrackRows, t: int, *, panels: Any = (), tail: bool = False
) -> Figure:
    real, generated = _pair(rows, t)
    options = _options(rows, t)
    return plot_target(real, generated, panels=panels, tail=tail, **options)


def _draw_in_bins(rows: TrackRows, t: int, binning: Edges) -> Figure:
    """Draw one target in a panel for each bin that has rows."""
    index = rows.bins(rows.real, binning)
    panels = [
        (label, index == b)
        for b, label in enumerate(bin_labels(rows, binning))
        if (index == b).any()
    ]
    return _draw_target(rows, t, panels=panels)


def correlation(pair: str, found: Mapping[str, Any], rows: TrackRows) -> Picture:
    """Correlation of two targets against the first condition."""
    ((condition, edges),) = found["edges"].items()
    units = {v.name: v.package_unit for v in rows.sample.conditions}
    arrays = [
        np.array(values, dtype=np.float64)
        for values in zip(
            *(
                (one["real"], one["generated"], one["difference"]["error"])
                for one in found["bins"]
            ),
            strict=True,
        )
    ]
    draw = partial(
        plot_correlation,
        edges,
        *arrays,
        condition=condition,
        unit=units[condition],
        title=pair,
    )
    return Picture(
        draw,
        f"Correlation of {pair} against {condition}. Below: the difference, whose "
        "error takes into account that the rows are the same.",
        f"correlation of {pair}",
    )


def two_targets(pair: str, found: Mapping[str, Any], rows: TrackRows) -> Picture:
    """Plane of two targets in bins of the first condition, real beside generated."""
    condition = next(iter(found["edges"]))
    return Picture(
        partial(_draw_two_targets, pair, condition, rows),
        f"{pair} in bins of {condition}: real rows above, generated rows below.",
        f"plane of {pair}",
    )


def _draw_two_targets(pair: str, condition: str, rows: TrackRows) -> Figure:
    """Draw real and generated rows in the plane of two targets."""
    first, second = pair.split(", ")
    names = rows.sample.target_names
    i, j = names.index(first), names.index(second)
    edges = {condition: quantile_edges(rows.real.conditions[:, 0], PLANES)}
    index = rows.bins(rows.real, edges)
    columns = [
        (label, label, index == b)
        for b, label in enumerate(bin_labels(rows, edges))
        if (index == b).any()
    ]
    pairs = []
    for part in (rows.real, rows.generated):
        values = part.targets[:, [i, j]].astype(np.float64)
        for k, t in enumerate((i, j)):
            values[np.isin(values[:, k], rows.sample.targets[t].sentinels)] = np.nan
        pairs.append((values[:, 0], values[:, 1]))
    return plot_two_targets(
        *pairs,
        names=(first, second),
        weights=rows.real.weights,
        columns=columns,
    )


def conditions(rows: TrackRows) -> list[Picture]:
    """Conditions of test rows beside those of the train rows."""
    if not rows.floors:
        return []
    x = np.concatenate([floor.conditions for floor in rows.floors])
    w = np.concatenate([floor.weights for floor in rows.floors])
    panels = [
        Panel(
            name=variable.name,
            unit=variable.package_unit,
            samples=[
                Drawn(
                    values=rows.real.conditions[:, c],
                    weights=rows.real.weights,
                    label="test",
                ),
                Drawn(
                    values=x[:, c],
                    weights=w,
                    label="train",
                    colour=SIGNAL,
                    kind="line",
                ),
            ],
        )
        for c, variable in enumerate(rows.sample.conditions)
    ]
    draw = partial(plot_variables, panels, ratio="train / test", normalised=True)
    caption = "Conditions of test and train rows, both normalised to 1."
    return [Picture(draw, caption, "conditions")]


def bin_labels(rows: TrackRows, edges: Mapping[str, Sequence[float]]) -> list[str]:
    """Text of each bin, momenta in GeV."""
    units = {v.name: v.package_unit for v in rows.sample.conditions}
    labels = []
    for place in np.ndindex(bin_shape(edges)):
        parts = []
        for (name, ends), i in zip(edges.items(), place, strict=True):
            scale, unit = (1e-3, " GeV") if units[name] == "MeV" else (1.0, "")
            low, high = ends[i] * scale, ends[i + 1] * scale
            parts.append(f"{name} {low:.3g}-{high:.3g}{unit}")
        labels.append(", ".join(parts))
    return labels


def _pair(rows: TrackRows, t: int) -> tuple[Any, Any]:
    return rows.real.targets[:, t], rows.generated.targets[:, t]


def _options(rows: TrackRows, t: int) -> dict[str, Any]:
    variable = rows.sample.targets[t]
    return {
        "name": variable.name,
        "unit": variable.package_unit,
        "weights": rows.real.weights,
        "sentinels": variable.sentinels,
        "grid": find_grid(rows.real.targets[:, t], sentinels=variable.sentinels),
    }
