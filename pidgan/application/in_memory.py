"""Generated columns of rows in memory, by the code that serves files.

`apply` gives a frame with the new columns, `sample` these alone. The record that an
output file holds is in the `attrs` of the frame.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pandas as pd

from pidgan.application import one_file
from pidgan.application.conditions import Conditions
from pidgan.application.one_file import FileJob, Tally, TreePlan, computation
from pidgan.application.planning import (
    final_texts,
    largest_chunk,
    open_tracks,
    plan_files,
)
from pidgan.application.quantile_map import QuantileMap
from pidgan.application.request import Request
from pidgan.application.workers import share_machine
from pidgan.bundle.card import Generator
from pidgan.bundle.collection import Collection, Gaps
from pidgan.errors import NtupleError, PidganWarning
from pidgan.files import tables
from pidgan.files.computing import compute_columns
from pidgan.files.frames import Frame, fits_dataframe, frame_source, with_columns
from pidgan.files.trees import RECORD, Addition, Source


@dataclass(frozen=True, kw_only=True)
class NewColumns:
    """New columns of rows in memory, and the lines of their record."""

    source: Source
    plan: TreePlan
    columns: dict[str, Any]
    lines: list[str]


def apply_to_frame(
    request: Request,
    frame: Frame,
    *,
    chunk: int | None,
    threads: int | None,
    progress: Callable[[int, int], None] | None,
) -> Any:
    """Return rows with the new columns of all tracks, as `request.mode` says."""
    source = frame_source(frame)
    keep = request.mode != "friend"
    made = _generate(
        request,
        source,
        is_whole=True,
        chunk=chunk,
        threads=threads,
        progress=progress,
    )
    return with_columns(source, made.columns, keep=keep, record=made.lines)


def sample(
    generator: Generator | Collection,
    frame: Frame,
    *,
    seed: int = 1,
    track: str = "",
    columns: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    scales: Mapping[str, float] | None = None,
    quantile_maps: Mapping[str, QuantileMap | str | Path] | None = None,
    key: Sequence[str] = (),
    start: int = 0,
    species_from: str | None = None,
    gaps: Gaps | None = None,
    threads: int | None = None,
) -> pd.DataFrame:
    """Return generated targets and status of rows in memory, see `Bundle.sample`."""
    request = Request(
        tracks={track: generator},
        mode="friend",
        seed=seed,
        species_from=species_from,
        conditions=Conditions(
            branches=columns or {},
            units=units or {},
            scales=scales or {},
            quantile_maps=quantile_maps or {},
        ),
        key=tuple(key),
        gaps=gaps,
        corrects=not isinstance(generator, Collection) and generator.card.is_corrector,
    )
    source = frame_source(frame)
    made = _generate(request, source, is_whole=False, start=start, threads=threads)
    return _flat(made)


def _generate(
    request: Request,
    source: Source,
    *,
    is_whole: bool,
    start: int = 0,
    chunk: int | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> NewColumns:
    """Return the new columns of all tracks; everything is checked before the first.

    Where they are put beside the rows, `is_whole`, these must be able to hold them.
    """
    generators, asked = open_tracks(request)
    info = tables.describe_tree(source)
    share = share_machine(1, workers=1, threads=threads)
    stamp = {"file": None, "trees": [[None, start, info.entries]]}
    job = FileJob(
        request=request,
        record={**asked, "input": stamp},
        trees=((source, info, start),),
        output=Path(),
        overwrite=False,
        chunk=chunk or largest_chunk(generators),
        chunk_bytes=share.chunk_bytes,
        threads=share.threads,
    )
    (plan,) = plan_files([job], generators, ())
    (tree,) = plan.trees
    one_file.run_self_tests([plan], generators)
    one_file.check_tree(tree, request.mode, set())
    shapes = (kind.shape for kind in tree.types.values())
    if is_whole and not fits_dataframe(source.table.rows, shapes):
        raise NtupleError(
            f"{source}: new columns have several values per row, which a DataFrame "
            "cannot hold; give an awkward array"
        )
    tally = Tally(tree)

    def report(entries: int) -> None:
        if progress is not None:
            progress(tally.made.entries, info.entries)

    addition = Addition(
        source=source,
        needed=tree.needed,
        types=tree.written,
        compute=computation(tree, share.threads, tally, report),
    )
    columns = compute_columns(addition, chunk=job.chunk, chunk_bytes=job.chunk_bytes)
    old = [] if request.mode == "friend" else tables.read_record(source)
    line = tally.line(job, [])
    lines = one_file.record_lines(plan, [line], old)
    done = line["tracks"]
    outside = {track: own["outside"] for track, own in done.items()}
    cuts = {t: own["sample_cuts"] for t, own in done.items() if "sample_cuts" in own}
    for text in final_texts(outside, cuts, generators):
        warnings.warn(text, PidganWarning, stacklevel=5)
    return NewColumns(source=source, plan=tree, columns=columns, lines=lines)


def _flat(made: NewColumns) -> pd.DataFrame:
    """Return the columns of a track with one number per row, and one row per track."""
    (track,) = made.plan.tracks
    card = track.all_generators.members[0].generator.card
    outputs = track.all_generators.members[0].outputs
    flat: dict[str, Any] = {}
    for target, cells in outputs.items():
        values = made.columns[track.branch(target)]
        if cells is None:
            flat[track.branch(target)] = values
        else:
            names = map(track.branch, card.target_names[cells])
            flat |= dict(zip(names, values.T, strict=True))
    others = [n for n in made.columns if n not in map(track.branch, outputs)]
    flat |= {name: made.columns[name] for name in others}
    rows = made.source.table.rows
    index = rows.index if isinstance(rows, pd.DataFrame) else None
    if track.shape:
        index = _index_of_tracks(next(iter(flat.values())), index)
        flat = {n: np.asarray(ak.flatten(v, axis=1)) for n, v in flat.items()}
    frame = pd.DataFrame(flat, index=index, copy=False)
    frame.attrs[RECORD] = made.lines
    return frame


def _index_of_tracks(values: Any, index: pd.Index | None) -> pd.MultiIndex:
    """Return row and number of each track, as `awkward.to_dataframe` has them."""
    counts = np.asarray(ak.num(values, axis=1), dtype=np.int64)
    own = np.arange(len(counts)) if index is None else index
    starts = np.cumsum(counts) - counts
    place = np.arange(int(counts.sum())) - np.repeat(starts, counts)
    return pd.MultiIndex.from_arrays(
        [own.repeat(counts), place], names=["entry", "subentry"]
    )
