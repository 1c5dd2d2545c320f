"""The errors that a generator makes in the efficiency of cuts, measured as a map.

`run_systematics` compares real and generated efficiencies on rows that the generator
never saw, and stores the smoothed difference, real minus generated
(`pidgan.efficiency.smoothing`), in an efficiency map. `pid_efficiency` carries the map
to an analysis. The map holds variations too, each one shift of the corrected efficiency
in all bins together:

- "binning": the difference with bins merged two by two along every axis, which shows
  how much depends on the smoothing and on a constant difference inside a bin;
- "sweights_background", "sweights_signal", "sweights_range": the difference with the
  weights of other mass fits (`alternative_sweights`), where the reference has them;
- "fit_and_count": the efficiency from mass fits of the rows that pass and that fail,
  minus that with sWeights, where the reference has their discriminant;
- "limit": the binomial limit where no reference row passes, or none fails
  (`pidgan.efficiency.limits`);
- "scale_NAME": the generated efficiency with a condition multiplied by a factor;
- "training_1", ...: the corrected efficiency with other generators of the same sample,
  each divided by the square root of their number.
"""

import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pidgan.application.generators import generator_hash
from pidgan.application.request import package_version
from pidgan.arguments import checked
from pidgan.arrays import FloatArray, IntArray
from pidgan.bundle import reference as reference_rows
from pidgan.bundle.card import Card, Generator
from pidgan.bundle.opening import GivenGenerator, open_generator
from pidgan.efficiency import binning as bins
from pidgan.efficiency import smoothing
from pidgan.efficiency.among import Denominator, reference_among
from pidgan.efficiency.coarse_bins import NAME as COARSE
from pidgan.efficiency.coarse_bins import warn_of_coarse
from pidgan.efficiency.common_errors import added_between_bins, common_errors
from pidgan.efficiency.counted import NAME as COUNTED
from pidgan.efficiency.counted import add_counted
from pidgan.efficiency.denominators import conditional_shares, denominator_error
from pidgan.efficiency.efficiency_map import DENOMINATOR, MIN_EVENTS, EfficiencyMap
from pidgan.efficiency.filling import CENTRES, centres_of
from pidgan.efficiency.limits import limit_shifts
from pidgan.efficiency.map_averages import (
    REFERENCE,
    average,
    map_sizes,
    measure_whole,
)
from pidgan.efficiency.merged_bins import merged_mean
from pidgan.efficiency.real_vs_generated import (
    ComparedRows,
    RealVsGenerated,
    check_among,
    compare_rows,
)
from pidgan.efficiency.shared_rows import sketch_of
from pidgan.efficiency.simulated_rows import simulation_metadata
from pidgan.efficiency.simulated_shares import count_draws
from pidgan.efficiency.variation_parts import numbered
from pidgan.errors import MapError, PidganWarning, nearest
from pidgan.progress import Bar
from pidgan.sample.cuts import Cut, all_of
from pidgan.sample.species import pdg_id
from pidgan.sample.weights import check_weights, n_eff, n_eff_of_sums

VARIATIONS = ("binning", "sweights", "limit")
"""Variations that rows alone allow."""

ALL_VARIATIONS = (*VARIATIONS, COUNTED)
"""Variations that may be asked for. By default there are all of which the reference has
what they need."""

Edges = bins.ChosenEdges

STREAM = "systematics"
"""Name of the random draws, which differ from the draws of a closure table."""

EMPTY_BIN_ROWS = 500
"""Rows generated in a bin without reference rows, for its generated efficiency."""


@checked
def run_systematics(
    generator: GivenGenerator,
    reference: reference_rows.GivenReference | None = None,
    *,
    cuts: str | Sequence[str] | None = None,
    where: str | None = None,
    binning: bins.Binning | None = None,
    seed: int = 1,
    repeats: int = reference_rows.REPEATS,
    variations: Sequence[str] | None = None,
    scales: Mapping[str, float] | None = None,
    others: Sequence[GivenGenerator] = (),
    progress: bool = True,
) -> EfficiencyMap:
    """Measure real minus generated efficiencies of cuts as an efficiency map.

    Args:
        generator: A model or a bundle, or its path; or what `open_simulation` gives,
            for a simulation as it is. Of a corrector, its corrected simulation is
            compared.
        reference: Rows it was not trained on: a table of conditions, targets and
            "weight", or a dataset, of which the test part is used, or the path of one
            of them; by default the reference of the generator itself.
        cuts: One cut on targets, such as "RichDLLk > 0", or several; by default those
            of the sample.
        where: Denominator of the efficiencies: only what passes this cut is counted.
            It may name targets, conditions and other columns of the reference. The map
            remembers it, and `pid_efficiency` has to be asked for the same.
        binning: Name of a binning that ships; or, by condition, edges, the name of a
            binning, or a number of bins of equal population. Bins of a name or a
            number reach to the ends of the trained range. By default `map_binning` or
            else `binning` of the sample, up to the ends of the trained range;
            quantiles of the reference if it has neither.
        seed: Seed of the generated draws.
        repeats: Generated draws per row.
        variations: Variations to include, "binning", "sweights", "limit" and
            "fit_and_count". By
            default there are all of which the reference has what they need: the weights
            of other mass fits, and the discriminant of the sWeights.
        scales: Factor by condition, such as {"nTracks": 1.1}, by which the condition
            may be wrong in the analysis.
        others: Generators of the same conditions and targets, trained with other seeds
            or on replicas of the calibration sample; they must not have seen the
            reference either.
        progress: Whether a bar, or a line of a log, is shown.

    Returns:
        The map.

    Raises:
        MapError: There is no reference, or it cannot be used; a variation or condition
            is unknown; another generator has other conditions or targets.
        CutError: A cut names an unknown variable or is not a comparison.

    Example:
        >>> found = run_systematics(open_bundle("kaon.onnx"), cuts="RichDLLk > 0")
        ... # doctest: +SKIP
        >>> found.save("kaon-map.json")                           # doctest: +SKIP
    """
    generator = open_generator(generator)
    further = [open_generator(other) for other in others]
    card = generator.card
    _check_variations(card, variations or (), scales or {}, further)
    parsed = _distinct(reference_rows.parse_cuts(card, cuts))
    frame, denominator = reference_among(generator, reference, where)
    among = denominator.targets if denominator else None
    edges = bins.map_edges(card, binning, frame)
    for name, given in edges.items():
        if not np.isfinite(given).all():  # JSON and histograms of maps have no infinity
            raise MapError(f"binning in {name!r} has edges that are not finite")

    asked = parsed
    if among is not None:
        asked = [*(all_of([cut, among]) for cut in parsed), among]

    n_draws = repeats * (1 + len(scales or {}) + len(others))
    with Bar("systematics", total=n_draws, unit="draws", show=progress) as bar:
        own: Any = {"seed": seed, "repeats": repeats, "stream": STREAM, "bar": bar}

        def compare(
            one: Generator, names: Sequence[str]
        ) -> tuple[ComparedRows, EfficiencyMap]:
            rows = compare_rows(one, frame, parsed, among=among, **own)
            check_among(rows, where)
            found = map_from_rows(
                rows,
                edges=edges,
                empty_bins=lambda b: generated_in_bins(one, b, edges, asked, seed),
                metadata=_metadata(one, rows, seed, denominator),
                variations=names,
            )
            return rows, found

        chosen = VARIATIONS if variations is None else variations
        rows, result = compare(generator, [n for n in chosen if n != COUNTED])
        shape = card.sample.discriminant
        is_known = rows.discriminant is not None and shape is not None
        if COUNTED in chosen or (variations is None and is_known):
            add_counted(result, rows, shape, is_asked=COUNTED in chosen)
        bins.warn_of_outside(frame, edges, bins.bin_index(frame, edges))
        errors = average(result, map_sizes(result)).error
        if coarse := warn_of_coarse(rows, edges, errors.tolist()):
            result.metadata[COARSE] = coarse
        for name, factor in (scales or {}).items():
            # The noise stays the same, and conditions within the trained range.
            low, high = next(v.range for v in card.conditions if v.name == name)
            scaled = frame.assign(**{name: (factor * frame[name]).clip(low, high)})
            moved = count_draws(generator, asked, scaled, **own)
            result.variations[f"scale_{name}"] = _mean_change(moved, rows, edges)
        for number, other in enumerate(further):
            _, found = compare(other, ())
            shift = (found.nominal - result.nominal) / math.sqrt(len(further))
            result.variations[f"training_{number + 1}"] = shift
    for cut in result.flagged:
        warnings.warn(
            f"cut {cut!r}: the reference has fewer than {MIN_EVENTS:.0f} effective "
            "rows on one side of it; the correction is mostly an assumption there",
            PidganWarning,
            stacklevel=2,
        )
    return result


def map_from_rows(
    rows: ComparedRows,
    *,
    edges: bins.ChosenEdges,
    empty_bins: Callable[[IntArray], FloatArray],
    metadata: Mapping[str, Any],
    variations: Sequence[str] = VARIATIONS,
) -> EfficiencyMap:
    """Return the map of rows; `empty_bins` gives the efficiency of bins without any."""
    check_weights(rows.weights, "weights of the reference")
    place = bins.bin_index(rows.columns, edges)
    found = rows.in_bins(edges).measured(smoothing.MIN_N_EFF)
    if not smoothing.is_measured(found).any():
        raise MapError(
            f"reference of {len(place)} rows: no bin has a positive sum of weights; "
            "expected more rows or fewer bins"
        )
    generated = _generated_everywhere(rows, place, found, empty_bins)
    smooth, variances = smoothing.smooth_cuts(found, generated)
    mean = np.array([cut.mean for cut in smooth])
    populations = found.n_eff.reshape(-1)
    operator = np.array([cut.operator for cut in smooth])
    shifts = {}
    if "binning" in variations:
        scale = smoothing.prior_scale(generated, found)
        coarse = merged_mean(rows, edges, generated, scale=scale, sizes=populations)
        shifts["binning"] = coarse - mean
    if "sweights" in variations:
        raw = smoothing.raw_difference(found.real, found.generated)
        for name, weights in rows.alternatives.items():
            other = replace(rows, weights=weights).tables(edges)
            change = np.nan_to_num(smoothing.raw_difference(*other) - raw)
            pairs = zip(operator, change, strict=True)
            shifts[f"sweights_{name}"] = np.array([a @ d for a, d in pairs])
    w, inside = rows.weights, place >= 0
    common = common_errors(smooth, found, rows, place)
    covariance = np.array([cut.covariance for cut in smooth])
    covariance = covariance + added_between_bins(common, operator)
    if "limit" in variations:
        limits = limit_shifts(found, generated + mean, covariance)
        shifts |= {numbered("limit", k): shift for k, shift in enumerate(limits, 1)}
    counted = inside if rows.among is None else inside & rows.among
    passed, failed = rows.real & counted, ~rows.real & counted
    if rows.among is not None:
        metadata = {**metadata, DENOMINATOR: denominator_error(rows, edges)}
    return EfficiencyMap(
        cuts=rows.cuts,
        binning=dict(edges),
        generated=generated,
        discrepancy=mean,
        covariance=covariance,
        operator=operator,
        raw_covariance=smoothing.raw_covariance(found, variances),
        n_eff=populations,
        passing=n_eff_of_sums(np.maximum(passed @ w, 0), passed @ w**2),
        failing=n_eff_of_sums(np.maximum(failed @ w, 0), failed @ w**2),
        variations=shifts,
        metadata={
            **metadata,
            REFERENCE: {
                "rows": len(w),
                "rows_outside": int(np.count_nonzero(~inside)),
                "sum_weights": float(w.sum()),
                "n_eff": n_eff(w),
                **measure_whole(rows, edges),
                **sketch_of(rows.columns, list(edges)),
                CENTRES: centres_of(rows.columns, w, edges),
            },
        },
        common=common,
    )


def _generated_everywhere(
    rows: ComparedRows,
    place: IntArray,
    found: RealVsGenerated,
    empty_bins: Callable[[IntArray], FloatArray],
) -> FloatArray:
    """Generated efficiency of every bin, (n_cuts, n_bins), if need be by |weights|."""
    inside = place >= 0
    at, size = place[inside], np.abs(rows.weights[inside])
    norm = np.bincount(at, size, found.n_eff.size)
    result = found.generated.efficiency.reshape(len(rows.cuts), -1).copy()
    counted = rows.generated_among
    for b in np.flatnonzero(~smoothing.is_measured(found) & (norm > 0)):
        chosen = at == b
        passed = rows.generated[:, inside][:, chosen] @ size[chosen]
        if counted is None:
            result[:, b] = passed / (rows.repeats * norm[b])
            continue
        total = counted[inside][chosen] @ size[chosen]
        result[:, b] = passed / total if total > 0 else np.nan
        norm[b] = total
    empty = np.flatnonzero(norm <= 0)
    if len(empty):
        found_there = empty_bins(empty)
        if counted is not None:
            found_there = conditional_shares(found_there, result)
        result[:, empty] = found_there
    return result


def _check_variations(
    card: Card,
    variations: Sequence[str],
    scales: Mapping[str, float],
    others: Sequence[Generator],
) -> None:
    for name in variations:
        if name not in ALL_VARIATIONS:
            raise MapError(f"unknown variation {name!r}{nearest(name, ALL_VARIATIONS)}")
    for name, factor in scales.items():
        if name not in card.condition_names:
            raise MapError(
                f"scale of {name!r}, which is not a condition"
                f"{nearest(name, card.condition_names)}"
            )
        if not (math.isfinite(factor) and factor > 0):
            raise MapError(f"scale of {name!r} is {factor:g}, expected above 0")
    own = (card.species, card.condition_names, card.target_names)
    for other in others:
        its = other.card
        if (its.species, its.condition_names, its.target_names) != own:
            raise MapError(
                f"a generator in `others` has {_content(its)}; expected "
                f"{_content(card)}"
            )


def _content(card: Card) -> str:
    return (
        f"species {card.species}, conditions {', '.join(card.condition_names)}, "
        f"targets {', '.join(card.target_names)}"
    )


def _mean_change(moved: IntArray, rows: ComparedRows, edges: Edges) -> FloatArray:
    """Mean change of the efficiency in each bin; in a bin without rows, of all rows.

    `moved` (n_cuts, n) draws of each row pass instead; the last line is that of the
    denominator, if there is one.
    """
    change = (moved[: len(rows.cuts)] - rows.generated) / rows.repeats
    if rows.generated_among is not None:
        # To first order, the change of g / h with the mean of h in a bin.
        e = rows.in_bins({}).generated.efficiency[:, np.newaxis]
        of_counted = (moved[-1] - rows.generated_among) / rows.repeats
        mean = np.average(rows.generated_among, weights=np.abs(rows.weights))
        change = (change - e * of_counted) * (rows.repeats / mean)
    place = bins.bin_index(rows.columns, edges)
    inside, size = place >= 0, np.abs(rows.weights)
    n_bins = bins.count_bins(edges)
    norm = np.bincount(place[inside], size[inside], n_bins)
    sums = [np.bincount(place[inside], (size * row)[inside], n_bins) for row in change]
    average = np.array([[total.sum() / norm.sum()] for total in sums])
    return np.where(norm > 0, sums / np.where(norm > 0, norm, 1), average)


def _distinct(cuts: Sequence[Cut]) -> list[Cut]:
    """Cuts without those that are given before, in another spelling."""
    found = {cut.canonical: cut for cut in reversed(cuts)}
    return [cut for cut in cuts if found[cut.canonical] is cut]


def generated_in_bins(
    generator: Generator,
    places: IntArray,
    edges: bins.ChosenEdges,
    cuts: Sequence[Cut],
    seed: int,
) -> FloatArray:
    """Return generated efficiencies, (n_cuts, n), of conditions spread over n bins."""
    card, shape = generator.card, bins.bin_shape(edges)
    rng = np.random.default_rng(seed)
    result = np.empty((len(cuts), len(places)))
    for column, b in enumerate(places):
        x = np.empty((EMPTY_BIN_ROWS, len(card.conditions)))
        steps = map(int, np.unravel_index(b, shape))
        own = {k: e[i : i + 2] for i, (k, e) in zip(steps, edges.items(), strict=True)}
        for i, variable in enumerate(card.conditions):
            low, high = own.get(variable.name, variable.range)
            if variable.categories:
                inside = [c for c in variable.categories if low <= c < high]
                if variable.name not in own or not inside:
                    inside = [*variable.categories]
                x[:, i] = rng.choice(inside, EMPTY_BIN_ROWS)
                continue
            x[:, i] = rng.uniform(low, high, EMPTY_BIN_ROWS)
            if variable.integer:
                x[:, i] = np.floor(x[:, i])
        track = f"{STREAM} bin {b}"
        passed = reference_rows.draw_passing(generator, cuts, x, seed=seed, track=track)
        result[:, column] = passed.mean(axis=1)
    return result


def _metadata(
    generator: Generator,
    rows: ComparedRows,
    seed: int,
    denominator: Denominator | None,
) -> dict[str, Any]:
    card, content = generator.card, json.loads(generator.card.to_json())
    among = {}
    if denominator is not None:
        among = {
            "where": denominator.text,
            "where_terms": list(denominator.terms),
            "where_others": list(denominator.others),
        }
    return {
        **among,
        "species": card.species,
        "pdgid": pdg_id(card.species),
        "detector": card.detector,
        "bundle_sha256": generator_hash(generator),
        **simulation_metadata(generator),
        "sample": card.sample.name,
        "seed": seed,
        "repeats": rows.repeats,
        "versions": {"pidgan": package_version("pidgan")},
        "conditions": content["conditions"],
        "targets": content["targets"],
        "aliases": card.sample.aliases,
    }
