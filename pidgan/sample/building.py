"""A Dataset built from the files of a calibration sample.

`build_dataset` reads the rows that can be used (`pidgan.sample.rows`), and fits
sWeights to those rows, or reads them from a branch or from files of their own. A
condition that has the same value in every row is left out of the sample, with a
warning unless it is optional.
"""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pidgan.arguments import checked
from pidgan.arrays import BoolArray, FloatArray, IntArray
from pidgan.errors import DatasetError, PidganWarning, SampleError
from pidgan.files.frames import Rows
from pidgan.progress import Bar
from pidgan.sample.dataset import PARTS, Dataset, content_hash
from pidgan.sample.definition import Sample
from pidgan.sample.events import EVENT, number_events
from pidgan.sample.grids import stated_grid
from pidgan.sample.loading import load_sample
from pidgan.sample.rows import CELLS, EVENTS, KEPT, MASS, WEIGHT, SampleRows, read_rows
from pidgan.sample.sweights import alternative_sweights, compute_sweights
from pidgan.sample.weights import check_weights, n_eff

#: Shares of the parts. The test part is large, because every figure of a report and the
#: systematic uncertainty of a PID cut come from it.
SHARES = (0.6, 0.1, 0.3)


@checked
def build_dataset(
    sample: Sample | str | Path,
    files: Rows,
    *,
    seed: int = 1,
    shares: tuple[float, float, float] = SHARES,
    sweights_from: str | Path | None = None,
    keep: Sequence[str] = (),
    key: Sequence[str] = (),
    progress: bool = True,
) -> Dataset:
    """Build the dataset of a calibration sample from its files.

    Args:
        sample: Definition of the sample, its name or its path.
        files: Files with calibration data: FILE, FILE:TREE, patterns, addresses or
            Parquet; or rows in memory, as in `apply`. Several trees (the two charges of
            a probe) are put together, and fitted together.
        seed: Seed of the random split into parts.
        shares: Fractions of rows for training, monitoring and testing, of sum 1.
        sweights_from: Folder or address of the files with the sWeights, for a
            definition with `sweights`. They lie beside the files by default.
        keep: Further branches that the rows keep, as they are stored, so that an
            efficiency can have them in its denominator: polarity, run number, other
            PID variables.
        key: Branches that identify an event, such as ("runNumber", "eventNumber"); by
            default usual names. Candidates of one event go to the same part, and count
            as one in the uncertainty of an efficiency map.
        progress: Whether a bar, or a line of a log, is shown.

    Returns:
        The dataset; the same input and seed give the same `info["hash"]`.

    Raises:
        SampleError: The data do not fit the definition, for example a wrong unit.
        DatasetError: No rows are left, or their sum of weights is not positive.
        FitError: The mass fit failed.
        NtupleError: A file, tree or branch is missing.

    Example:
        >>> dataset = build_dataset("run2_dstar_k", ["calib/*.root"])  # doctest: +SKIP
        >>> dataset.frame("test")["RichDLLk"].mean()  # doctest: +SKIP
    """
    check_shares(shares)
    with Bar("prepare", unit="rows", show=progress) as bar:
        definition = load_sample(sample)
        return _build(
            read_rows(
                definition,
                files,
                sweights_from=sweights_from,
                keep=keep,
                key=key,
                bar=bar,
            ),
            seed=seed,
            shares=shares,
            keep=keep,
        )


def _build(
    rows: SampleRows,
    *,
    seed: int,
    shares: tuple[float, float, float],
    keep: Sequence[str],
) -> Dataset:
    """Return the dataset of rows that can be used."""
    sample = _without_constants(rows)
    _check_targets(rows)
    weights, others, fit = _weigh(rows)
    columns, n = rows.columns, len(rows)
    events = number_events(columns[EVENTS]) if rows.key else None
    if events is not None:
        columns[f"{KEPT}{EVENT}"], keep = events.astype(np.float64), [*keep, EVENT]
    targets = columns[CELLS] if sample.cells else _stack(columns, sample.target_names)
    dataset = Dataset(
        sample=sample,
        conditions=_stack(columns, sample.condition_names),
        targets=targets,
        weights=weights.astype(np.float64),
        alternatives=np.reshape(list(others.values()), (len(others), n)).T.copy(),
        split=_split(sample, rows, shares, seed, events),
        kept=np.reshape([columns[f"{KEPT}{name}"] for name in keep], (len(keep), n)).T,
        discriminant=np.asarray(columns.get(MASS, ()), dtype=np.float64),
        info={"alternatives": list(others), **({"kept": [*keep]} if keep else {})},
    )
    names = [name for name in PARTS if name != "excluded" or sample.exclude]
    parts = {name: dataset.part(name).weights for name in names}
    for name, part in parts.items():
        if not part.sum() > 0:
            raise DatasetError(
                f"the {name} part has {len(part)} rows with a sum of weights of "
                f"{part.sum():g}, expected a positive number; more rows are needed"
            )
    info = {
        "hash": content_hash(dataset),
        "seed": seed,
        "rows": {name: len(part) for name, part in parts.items()},
        "sum_weights": float(weights.sum()),
        "n_eff": n_eff(weights),
        "files": rows.files,
        "rows_read": rows.n_read,
        "dropped": rows.dropped,
        "spikes": rows.spikes,
        **({"left_out": rows.left_out} if rows.left_out else {}),
        "alternatives": list(others),
        **({"kept": [*keep]} if keep else {}),
        **({"events": int(events.max()) + 1} if events is not None else {}),
        **fit,
    }
    return dataclasses.replace(dataset, info=info)


def check_shares(shares: Sequence[float]) -> None:
    """Raise a ValueError unless shares are three positive numbers of sum 1."""
    if len(shares) != len(SHARES) or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        given = ", ".join(f"{share:g}" for share in shares)
        raise ValueError(f"shares are {given}; expected three positive ones of sum 1")


def _without_constants(rows: SampleRows) -> Sample:
    """Leave out conditions that have the same value in every row."""
    sample = rows.sample
    columns = {name: rows.columns[name] for name in sample.condition_names}
    constant = {n: float(x[0]) for n, x in columns.items() if (x == x[0]).all()}
    if not constant:
        return sample
    listed = ", ".join(f"{name} = {value:g}" for name, value in constant.items())
    kept = tuple(v for v in sample.conditions if v.name not in constant)
    if not kept or sample.needed_conditions & set(constant):
        raise SampleError(
            f"{rows.where}: constant conditions, {listed}; expected one that varies, "
            "and none of them in the fiducial cut or the helix"
        )
    optional = {v.name for v in sample.conditions if v.optional}
    rows.left_out |= {n: x for n, x in constant.items() if n in optional}
    if constant.keys() - optional:
        warnings.warn(
            f"{rows.where}: constant conditions are left out: {listed}",
            PidganWarning,
            stacklevel=3,
        )
    return sample.without(constant)


def _check_targets(rows: SampleRows) -> None:
    """Refuse targets that are off the grid, or not in the order, that is stated."""
    sample = rows.sample
    measured = {v.name: ~rows.is_sentinel(v) for v in sample.variables}
    for variable in sample.variables:
        step, name = variable.grid_step, variable.name
        values = rows.columns[name][measured[name]].astype(np.float32)
        if step is not None:
            off = np.isnan(stated_grid(values, step).index(values))
            wanted = "whole numbers" if step == 1 else f"multiples of step = {step:g}"
            _refuse(rows, off, values, f"{name} is not on its grid", wanted)
        for other in variable.at_most:
            both = measured[name] & measured[other]
            mine, bound = (rows.columns[n][both] for n in (name, other))
            above = np.asarray(mine > bound)
            _refuse(rows, above, mine, f"{name} is above {other}", "at most that")


def _refuse(
    rows: SampleRows, bad: BoolArray, values: FloatArray, problem: str, wanted: str
) -> None:
    if bad.any():
        raise SampleError(
            f"{rows.where}: {problem} in {bad.sum()} of {len(bad)} rows, "
            f"{values[bad][0]:g} in the first one; expected {wanted}"
        )


def _weigh(
    rows: SampleRows,
) -> tuple[FloatArray, Mapping[str, FloatArray], dict[str, Any]]:
    """Return the weights, the weights of other mass fits, and a summary of the fit."""
    sample, where = rows.sample, rows.where
    fit: dict[str, Any] = {}
    others: Mapping[str, FloatArray] = {}
    name = sample.weight_branch or "sWeights"
    if sample.weight_branch or sample.sweights:
        weights: FloatArray = rows.columns[WEIGHT]
    elif sample.discriminant:
        mass = rows.columns[MASS]
        result = compute_sweights(mass, sample.discriminant, source=where)
        weights, fit = result.weights, {"fit": result.summary}
        others = alternative_sweights(mass, sample.discriminant, source=where)
    else:
        weights = np.ones(len(rows))
    if sample.sweights:
        name = f"{sample.sweights.branch} of {sample.sweights.file}"
        fit = {"sweights": sample.sweights.text()}
    check_weights(weights, f"{where}: {name}")
    total = float(weights.sum())
    if not total > 0:
        raise DatasetError(
            f"{where}: the sum of {name!r} over {len(weights)} rows is {total:g}, "
            f"expected a positive number"
        )
    return weights, others, fit


def _split(
    sample: Sample,
    rows: SampleRows,
    shares: tuple[float, float, float],
    seed: int,
    events: IntArray | None,
) -> npt.NDArray[np.uint8]:
    """Return the number of the part that each row (n,) belongs to, by its event."""
    n = len(rows) if events is None else int(events.max()) + 1
    bounds = np.round(np.cumsum(shares)[:-1] * n).astype(int)
    split = np.empty(n, dtype=np.uint8)
    order = np.random.default_rng(seed).permutation(n)
    split[order] = np.searchsorted(bounds, np.arange(n), side="right")
    split = split if events is None else split[events]
    for name, intervals in sample.exclude.items():
        for low, high in intervals:
            inside = (rows.columns[name] >= low) & (rows.columns[name] <= high)
            split[inside] = PARTS.index("excluded")
    return split


def _stack(
    columns: dict[str, npt.NDArray[Any]], names: Sequence[str]
) -> npt.NDArray[np.float32]:
    return np.stack([columns[name].astype(np.float32) for name in names], axis=1)
