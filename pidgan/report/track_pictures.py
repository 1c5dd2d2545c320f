"""Pictures of tracks: efficiencies, targets, correlations and conditions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pidgan.efficiency.binning import bin_shape
from pidgan.efficiency.real_vs_generated import RealVsGenerated
from pidgan.report.page import Picture
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
    return Picture(figure, f"{label} against {condition} for {cut}.")


def plane(item: RealVsGenerated, cut: str) -> Picture:
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
        f"Generated minus real efficiency of {item.species} (left) and its pull "
        f"(right) in bins of {' and '.join(item.binning)}.",
    )


def target(rows: TrackRows, t: int) -> list[Picture]:
    """Distribution of one target over all rows, and its tails."""
    name = rows.sample.targets[t].name
    figure = plot_target(*_pair(rows, t), **_options(rows, t), tail=True)
    return [Picture(figure, f"{name}, all rows.")]


def target_in_bins(rows: TrackRows, t: int, edges: Edges) -> list[Picture]:
    """Distributions of one target in kinematic bins, and in those of the others."""
    name, conditions = rows.sample.targets[t].name, rows.sample.conditions
    binnings = [(" and ".join(edges), edges)]
    for c, variable in enumerate(conditions[2:], start=2):
        own = quantile_edges(rows.real.conditions[:, c], PANELS_OF_CONDITION)
        binnings.append((variable.name, {variable.name: own}))
    pictures = []
    for text, binning in binnings:
        index = rows.bins(rows.real, binning)
        panels = [
            (label, index == b)
            for b, label in enumerate(bin_labels(rows, binning))
            if (index == b).any()
        ]
        figure = plot_target(*_pair(rows, t), **_options(rows, t), panels=panels)
        pictures.append(Picture(figure, f"{name} in quantile bins of {text}."))
    return pictures


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
    figure = plot_correlation(
        edges, *arrays, condition=condition, unit=units[condition], title=pair
    )
    return Picture(
        figure,
        f"Correlation of {pair} against {condition}. Below: the difference, whose "
        "error takes into account that the rows are the same.",
    )


def two_targets(pair: str, found: Mapping[str, Any], rows: TrackRows) -> Picture:
    """Plane of two targets in bins of the first condition, real beside generated."""
    first, second = pair.split(", ")
    names = rows.sample.target_names
    i, j = names.index(first), names.index(second)
    condition = next(iter(found["edges"]))
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
    figure = plot_two_targets(
        *pairs,
        names=(first, second),
        weights=rows.real.weights,
        columns=columns,
    )
    return Picture(
        figure,
        f"{pair} in bins of {condition}: real rows above, generated rows below.",
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
    figure = plot_variables(panels, ratio="train / test", normalised=True)
    return [Picture(figure, "Conditions of test and train rows, both normalised to 1.")]


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
