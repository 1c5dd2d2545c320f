"""A Dataset built from the files of a calibration sample.

`build_dataset` reads the rows that can be used (`pidgan.sample.rows`), and fits
sWeights to those rows, or reads them from a branch or from files of their own
(`pidgan.sample.weighing`). A condition that has the same value in every row is left out
of the sample, with a warning unless it is optional.

Arrays of a large sample are made block by block, in files that are mapped: the memory
that is needed does not grow with the number of rows.
"""

import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pidgan.arguments import checked
from pidgan.arrays import FloatArray
from pidgan.errors import DatasetError, PidganWarning, SampleError
from pidgan.files.frames import Rows
from pidgan.files.mapped import GrowingArrays, read_rows, row_blocks
from pidgan.progress import Bar
from pidgan.sample.chunks import CONDITIONS, EVENTS, EXCLUDED, FURTHER, MASS, TARGETS
from pidgan.sample.dataset import PARTS, Dataset, content_hash
from pidgan.sample.definition import Sample
from pidgan.sample.event_numbers import EventNumbers
from pidgan.sample.events import EVENT
from pidgan.sample.grids import Grid, stated_grid
from pidgan.sample.loading import load_sample
from pidgan.sample.orientation import warn_exchanged
from pidgan.sample.rows import SampleRows
from pidgan.sample.rows import read_rows as read_sample_rows
from pidgan.sample.splitting import split_events
from pidgan.sample.weighing import weigh

#: Shares of the parts. The test part is large, because every figure of a report and the
#: systematic uncertainty of a PID cut come from it.
SHARES = (0.6, 0.1, 0.3)
#: Rows from which the offset of a stated grid is found.
_GRID_ROWS = 4_000_000


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
    scratch: str | Path | None = None,
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
        scratch: Folder for the temporary files of a sample that is larger than memory;
            by default that of the system (TMPDIR). They are removed with the dataset.

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
        rows = read_sample_rows(
            definition,
            files,
            sweights_from=sweights_from,
            keep=keep,
            key=key,
            bar=bar,
            scratch=scratch,
        )
        return _build(rows, seed=seed, shares=shares, keep=keep)


def _build(
    rows: SampleRows,
    *,
    seed: int,
    shares: tuple[float, float, float],
    keep: Sequence[str],
) -> Dataset:
    """Return the dataset of rows that can be used."""
    sample, conditions = _without_constants(rows)
    _check_targets(rows)
    weighed = weigh(rows)
    weights = weighed.weights
    events, kept = None, rows.arrays.get(FURTHER, np.zeros((len(rows), 0)))
    if rows.key:
        found = EventNumbers(rows.arrays.pop(EVENTS), scratch=rows.scratch)
        events = None if found.are_rows else found
    if events is not None:
        kept, keep = _with_events(kept, events, rows.scratch), [*keep, EVENT]
    split = split_events(
        len(rows), shares, seed, events=events, apart=rows.arrays.get(EXCLUDED)
    )
    names = [name for name in PARTS if name != "excluded" or sample.exclude]
    parts = _count_parts(names, split, weights)
    info: dict[str, Any] = {
        "seed": seed,
        "rows": {name: n for name, (n, _) in parts.items()},
        "sum_weights": weighed.sums.total,
        "n_eff": weighed.sums.n_eff,
        "files": rows.files,
        "rows_read": rows.n_read,
        "dropped": rows.dropped,
        "spikes": rows.spikes,
        **({"left_out": rows.left_out} if rows.left_out else {}),
        "alternatives": list(weighed.names),
        **({"kept": [*keep]} if keep else {}),
        **({"events": events.events} if events is not None else {}),
        **weighed.fit,
    }
    dataset = Dataset(
        sample=sample,
        conditions=conditions,
        targets=rows.arrays[TARGETS],
        weights=weights,
        alternatives=weighed.alternatives,
        split=split,
        kept=kept,
        discriminant=rows.arrays.get(MASS, np.zeros(0)),
        info=info,
    )
    warn_exchanged(dataset, rows.where)
    return dataclasses.replace(
        dataset, info={"hash": content_hash(dataset), **dataset.info}
    )


def check_shares(shares: Sequence[float]) -> None:
    """Raise a ValueError unless shares are three positive numbers of sum 1."""
    if len(shares) != len(SHARES) or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        given = ", ".join(f"{share:g}" for share in shares)
        raise ValueError(f"shares are {given}; expected three positive ones of sum 1")


def _without_constants(
    rows: SampleRows,
) -> tuple[Sample, npt.NDArray[np.float32]]:
    """Leave out conditions that have the same value in every row."""
    sample, conditions = rows.sample, rows.arrays[CONDITIONS]
    found = rows.tally.constant
    constant = {
        name: value
        for name in sample.condition_names
        if (value := found[name]) is not None
    }
    if not constant:
        return sample, conditions
    listed = ", ".join(f"{name} = {value:g}" for name, value in constant.items())
    kept = [i for i, v in enumerate(sample.conditions) if v.name not in constant]
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
    less = GrowingArrays(rows.scratch)
    for _, block in row_blocks(conditions):
        less.append({CONDITIONS: block[:, kept]})
    return sample.without(constant), less.finish()[CONDITIONS]


def _check_targets(rows: SampleRows) -> None:
    """Refuse targets that are off the grid, or not in the order, that is stated."""
    sample = rows.sample
    for j, variable in enumerate(sample.variables):
        if variable.grid_step is not None:
            _check_grid(rows, j, variable.grid_step)
        for other in variable.at_most:
            bad = rows.tally.above[variable.name, other]
            problem = f"{variable.name} is above {other}"
            _refuse(rows, bad.n, bad.rows, bad.first, problem, "at most that")


def _check_grid(rows: SampleRows, number: int, step: float) -> None:
    """Refuse a target that is not on the grid of its step."""
    variable = rows.sample.variables[number]

    def blocks() -> Iterator[FloatArray]:
        for _, block in row_blocks(rows.arrays[TARGETS]):
            column = block[:, number]
            sentinels = np.asarray(variable.sentinels, dtype=np.float32)
            yield column[~np.isin(column, sentinels)]

    on, n, grid = 0, 0, Grid(step=step, offset=0.0)
    for values in blocks():
        on, n = on + int(np.isfinite(grid.index(values)).sum()), n + len(values)
    if n and not on / n > 0.5:  # the offset is not zero
        some = [values[:: 1 + n // _GRID_ROWS] for values in blocks()]
        grid = stated_grid(np.concatenate(some), step)
    bad, first = 0, 0.0
    for values in blocks():
        off = np.isnan(grid.index(values))
        first = float(values[off][0]) if off.any() and not bad else first
        bad += int(off.sum())
    wanted = "whole numbers" if step == 1 else f"multiples of step = {step:g}"
    _refuse(rows, bad, n, first, f"{variable.name} is not on its grid", wanted)


def _refuse(
    rows: SampleRows, bad: int, n: int, first: float, problem: str, wanted: str
) -> None:
    if bad:
        raise SampleError(
            f"{rows.where}: {problem} in {bad} of {n} rows, "
            f"{first:g} in the first one; expected {wanted}"
        )


def _with_events(
    kept: FloatArray, events: EventNumbers, scratch: str | Path | None
) -> FloatArray:
    """Return the further columns (n, k) of rows, and the number of their event."""
    found = GrowingArrays(scratch)
    for place, numbers in events.blocks():
        column = numbers.astype(np.float64)[:, None]
        found.append({"kept": np.hstack([read_rows(kept, place), column])})
    return found.finish()["kept"]


def _count_parts(
    names: Sequence[str], split: npt.NDArray[np.uint8], weights: FloatArray
) -> dict[str, tuple[int, float]]:
    """Return the number of rows and the sum of weights of parts, a positive one."""
    counts, sums = np.zeros(len(PARTS), dtype=np.int64), np.zeros(len(PARTS))
    for place, block in row_blocks(weights):
        parts = np.asarray(read_rows(split, place))
        counts += np.bincount(parts, minlength=len(PARTS))
        sums += np.bincount(parts, weights=block, minlength=len(PARTS))
    found: dict[str, tuple[int, float]] = {}
    for code, name in enumerate(PARTS):
        if name not in names:
            continue
        n, total = int(counts[code]), float(sums[code])
        if not total > 0:
            raise DatasetError(
                f"the {name} part has {n} rows with a sum of weights of "
                f"{total:g}, expected a positive number; more rows are needed"
            )
        found[name] = (n, total)
    return found
