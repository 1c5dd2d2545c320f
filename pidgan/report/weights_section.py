"""The section of a validation that questions the sWeights.

sWeights need a discriminant that is independent of conditions and response within
signal and within background (`pidgan.sample.independence`). The figures are p-values of
this, for the cuts of the report, for the targets and for the conditions.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from pidgan.arrays import FloatArray
from pidgan.errors import FitError
from pidgan.report.page import Picture, Section, Table, pull_cell
from pidgan.report.plots.control import plot_response
from pidgan.report.track_figures import TrackRows, take
from pidgan.sample.definition import Discriminant
from pidgan.sample.independence import (
    Independence,
    check_independence,
    mass_and_conditions,
    signal_share,
)

MOST_ROWS = 100_000
"""Rows that are tested at most."""

CURVE_BINS = 20
"""Bins of equal population in the discriminant, in the pictures."""

LEVEL = 0.01
"""Chance of the smallest p-value of several from which the report says so."""


def weight_figures(rows: TrackRows, cuts: Sequence[str]) -> dict[str, Any]:
    """Return the p-values, or the reason why there are none."""
    sample = rows.sample
    if sample.unweighted:
        return {"tested": False, "reason": "the sample has no weights"}
    if sample.discriminant is None:
        return {
            "tested": False,
            "reason": "the weights were given, and their discriminant is not known",
        }
    real = take(rows.real, slice(MOST_ROWS))
    real = take(real, rows.counted(real))
    mass = real.discriminant
    if not np.isfinite(mass).all():
        return {
            "tested": False,
            "reason": "the dataset does not have the discriminant: prepare it again",
        }
    shape = sample.discriminant
    conditions = real.conditions.astype(np.float64)
    columns = {name: x.astype(np.float64) for name, x in rows.columns(real).items()}
    passed = dict(zip(cuts, rows.passing(real, cuts).astype(np.float64), strict=True))
    try:
        share = signal_share(mass, shape, source=sample.name)
        found = check_independence(mass, passed, conditions, shape, source=sample.name)
        others = mass_and_conditions(mass, columns, shape, source=sample.name)
    except FitError as error:
        return {"tested": False, "reason": str(error)}
    return {
        "tested": True,
        "discriminant": shape.branch,
        "unit": shape.unit,
        "rows": len(mass),
        "cuts": {name: _figure(one) for name, one in found.items()},
        "conditions": {name: _figure(one) for name, one in others.items()},
        "curves": {cut: _curve(mass, share, r, shape) for cut, r in passed.items()},
    }


def _figure(one: Independence) -> dict[str, Any]:
    names = ("chi2", "n_dof", "p_value", "pulls", "n_strata", "few", "significance")
    return {name: getattr(one, name) for name in names}


def _curve(
    mass: FloatArray, share: FloatArray, response: FloatArray, shape: Discriminant
) -> dict[str, Any]:
    """Return the share that passes in bins of the discriminant, and what is expected.

    What is expected is linear in the share of signal.
    """
    edges = np.unique(np.quantile(mass, np.linspace(0, 1, CURVE_BINS + 1)))
    place = np.clip(np.searchsorted(edges, mass, side="right") - 1, 0, len(edges) - 2)
    basis = np.column_stack([np.ones(len(share)), share])
    known, *_ = np.linalg.lstsq(basis, response, rcond=None)
    n = np.maximum(np.bincount(place, minlength=len(edges) - 1), 1)
    mean = np.bincount(place, response, len(n)) / n
    expected = np.bincount(place, basis @ known, len(n)) / n
    p = np.clip(expected, 0.5 / n, 1 - 0.5 / n)
    error = np.sqrt(p * (1 - p) / n)
    return {
        "edges": edges.tolist(),
        "share": mean.tolist(),
        "error": error.tolist(),
        "expected": expected.tolist(),
    }


def weights_section(figures: Mapping[str, Any]) -> Iterator[Section]:
    """Yield the section, if the sample has weights."""
    found = figures.get("independence", {"tested": False, "reason": ""})
    if not found["tested"]:
        if found["reason"]:
            text = f"Independence is not tested: {found['reason']}."
            yield Section(title="Are the sWeights right?", text=text)
        return
    rows = [
        _row("cut at given conditions", name, one)
        for name, one in found["cuts"].items()
    ]
    rows += [_row("condition", name, one) for name, one in found["conditions"].items()]
    pictures = [
        Picture(
            partial(
                plot_response,
                curve["edges"],
                (curve["share"], curve["error"]),
                curve["expected"],
                name=found["discriminant"],
                unit=found["unit"],
                cut=cut,
            ),
            f"Share of all rows that pass {cut} in bins of {found['discriminant']}. "
            "The line is what the share of signal gives if neither the response of "
            "signal nor that of background depends on it. Conditions that change with "
            "the discriminant, as the table shows them, move points too.",
            name=f"discriminant {cut}",
        )
        for cut, curve in found["curves"].items()
    ]
    yield Section(
        title="Are the sWeights right?",
        text=(
            f"sWeights need {found['discriminant']} to be independent of conditions "
            "and response, within signal and within background. A small p-value says "
            "that it is not. The pulls say where: a response that rises with position "
            "or width of the signal, or with slope or curvature of the background. "
            f"{_verdict(found)}"
        ),
        tables=[Table(rows)],
        pictures=pictures,
    )


def _row(kind: str, name: str, one: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "": f"{name} ({kind})",
        "p-value": f"{one['p_value']:.2g}",
        "sigma": pull_cell(one["significance"]),
        **{where: f"{pull:+.1f}" for where, pull in one["pulls"].items()},
        "remark": "few rows" if one["few"] else "",
    }


def _verdict(found: Mapping[str, Any]) -> str:
    """Say in one sentence what the p-values are together."""
    every = {**found["cuts"], **found["conditions"]}
    worst = min(every, key=lambda name: every[name]["p_value"])
    chance = min(1.0, len(every) * every[worst]["p_value"])
    if chance >= LEVEL:
        return f"None of {len(every)} p-values is smaller than chance allows."
    return (
        f"The smallest of {len(every)} p-values, {every[worst]['p_value']:.1g} for "
        f"{worst}, is not chance: compare the efficiencies with mass fits in bins, the "
        "variation fit_and_count of the efficiency map."
    )
