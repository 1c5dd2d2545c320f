"""A control channel beside the efficiency that generator and map predict for it.

Row i of the control sample has a weight w_i (of any sign), r_i = 1 if its real response
passes the cut, and a prediction p_i at its conditions: the efficiency of its bin in the
map or, with the bundle, the share of its generated draws that pass, plus the
discrepancy of the bin. In bin k of the comparison

    c_k = sum w r / sum w,    p_k = sum w p / sum w,    D_k = c_k - p_k;

where signal is counted by mass fits of the rows that pass and that fail, c_k is the
fitted efficiency. The covariance of D is that of the control sample, sum w^2 (r - p)^2
/ (sum w)^2, in which the conditions are shared, plus F C F^T and (F v)(F v)^T of the
map, with the shares F_kb of the rows of bin k in bin b of the map, its covariance C and
its variations v. chi2 = D^T V^-1 D has as many degrees of freedom as bins.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pidgan.application.conditions import Conditions
from pidgan.application.generators import generator_hash
from pidgan.arguments import checked
from pidgan.bundle import reference as reference_rows
from pidgan.bundle.card import Generator
from pidgan.bundle.opening import GivenGenerator, open_generator
from pidgan.efficiency import binning as bins
from pidgan.efficiency.control_result import ControlClosure, CutClosure
from pidgan.efficiency.control_rows import (
    ControlFiles,
    ControlRows,
    check_species,
    opened_dataset,
    parsed_cuts,
    rows_of_dataset,
    rows_of_files,
)
from pidgan.efficiency.control_sums import (
    Comparison,
    chi2_of,
    chi2_of_constant,
    p_value_of,
)
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.map_averages import REFERENCE
from pidgan.efficiency.shared_rows import shared_share
from pidgan.errors import FitError, MapError, PidganWarning
from pidgan.files.tables import find_sources
from pidgan.sample.cuts import cut_texts
from pidgan.sample.definition import Discriminant
from pidgan.sample.weights import n_eff

BINS = 5
"""Bins of equal population of the first condition of the map, if none are given."""

MIN_BIN_EFF = 20.0
"""Effective rows below which a bin does not count in chi2."""

SAME = 0.01
"""Share of rows that made the map too, above which the control sample is none."""

LEVEL = 0.05
"""p-value of a constant factor below which its error is scaled, and it is flagged."""

FAR = 1.5
"""Factor, or its inverse, from which it is flagged as far from 1."""

STREAM = "control"
"""Name of the random draws."""


@checked
def closure(
    efficiency_map: EfficiencyMap | str | Path,
    control: Any,
    *,
    generator: GivenGenerator | None = None,
    cuts: str | Sequence[str] | None = None,
    binning: bins.Binning | None = None,
    species: str | None = None,
    track: str = "",
    weights: str | None = None,
    mass: Discriminant | None = None,
    unweighted: bool = False,
    count: bool = False,
    targets: Mapping[str, str] | None = None,
    suffix: str = "",
    conditions: Conditions | None = None,
    seed: int = 1,
    repeats: int = reference_rows.REPEATS,
) -> ControlClosure:
    """Compare a control channel with the efficiency that is predicted for it.

    Args:
        efficiency_map: Efficiency map, or its JSON file.
        control: Control sample with real PID variables: a dataset or its folder, or
            files, `FILE:TREE` or patterns, or rows in memory.
        generator: Generator of the map, from which draws are made at the conditions of
            each row; without it, rows have the efficiency of their bin in the map.
        cuts: Cuts of the map; None stands for all.
        binning: Bins of the comparison, in conditions of the map or in any branch; by
            default five bins of equal population in the first condition of the map.
        species: PDG name of the tracks in files, "K+"; a dataset has its own.
        track: Prefix of the branches of the track in files.
        weights: Branch with weights, such as sWeights.
        mass: Branch, range and shapes of a mass, in which signal is counted by fits of
            the rows that pass and that fail, in each bin.
        unweighted: Whether files have no background, and neither weights nor a mass.
        count: Whether signal of a dataset is counted by mass fits, instead of its
            weights.
        targets: Branch by target in files, where it is not {track}_{target}{suffix}.
        suffix: End of the names of targets in files.
        conditions: Branches and units of conditions in files.
        seed: Seed of the generated draws.
        repeats: Generated draws per row.

    Returns:
        Both efficiencies with chi2 and p-value, and the factor between them.

    Raises:
        MapError: The control sample is of another species or has no usable rows, or the
            generator is not that of the map.
        FitError: A mass fit fails.
        NtupleError: A file or branch is missing.

    Example:
        >>> given = {"species": "K+", "track": "Kplus", "weights": "sWeight"}
        >>> found = closure("kaon-map.json", "control.root", **given)
        ... # doctest: +SKIP
        >>> print(found.text())                                   # doctest: +SKIP
    """
    opened = EfficiencyMap.open(efficiency_map)
    _check_map(opened)
    texts = list(opened.cuts) if cuts is None else cut_texts(cuts)
    numbers = [opened.cut_index(text) for text in texts]
    parsed = parsed_cuts(opened, numbers)
    one = None if generator is None else open_generator(generator)
    if one is not None:
        _check_generator(opened, one)
    dataset = opened_dataset(control)
    if dataset is not None:
        if any((species, track, weights, mass, unweighted, targets, suffix)):
            raise ValueError(
                "control is a dataset, which has species, weights and branches of its "
                "own: expected no species, track, weights, mass, unweighted, targets "
                "or suffix"
            )
        rows = rows_of_dataset(dataset, opened, parsed, count=count)
    else:
        find_sources(control)  # a wrong name is said before what files need
        files = _files(species, track, weights, mass, unweighted, count)
        files |= {"targets": targets or {}, "suffix": suffix}
        given = ControlFiles(conditions=conditions or Conditions(), **files)
        rows = rows_of_files(
            control, given, opened, parsed, binning=binning, is_drawn=one is not None
        )
    return compare_control(
        rows,
        opened,
        numbers,
        binning=binning,
        generator=one,
        seed=seed,
        repeats=repeats,
    )


def _check_map(opened: EfficiencyMap) -> None:
    if opened.is_table:
        raise MapError("a table of efficiencies predicts nothing beyond its own sample")
    if opened.where:
        raise MapError(
            f"the efficiency map has the denominator {opened.where!r}; expected a map "
            "of all tracks (run systematics without --where)"
        )


def _files(
    species: str | None,
    track: str,
    weights: str | None,
    mass: Discriminant | None,
    unweighted: bool,
    count: bool,
) -> dict[str, Any]:
    """Return how files are read; a ValueError names what is missing or too much."""
    if not species:
        raise ValueError("species is missing: expected that of the track, such as 'K+'")
    given = {"weights": weights, "mass": mass, "unweighted": unweighted}
    stated = [name for name, value in given.items() if value]
    if len(stated) != 1:
        raise ValueError(
            "expected exactly one of weights, mass and unweighted, got "
            f"{' and '.join(stated) or 'none'}"
        )
    if count:
        raise ValueError("count is for datasets; files are fitted if a mass is given")
    return {"species": species, "track": track, "weights": weights, "mass": mass}


def _check_generator(opened: EfficiencyMap, generator: Generator) -> None:
    check_species(opened, generator.card.species, "the generator")
    sha256 = opened.metadata.get("bundle_sha256")
    if sha256 and generator_hash(generator) != sha256:
        raise MapError(
            f"the efficiency map was measured for another generator, sha256 "
            f"{str(sha256)[:12]}...; expected this one, or run systematics again"
        )


def compare_control(
    rows: ControlRows,
    efficiency_map: EfficiencyMap,
    numbers: Sequence[int],
    *,
    binning: bins.Binning | None = None,
    generator: Generator | None = None,
    seed: int = 1,
    repeats: int = reference_rows.REPEATS,
) -> ControlClosure:
    """Compare the rows of a control sample with their prediction."""
    place = efficiency_map.place(rows.columns)
    inside = place >= 0
    total = rows.weights[inside].sum()
    if not total > 0:
        raise MapError(
            f"{rows.source}: {np.count_nonzero(inside)} of {len(inside)} rows lie in "
            f"the bins of the map, with a sum of weights of {total:.6g}, expected a "
            "positive sum"
        )
    shared = _warn_of_shared(rows, efficiency_map)
    chosen = {next(iter(efficiency_map.binning)): BINS} if binning is None else binning
    columns = {name: values[inside] for name, values in rows.columns.items()}
    edges = bins.choose_edges(chosen, columns, rows.weights[inside])
    cell = np.where(inside, bins.bin_index(rows.columns, edges), -1)
    n_cells = bins.count_bins(edges)
    predicted = efficiency_map.discrepancy[list(numbers)][:, place]
    if generator is None:
        predicted = efficiency_map.nominal[list(numbers)][:, place]
    else:
        parsed = parsed_cuts(efficiency_map, numbers)
        x = np.stack([rows.columns[n] for n in generator.card.condition_names], axis=1)
        made = np.zeros(predicted.shape)
        for k in range(repeats):
            made += reference_rows.draw_passing(
                generator, parsed, x, seed=seed, track=f"{STREAM} {k}"
            )
        predicted = predicted + made / repeats
    work = Comparison(rows, efficiency_map, list(numbers), place, predicted)
    whole = work.compare(np.where(inside, 0, -1), 1)
    parts = work.compare(cell, n_cells)
    found = [
        _cut_closure(efficiency_map.cuts[number], i, whole, parts, work, shared)
        for i, number in enumerate(numbers)
    ]
    return ControlClosure(
        source=rows.source,
        species=rows.species,
        method="sweights" if rows.position is None else "fits",
        has_generator=generator is not None,
        cuts=tuple(found),
        binning={name: tuple(values) for name, values in edges.items()},
        n_rows=len(place),
        n_eff=n_eff(rows.weights[inside]),
        n_outside=int(np.count_nonzero(~inside)),
        outside_fraction=float(1 - total / rows.weights.sum()),
        dropped=rows.dropped,
        shared=shared,
        shares=work.shares(np.where(inside, 0, -1), 1)[0].tolist(),
        covariance=whole["joint"].tolist(),
        map_binning={n: tuple(e) for n, e in efficiency_map.binning.items()},
        bundle_sha256=efficiency_map.metadata.get("bundle_sha256"),
    )


def _warn_of_shared(rows: ControlRows, efficiency_map: EfficiencyMap) -> float:
    """Return the share of rows that made the map too, and warn of them; 0 if few.

    It is NaN, with a warning, if the map does not tell.
    """
    reference = efficiency_map.metadata.get(REFERENCE, {})
    shared = shared_share(reference, rows.columns)
    if shared <= SAME:
        return 0.0
    text = (
        f"{rows.source}: {shared:.0%} of its rows are reference rows of the map, so "
        "that both fluctuate together: this tests the arithmetic, not the map, and "
        "gives no transfer factor; use a sample that the generator and the map have "
        "not seen"
    )
    if math.isnan(shared):
        text = (
            f"{rows.source}: whether its rows made the map too is not known, as the "
            "map has no hashes of its reference rows: an older version made it, or its "
            "conditions do not tell rows apart; run systematics again, or make sure "
            "that the samples are different ones"
        )
    warnings.warn(text, PidganWarning, stacklevel=4)
    return shared


def _cut_closure(
    cut: str,
    i: int,
    whole: Mapping[str, Any],
    parts: Mapping[str, Any],
    work: Comparison,
    shared: float,
) -> CutClosure:
    """Return the comparison of one cut, in bins and of all rows."""
    if whole["problems"]:
        first = next(iter(whole["problems"].values()))
        raise FitError(f"{work.rows.source}, {cut}: {first}")
    c, p = parts["control"][i], parts["predicted"][i]
    stat = parts["variance"][i]
    of_map = work.map_covariance(i, parts["shares"])
    use = np.isfinite(c - p) & (parts["n_eff"] >= MIN_BIN_EFF)
    covariance = np.diag(np.nan_to_num(stat)) + of_map
    block = covariance[np.ix_(use, use)]
    chi2, n_dof = chi2_of((c - p)[use], block)
    constant, constant_dof = chi2_of_constant(c[use], p[use], block)
    constant_p = p_value_of(constant, constant_dof)
    value, mean = float(whole["control"][i, 0]), float(whole["predicted"][i, 0])
    if not mean > 0:
        raise MapError(
            f"{cut}: the predicted efficiency is {mean:.3g}, expected above 0"
        )
    factor = value / mean
    own = float(whole["variance"][i, 0])
    map_variance = float(work.map_covariance(i, whole["shares"])[0, 0])
    scale = np.sqrt(constant / constant_dof) if constant_p < LEVEL else 1.0
    nominal = float(whole["shares"][0] @ work.map.nominal[work.numbers[i]])
    n = float(whole["n_eff"][0])
    flags = {
        "same rows as the map": shared > 0,
        "rows of the map not known": math.isnan(shared),
        "far from 1": not 1 / FAR < factor < FAR,
        "not constant": constant_p < LEVEL,
        "few rows": n * min(value, 1 - value) < MIN_BIN_EFF,
        "poor mass fit": bool((parts["p_values"][i] < 1e-4).any()),
        "fits failed": any(number == i for number, _ in parts["problems"]),
        "bins left out": bool((~use).any()),
    }
    return CutClosure(
        cut=cut,
        control=value,
        control_error=float(np.sqrt(own)),
        predicted=mean,
        predicted_error=float(np.sqrt(map_variance)),
        filling=mean - nominal,
        factor=factor,
        factor_stat=float(np.sqrt(own)) * float(scale) / mean,
        factor_error=float(np.sqrt(own * scale**2 + factor**2 * map_variance)) / mean,
        scale=float(scale),
        chi2=chi2,
        n_dof=n_dof,
        p_value=p_value_of(chi2, n_dof),
        constant_chi2=constant,
        constant_dof=constant_dof,
        constant_p_value=constant_p,
        bins={
            "control": c.tolist(),
            "control_error": np.sqrt(stat).tolist(),
            "predicted": p.tolist(),
            "predicted_error": np.sqrt(np.diag(of_map)).tolist(),
            "n_eff": parts["n_eff"].tolist(),
            "used": use.tolist(),
        },
        covariance=covariance.tolist(),
        problems=[text for (j, _), text in parts["problems"].items() if j == i],
        flags=tuple(name for name, is_set in flags.items() if is_set),
    )
