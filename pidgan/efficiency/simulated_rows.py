"""Simulated rows as a generator: what a simulation says at given conditions.

A draw at conditions x is one of the simulated rows whose conditions are nearest to x,
each as likely as the others. Everything that compares a generator with data, efficiency
maps first of all, so compares a simulation with data, plain or corrected.

Conditions are compared in units of their standard deviations, after a logarithm where
the definition asks for one; categories are equal. Where conditions are whole numbers
many rows are as near as others: a small random shift of all decides, so that each is
used as often.
"""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import scipy  # scipy.spatial takes long to load, and comes when it is used
import scipy.special

from pidgan.application.generators import generator_hash
from pidgan.arguments import checked
from pidgan.arrays import BoolArray, FloatArray, IntArray
from pidgan.bundle.card import SIMULATED, Card, describe_variables, sample_targets
from pidgan.bundle.noise import entry_keys, keyed_normal
from pidgan.bundle.reference import REPEATS, passing
from pidgan.errors import MapError, PidganWarning, nearest
from pidgan.files.frames import Rows
from pidgan.sample.building import build_dataset
from pidgan.sample.cuts import Cut
from pidgan.sample.dataset import Dataset
from pidgan.sample.definition import Sample
from pidgan.sample.weights import positive_weights, with_differences

FAMILY = "simulation"
"""Family of a generator that is a plain simulation."""

SHIFT = 0.02
"""Width of the random shift, in standard deviations of a condition."""

FAR = 0.5
"""Distance, in standard deviations, beyond which simulation says nothing of a row."""

FAR_SHARE = 0.01
"""Share of rows of data without a simulated row near them, above which it is said."""

MANY_ROWS = 50_000
"""Number of rows from which several threads look for the nearest ones."""

APART = 1e3
"""Distance of two categories: rows of another one are never nearest."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SimulatedRows:
    """Simulated rows as a generator.

    Attributes:
        card: Description, with the conditions and targets of the data.
        conditions: Conditions (m, n_conditions) of the rows, package units.
        targets: Targets (m, n_targets) of the rows.
        copies: Number of the row of each draw, (k,): rows come as often as their weight
            says.
        sha256: Hash of what the targets depend on.
        data: Rows of data to compare with: conditions, targets and "weight".
    """

    card: Card
    conditions: FloatArray = field(repr=False)
    targets: FloatArray = field(repr=False)
    copies: IntArray = field(repr=False)
    sha256: str
    data: pd.DataFrame | None = field(default=None, repr=False)

    def reference(self) -> pd.DataFrame | None:
        """Return the rows of data to compare with."""
        return self.data

    def generate(self, conditions: FloatArray, noise: FloatArray) -> FloatArray:
        """Return targets (n, n_targets) of one of the nearest rows of each row.

        Of the noise (n, 1 + n_conditions), the first number says which, the others
        shift the conditions.
        """
        z = np.asarray(noise, dtype=np.float64)
        place = self._scaled(conditions) + SHIFT * z[:, 1:]
        near = self._near(place, REPEATS)
        uniform = scipy.special.ndtr(z[:, 0])
        which = np.minimum((uniform * near.shape[1]).astype(int), near.shape[1] - 1)
        found = near[np.arange(len(near)), which]
        return np.asarray(self.targets[found], dtype=np.float32)

    def nearest(self, conditions: FloatArray, *, most: int, seed: int) -> IntArray:
        """Return the numbers (n, most) of the nearest rows of each row."""
        keys = entry_keys(seed=seed, track=FAMILY, start=0, stop=len(conditions))
        z = keyed_normal(keys, n_noise=1 + len(self.card.conditions))[:, 1:]
        return self._near(self._scaled(conditions) + SHIFT * z, most)

    def passes(self, cuts: Sequence[Cut]) -> BoolArray:
        """Return whether the rows pass cuts, (n_cuts, m)."""
        card = self.card
        columns = dict(zip(card.condition_names, self.conditions.T, strict=True))
        columns |= dict(zip(card.target_names, self.targets.T, strict=True))
        return passing(card, cuts, columns)

    def far(self, conditions: FloatArray) -> BoolArray:
        """Return which rows (n,) have no simulated row within `FAR`."""
        place = self._scaled(conditions)
        distance, _ = self._tree.query(place, k=1, workers=_workers(len(place)))
        return np.asarray(distance > FAR)

    def _near(self, place: FloatArray, most: int) -> IntArray:
        most = min(most, len(self.copies))
        ranks, workers = [*range(1, most + 1)], _workers(len(place))
        _, found = self._tree.query(place, k=ranks, workers=workers)
        return np.asarray(self.copies[found])

    @cached_property
    def _scaling(self) -> tuple[BoolArray, FloatArray, FloatArray]:
        """Which conditions have a logarithm, and their centres and scales."""
        variables = {v.name: v for v in self.card.sample.conditions}
        own = [variables[name] for name in self.card.condition_names]
        is_log = np.array([v.transform == "log" for v in own])
        x = self.conditions.astype(np.float64)
        x = np.where(is_log, np.log(np.where(is_log, x, 1.0)), x)
        scale = x.std(axis=0)
        scale = np.where(scale > 0, scale, 1.0)
        is_category = np.array([bool(v.categories) for v in own])
        return is_log, x.mean(axis=0), np.where(is_category, 1 / APART, scale)

    def _scaled(self, conditions: FloatArray) -> FloatArray:
        """Return conditions (n, n_conditions) in units of their spread."""
        is_log, centre, scale = self._scaling
        x = np.asarray(conditions, dtype=np.float64)
        tiny = np.finfo(np.float32).tiny
        x = np.where(is_log, np.log(np.maximum(np.where(is_log, x, 1.0), tiny)), x)
        return np.asarray((x - centre) / scale)

    @cached_property
    def _tree(self) -> Any:
        place = self._scaled(self.conditions[self.copies])
        rng = np.random.default_rng(len(place))
        place += SHIFT * rng.standard_normal(place.shape)
        return scipy.spatial.cKDTree(place)


@checked
def open_simulation(
    dataset: Dataset | str | Path,
    files: Rows,
    *,
    seed: int = 1,
    progress: bool = True,
) -> SimulatedRows:
    """Return a simulation as a generator, to be compared with data.

    Its efficiency map corrects the efficiencies of a simulation that keeps its own PID
    variables; whoever wants them changed trains a corrector.

    Args:
        dataset: Dataset of the calibration sample, or its folder.
        files: Files of simulation with the branches of the definition of the data, or
            rows in memory, as in `build_dataset`, or the folder of a dataset. No
            background is subtracted from files: they hold true tracks of the species.
        seed: Seed of the choice among rows with weights.
        progress: Whether a bar, or a line of a log, is shown.

    Returns:
        The generator, for `run_systematics`, `closure_table` and `validate`.

    Raises:
        MapError: A dataset of simulation has other conditions or targets.
        SampleError: The files do not fit the definition.
        NtupleError: A file, tree or branch is missing.

    Example:
        >>> mc = open_simulation("kaon", "kaon-mc.root")  # doctest: +SKIP
        >>> run_systematics(mc, cuts="RichDLLk > 0")      # doctest: +SKIP
    """
    data = Dataset.open(dataset)
    if data.sample.cells is not None or data.sample.clusters is not None:
        raise MapError(
            f"sample {data.sample.name!r} has cells or clusters, expected PID "
            "variables of a track"
        )
    if _is_dataset(files):
        rows = Dataset.open(cast(Any, files))
    else:
        rows = build_dataset(bare(data.sample), files, progress=progress)
    _check_same(data.sample, rows.sample)
    if rows.info.get("hash") == data.info.get("hash") and rows.info.get("hash"):
        raise MapError(
            "data and simulation are the same dataset: nothing is compared, expected "
            "one of simulation"
        )
    card = Card(
        detector=data.sample.detector,
        species=data.sample.species,
        conditions=describe_variables(data.sample.conditions, rows.conditions),
        targets=describe_variables(data.sample.targets, rows.targets),
        n_noise=1 + len(data.sample.conditions),
        sample=data.sample,
        dataset={**data.info, "simulation": dict(rows.info)},
        family=FAMILY,
        seed=seed,
        steps=0,
    )
    return simulated_rows(
        card,
        np.asarray(rows.conditions),
        np.asarray(rows.targets),
        np.asarray(rows.weights),
        sha256=hashlib.sha256(card.to_json().encode()).hexdigest(),
        data=data.frame("test"),
        seed=seed,
    )


def corrected_rows(corrector: Any, *, seed: int = 1) -> SimulatedRows:
    """Return the corrected simulation of a corrector as a generator.

    Its simulated and its real rows are those of the reference of the corrector.
    """
    card, frame = corrector.card, corrector.reference()
    if frame is None or SIMULATED not in frame:
        path = getattr(corrector, "path", None)
        raise MapError(
            f"{'' if path is None else f'{path}: '}the corrector of {card.species} has "
            "no reference file beside it, whose simulated rows it could correct"
        )
    rows = frame[frame[SIMULATED] == 1]
    x = rows[list(card.input_names)].to_numpy(np.float32)
    y = sample_targets(corrector, x, seed=seed, track=FAMILY)
    known = np.isfinite(y).all(axis=1)
    own = {"n_noise": 1 + len(card.conditions), "simulated": (), "reference": None}
    return simulated_rows(
        card.model_copy(update=own),
        x[known, : len(card.conditions)],
        y[known],
        rows["weight"].to_numpy(np.float64)[known],
        sha256=generator_hash(corrector),
        data=frame[frame[SIMULATED] == 0].drop(columns=SIMULATED),
        seed=seed,
    )


def simulated_rows(
    card: Card,
    conditions: FloatArray,
    targets: FloatArray,
    weights: FloatArray,
    *,
    sha256: str,
    data: pd.DataFrame | None,
    seed: int,
) -> SimulatedRows:
    """Return rows as a generator; those with larger weights come more often.

    Negative weights are replaced by E[w | x, y], as everywhere else.
    """
    copies = np.arange(len(weights))
    if np.ptp(weights) > 0:
        w = weights
        if (w < 0).any():
            w = positive_weights(with_differences(conditions, targets), w, seed)
        edges = np.cumsum(w) / w.sum() * len(w)
        copies = np.searchsorted(edges, np.arange(len(w)) + 0.5, side="right")
        copies = np.minimum(copies, len(w) - 1)
    return SimulatedRows(
        card=card,
        conditions=conditions,
        targets=targets,
        copies=copies,
        sha256=sha256,
        data=data,
    )


def warn_of_far(simulation: SimulatedRows, frame: pd.DataFrame) -> None:
    """Warn if many rows of data have no simulated row near them."""
    x = frame[list(simulation.card.condition_names)].to_numpy(dtype=np.float64)
    far = int(np.count_nonzero(simulation.far(x)))
    if far > FAR_SHARE * len(x):
        warnings.warn(
            f"{far} of {len(x)} rows of data have no simulated row with conditions "
            f"within {FAR:g} standard deviations: the simulation says nothing of their "
            "efficiency; use one with the same conditions as the data",
            PidganWarning,
            stacklevel=4,
        )


def simulation_metadata(generator: Any) -> dict[str, Any]:
    """Return what a map says of a plain simulation; nothing of other generators."""
    if not isinstance(generator, SimulatedRows) or generator.card.family != FAMILY:
        return {}
    info = generator.card.dataset.get("simulation", {})
    return {"simulation": {"rows": len(generator.conditions), "hash": info.get("hash")}}


def bare(sample: Sample) -> Sample:
    """Return the definition of true tracks, of which no background is subtracted."""
    nothing = {"weight_branch": None, "sweights": None, "discriminant": None}
    update: dict[str, Any] = {**nothing, "unweighted": True, "trees": (), "exclude": {}}
    return sample.model_copy(update=update)


def _workers(rows: int) -> int:
    """Return the number of threads of a search, all for many rows."""
    return -1 if rows > MANY_ROWS else 1


def _is_dataset(given: Any) -> bool:
    return isinstance(given, str | Path) and (Path(given) / "dataset.json").is_file()


def _check_same(data: Sample, simulation: Sample) -> None:
    """Raise a MapError unless simulation has the conditions and targets of data."""
    if simulation.species != data.species:
        raise MapError(
            f"the simulation {simulation.name!r} is of {simulation.species}, expected "
            f"{data.species} as the data {data.name!r}"
        )
    for kind in ("condition_names", "target_names"):
        mine, its = getattr(data, kind), getattr(simulation, kind)
        for name in mine:
            if name not in its:
                raise MapError(
                    f"the simulation {simulation.name!r} has no {name!r}, which the "
                    f"data {data.name!r} have, or it is always the same"
                    f"{nearest(name, its)}"
                )
        if mine != its:
            raise MapError(
                f"the simulation {simulation.name!r} has {', '.join(its)}, expected "
                f"{', '.join(mine)} as the data {data.name!r}"
            )
