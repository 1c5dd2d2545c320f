"""The validation of a generator: generated against real rows it was never trained on.

Every figure comes with its uncertainty, the effective number of rows behind it, and
its floor: the same figure for real against real. The floor of tracks compares the test
part with samples of the train part, drawn without repetition in the size of the test
part; the floor of showers compares two halves of the judged part. Generated rows have
the conditions and weights of the real ones they are compared with.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pidgan.arguments import checked
from pidgan.bundle.card import Generator, sample_targets
from pidgan.bundle.opening import GivenGenerator, open_generator
from pidgan.efficiency.among import rows_among, where_of_dataset
from pidgan.efficiency.binning import Binning
from pidgan.errors import DatasetError, PidganWarning
from pidgan.progress import Bar
from pidgan.report import track_cuts, track_figures
from pidgan.report.projections import cut_projections, target_projections
from pidgan.report.relations import (
    condition_figures,
    correlation_figures,
    correlations_in_bins,
    followed_pairs,
)
from pidgan.report.report import Report, plain
from pidgan.report.shower_validation import compare_showers
from pidgan.report.track_figures import TrackRows, is_usable, take
from pidgan.report.track_page import TrackData, track_report
from pidgan.report.weights_section import weight_figures
from pidgan.sample.cuts import cut_texts
from pidgan.sample.dataset import Dataset, Part, PartName
from pidgan.sample.sampling import count_rows, some_rows
from pidgan.sample.weights import n_eff

FIGURES_SCHEMA = 1
FLOOR = "test part against samples of the train part of the same size"
HELD_ROWS = 4_000_000  # rows of a part that are held at most, random ones of more
KINEMATIC_BINS = 3  # quantile bins along each of the first two conditions
MAX_FLOOR_SAMPLES = 4
TRACK_PARTS = 4  # parts of a validation of tracks that its bar counts
MIN_FLOOR_SHARE = 0.7  # of the number of test rows; fewer make a floor too high


@checked
def validate(
    generator: GivenGenerator,
    dataset: Dataset | str | Path,
    *,
    cuts: str | Sequence[str] | None = None,
    where: str | None = None,
    binning: Binning | None = None,
    misid: Sequence[tuple[GivenGenerator, Dataset | str | Path]] = (),
    part: PartName = "test",
    seed: int = 1,
    max_rows: int = 1_000_000,
    c2st_rows: int = 20_000,
    progress: bool = True,
) -> Report:
    """Compare generated with real rows that the generator was not trained on.

    Tracks: for each target the weighted KS and Wasserstein-1 distances, overall and in
    quantile bins of the first two conditions, and the shares of atoms and ties; for
    all targets together the worse of two classifier two-sample tests; for each cut the
    efficiency overall, against each condition and in bins of the first two, with
    pulls. Showers, for a dataset with cells: see `compare_showers`.

    Args:
        generator: Anything that can sample: a model or a bundle, or its path.
        dataset: Dataset whose train part the generator was trained on, or its folder.
        cuts: One PID cut or several; None means the standard cuts of the sample.
        where: Denominator of the efficiencies. Its terms on conditions and on branches
            that the dataset kept choose the rows of all figures, those on targets the
            rows that efficiencies of cuts are given among.
        binning: Binning as in `pidgan.efficiency_table`; None means that of the
            sample. A condition without bins has some of equal population.
        misid: Generators of other species with their datasets, for the misID of the
            cuts.
        part: Rows to judge. Showers can also be judged on "excluded", the intervals
            that the sample definition keeps out of the training.
        seed: Seed of the noise, of the rows of the floor and of the classifiers.
        max_rows: Number of rows of the test part that are used at most. A part of more
            than 4 million rows is known by as many random ones.
        c2st_rows: Number of rows of each sample of tracks that the classifiers see.
        progress: Whether a bar, or a line of a log, is shown.

    Returns:
        The report, which `save` writes as a page.

    Raises:
        DatasetError: The part has no usable rows, the generator has other conditions
            or targets, or an argument does not fit the kind of dataset.

    Example:
        >>> report = validate(model, dataset, cuts="RichDLLk > 0")  # doctest: +SKIP
        >>> report.save("kaon-report")  # doctest: +SKIP
    """
    generator, dataset = open_generator(generator), Dataset.open(dataset)
    rejects = [(open_generator(one), Dataset.open(rows)) for one, rows in misid]
    if dataset.sample.cells is not None:
        if cuts or misid or binning or where:
            raise DatasetError(
                f"dataset {dataset.sample.name!r} has showers; cuts, where, binning "
                "and misid are for tracks"
            )
        with Bar("validate", show=progress):
            return _validate_showers(generator, dataset, part=part, seed=seed)
    if dataset.sample.clusters is not None:
        raise DatasetError(
            f"dataset {dataset.sample.name!r} has clusters along tracks, expected PID "
            "variables or showers; docs/studies/helix.py judges clusters"
        )
    if part != "test":
        raise DatasetError(
            f"dataset {dataset.sample.name!r} has tracks, which are judged on the part "
            f"'test'; part {part!r} is for showers"
        )
    total = TRACK_PARTS + len(rejects)
    with Bar("validate", total=total, unit="parts", show=progress) as bar:
        return _validate_tracks(
            generator,
            dataset,
            bar,
            cuts=cuts,
            where=where,
            binning=binning,
            misid=rejects,
            seed=seed,
            max_rows=max_rows,
            c2st_rows=c2st_rows,
        )


def _validate_tracks(
    generator: Generator,
    dataset: Dataset,
    bar: Bar,
    *,
    cuts: str | Sequence[str] | None,
    where: str | None,
    binning: Binning | None,
    misid: Sequence[tuple[Generator, Dataset]],
    seed: int,
    max_rows: int,
    c2st_rows: int,
) -> Report:
    """Compare tracks, and show on a bar which part of it is done."""
    prepare = partial(_prepare_rows, where=where, seed=seed, max_rows=max_rows)
    rows = prepare(generator, dataset)
    bar.add(1, "efficiencies")
    sample = rows.sample
    edges = {
        name: track_cuts.quantile_edges(values, KINEMATIC_BINS)
        for name, values in list(rows.columns(rows.real).items())[:2]
    }
    texts = cut_texts(cuts or ()) or sample.cuts or track_cuts.median_cuts(rows)
    compared = track_cuts.compare_cuts(rows, texts, binning)
    bar.add(1, "misID" if misid else "targets")
    others: dict[str, track_cuts.CutComparison] = {}
    of_species: dict[str, TrackRows] = {}
    for other, data in misid:
        rejected = prepare(other, data)
        of_species[data.sample.species] = rejected
        others[data.sample.species] = track_cuts.compare_cuts(rejected, texts, binning)
        bar.add(1, "targets")
    targets = track_figures.target_figures(rows, edges, seed=seed)
    bar.add(1, "classifiers")
    c2st = track_figures.c2st_figure(rows, seed=seed, max_rows=c2st_rows)
    bar.add(1, "page")
    figures = {
        "schema": FIGURES_SCHEMA,
        "sample": sample.name,
        "detector": sample.detector,
        "species": sample.species,
        "seed": seed,
        **({"where": where} if where else {}),
        "floor": FLOOR,
        "rows": {
            "test": len(rows.real.weights),
            "floor": [len(floor.weights) for floor in rows.floors],
            "sum_weights": float(rows.real.weights.sum()),
            "n_eff": n_eff(rows.real.weights),
            **_random_of(dataset),
        },
        "targets": targets,
        "ties": track_figures.tie_figures(rows),
        "c2st": c2st,
        "efficiency": compared.figures,
        "misid": {species: found.figures for species, found in others.items()},
        "projections": {
            "targets": target_projections(rows, edges, seed=seed),
            "efficiency": cut_projections(rows, compared, seed=seed),
            "misid": {
                species: cut_projections(of_species[species], found, seed=seed)
                for species, found in others.items()
            },
        },
        "correlations": correlation_figures(rows),
        "correlations_in_bins": correlations_in_bins(rows, followed_pairs(rows, texts)),
        "conditions": condition_figures(rows, seed=seed),
        "independence": weight_figures(rows, texts),
    }
    drawn = TrackData(
        rows=rows,
        edges=edges,
        cuts=compared,
        misid=others,
        history=getattr(generator, "history", None) or {},
        mass_fit=dataset.info.get("fit") or {},
    )
    return track_report(plain(figures), drawn)


def _validate_showers(
    generator: Generator, dataset: Dataset, *, part: PartName, seed: int
) -> Report:
    sample, cells = dataset.sample, dataset.sample.cells
    if cells is None or cells.incident is None:
        raise DatasetError(
            f"dataset {sample.name!r} has no cells with an incident energy, which a "
            "report of showers needs"
        )
    _check_names(generator, dataset)
    real = dataset.part(part)
    generated = sample_targets(
        generator, real.conditions, seed=seed, track="validation"
    )
    incident = {cells.incident: "energy"}
    names = [incident.get(name, name) for name in sample.condition_names]
    report = compare_showers(
        real.targets,
        generated,
        real.conditions,
        cells.layout,
        names=names,
        energy_unit=sample.targets[0].package_unit,
        seed=seed,
    )
    history = getattr(generator, "history", None) or {}
    return replace(report, data=replace(report.data, history=history))


def _check_names(generator: Generator, dataset: Dataset) -> None:
    """Raise a DatasetError if a generator has other variables than a dataset."""
    sample, card = dataset.sample, generator.card
    for kind in ("condition_names", "target_names"):
        if getattr(card, kind) != getattr(sample, kind):
            raise DatasetError(
                f"the generator's {kind} are {', '.join(getattr(card, kind)[:20])}; "
                f"those of dataset {sample.name!r} are "
                f"{', '.join(getattr(sample, kind)[:20])}"
            )


def _prepare_rows(
    generator: Generator,
    dataset: Dataset,
    *,
    where: str | None,
    seed: int,
    max_rows: int,
) -> TrackRows:
    """Return the rows to compare, generated targets included."""
    _check_names(generator, dataset)
    sample = dataset.sample
    own = None if where is None else where_of_dataset(dataset, where)

    def chosen(name: PartName) -> Part:
        part = some_rows(dataset, name, HELD_ROWS, seed=seed)
        return part if own is None else take(part, rows_among(dataset, part, own))

    real = chosen("test")
    n = len(real.weights)
    judged: Any = slice(max_rows)
    if n > max_rows and _random_of(dataset):
        rng = np.random.default_rng(seed)
        judged = np.sort(rng.choice(n, max_rows, replace=False, shuffle=False))
    real = take(real, judged)
    if not is_usable(real):
        raise DatasetError(
            f"the test part of dataset {sample.name!r} has {len(real.weights)} rows "
            f"{f'where {where}, ' if where else ''}with sum of weights "
            f"{real.weights.sum():.6g}, expected a positive sum"
        )
    targets = sample_targets(generator, real.conditions, seed=seed, track="validation")
    generated = replace(real, targets=targets)
    finite = np.asarray(np.isfinite(targets).all(axis=1))
    if not finite.any():
        raise DatasetError(f"no row generated for dataset {sample.name!r} is finite")
    if not finite.all():
        lost = np.count_nonzero(~finite)
        warnings.warn(
            f"{lost} of {len(finite)} generated rows are not finite and left out",
            PidganWarning,
            stacklevel=3,
        )
        real, generated = take(real, finite), take(generated, finite)
    floors = _floor_samples(chosen("train"), len(real.weights), seed=seed)
    rows = TrackRows(
        sample=sample,
        real=real,
        generated=generated,
        floors=floors,
        among=own.targets if own else None,
    )
    for part in (real, generated) if rows.among else ():
        if not part.weights[rows.counted(part)].sum() > 0:
            raise DatasetError(
                f"where {where!r}: no real or no generated row of the test part of "
                f"dataset {sample.name!r} passes with a positive sum of weights"
            )
    return rows


def _random_of(dataset: Dataset) -> dict[str, int]:
    """Return of how many rows the judged ones are a random part, if they are one."""
    n = count_rows(dataset, "test")
    return {"random_of": n} if n > HELD_ROWS else {}


def _floor_samples(train: Part, n: int, *, seed: int) -> tuple[Part, ...]:
    """Disjoint random samples of about n rows of the train part."""
    order = np.random.default_rng(seed).permutation(len(train.weights))
    count = min(MAX_FLOOR_SAMPLES, max(1, round(len(order) / n)))
    size = min(n, len(order) // count)
    parts = [
        take(train, np.sort(order[i * size : (i + 1) * size])) for i in range(count)
    ]
    usable = tuple(part for part in parts if is_usable(part))
    if not usable or len(usable[0].weights) < MIN_FLOOR_SHARE * n:
        warnings.warn(
            f"the train part has {len(order)} rows, fewer than the {n} of the test "
            f"part: the floors come from fewer rows or are missing",
            PidganWarning,
            stacklevel=4,
        )
    return usable
