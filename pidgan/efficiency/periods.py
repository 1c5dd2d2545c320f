"""Efficiencies of several periods, combined by their shares of the luminosity.

An ntuple that does not say to which period a row belongs, as simulation often does not,
has columns of the bundle of each period, with suffixes of their own. The efficiency is
then the mean over the periods, weighted by their shares. Rows that several periods have
in common fluctuate together, and the errors of their maps are independent.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pidgan.application.conditions import Conditions
from pidgan.efficiency.columns import write_columns
from pidgan.efficiency.columns_written import EfficiencyColumns
from pidgan.efficiency.estimates import Estimates
from pidgan.efficiency.period_maps import check_periods, check_shares, suffix_of
from pidgan.efficiency.pid_efficiency import PidEfficiencies
from pidgan.efficiency.quoted import PidEfficiency
from pidgan.efficiency.track_maps import GivenMap, Maps
from pidgan.errors import MapError
from pidgan.files.frames import Rows

SUMMED = ("value", "stat", "syst", "total")


def efficiency_of_periods(
    periods: Sequence[Maps],
    shares: Sequence[float],
    files: Rows,
    *,
    evaluate: Callable[..., PidEfficiencies],
    suffix: str = "",
    binning: Any = None,
    all_cuts: bool = False,
) -> PidEfficiencies:
    """Return the efficiency on ntuples, averaged over periods.

    Args:
        periods: Maps by track of each period.
        shares: Share of the luminosity of each period; they sum to 1.
        files: Files, or rows in memory, with columns of the bundle of each period.
        evaluate: `pid_efficiency` with all other arguments; it gets maps, files,
            `suffix` and `binning`.
        suffix: Suffix of the columns, if it is the same for all periods.
        binning: Bins of the analysis.
        all_cuts: Whether all cuts of the maps are meant.

    Returns:
        The combined efficiencies, one for each selection and bin.

    Raises:
        MapError: Shares do not sum to 1, or maps do not go together.
    """
    check_shares(shares)
    check_periods(periods, all_cuts=all_cuts)
    found: list[PidEfficiencies] = []
    for maps in periods:
        own = suffix or suffix_of(maps, files)
        edges = found[0].binning if found else binning
        found.append(evaluate(maps, files, suffix=own, binning=edges))
    return combine_periods(found, shares)


def columns_of_periods(
    periods: Sequence[Mapping[str, GivenMap]],
    shares: Sequence[float],
    files: Rows,
    output: str | Path | None = None,
    *,
    cuts: str | Sequence[str] | None = None,
    where: str | None = None,
    species_from: str | None = None,
    suffix: str = "",
    conditions: Conditions | None = None,
    eigenvariations: bool = False,
    replicas: int = 0,
    seed: int = 1,
    trust: bool = False,
    overwrite: bool = False,
    chunk: int = 200_000,
) -> EfficiencyColumns:
    """Write friend trees with the efficiency of each candidate, averaged over periods.

    Args:
        periods: Maps by track of each period.
        shares: Share of the luminosity of each period; they sum to 1.
        files: Files, or rows in memory, with columns of the bundle of each period.
        output: File of the same format, or a directory for several files.
        cuts: Selections, as all further arguments in `write_efficiency_columns`.
        where: Denominator.
        species_from: NAME of the branches with PDG ids.
        suffix: Suffix of the columns, if it is the same for all periods.
        conditions: Branches, units, scales and quantile maps of conditions.
        eigenvariations: Whether to add columns of the eigenvariations.
        replicas: Number of columns of replicas.
        seed: Seed of the replicas.
        trust: Whether to go on without proof.
        overwrite: Whether to replace existing files.
        chunk: Number of entries read at a time.

    Returns:
        The files written. A candidate that is outside the map of one period has no
        efficiency.

    Raises:
        MapError: Shares do not sum to 1, or maps do not go together.
    """
    return write_columns(
        periods,
        shares,
        files,
        output,
        cuts=cuts,
        where=where,
        species_from=species_from,
        suffix=suffix,
        conditions=conditions,
        eigenvariations=eigenvariations,
        replicas=replicas,
        seed=seed,
        trust=trust,
        overwrite=overwrite,
        chunk=chunk,
    )


def combine_periods(
    found: Sequence[PidEfficiencies], shares: Sequence[float]
) -> PidEfficiencies:
    """Return the mean of the efficiencies of periods, which have the same selections.

    A MapError says that shares do not sum to 1, or that selections or bins differ.
    """
    check_shares(shares)
    first = found[0]
    for one in found[1:]:
        if one.estimates.labels != first.estimates.labels:
            raise MapError(
                f"periods have the efficiencies {', '.join(first.estimates.labels)} "
                f"and {', '.join(one.estimates.labels)}, expected the same"
            )
    estimates = mean_estimates([one.estimates for one in found], shares)
    results = tuple(
        _mean([one.results[i] for one in found], shares, estimate)
        for i, estimate in enumerate(estimates)
    )
    names = [f"period {number}" for number in range(1, len(found) + 1)]
    return replace(
        first,
        results=results,
        estimates=estimates,
        unproven=tuple(dict.fromkeys(text for one in found for text in one.unproven)),
        outside={
            f"{track} ({name})": own
            for name, one in zip(names, found, strict=True)
            for track, own in one.outside.items()
        },
        sample_cuts={
            f"{track} ({name})": own
            for name, one in zip(names, found, strict=True)
            for track, own in one.sample_cuts.items()
        },
        n_uncovered=max(one.n_uncovered for one in found),
        n_not_among=max(one.n_not_among for one in found),
    )


def mean_estimates(found: Sequence[Estimates], shares: Sequence[float]) -> Estimates:
    """Return the mean of estimates of periods, with the labels of the first."""
    total: Estimates = found[0] * shares[0]
    for one, share in zip(found[1:], shares[1:], strict=True):
        total = total + one * share
    return replace(total, labels=found[0].labels)


def _mean(
    parts: Sequence[PidEfficiency], shares: Sequence[float], estimate: Any
) -> PidEfficiency:
    """Return one efficiency of all periods; counts are those of the most rows."""
    f = np.asarray(shares)
    generated = float(f @ [one.generated for one in parts])
    flags = dict.fromkeys(flag for one in parts for flag in one.flags)
    most = max(parts, key=lambda one: one.n_rows)
    return replace(
        most,
        **{name: getattr(estimate, name) for name in SUMMED},
        generated=generated,
        correction=float(f @ [one.correction for one in parts]),
        outside_fraction=float(f @ [one.outside_fraction for one in parts]),
        n_invalid=max(one.n_invalid for one in parts),
        few_events=any(one.few_events for one in parts),
        flags=tuple(flags),
    )
