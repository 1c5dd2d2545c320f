"""Apply generators to analysis ntuples: new files with generated PID branches.

`apply` reads each file in chunks, generates the targets of each track from the
conditions found in the file (`pidgan.mapping`) and writes a copy with the targets, or
a friend tree. Nothing depends on the size of the chunks: the noise of an entry is keyed
by seed, track and running entry number, or by branches that identify it. Beside each
output lies a manifest; a rerun with the same request skips what is finished.
"""

import json
import os
import platform
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from pidgan.errors import NtupleError, PidganWarning
from pidgan.mapping import UNIT_CHECK_ENTRIES, check_overrides, check_units
from pidgan.ntuple import (
    Source,
    count_entries,
    find_sources,
    list_branches,
    read_columns,
)
from pidgan.ntuple_copy import Addition, copy_file, unwritable
from pidgan.tracks import (
    MISSING,
    NO_BUNDLE,
    STATUS_BITS,
    Option,
    Track,
    TrackPlan,
    generate_branches,
    open_generators,
    plan_track,
)
from pidgan.treefile import PARQUET_SUFFIXES, is_parquet, is_remote, replacing

Mode: TypeAlias = Literal["append", "replace", "friend"]

MANIFEST_SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class ApplySummary:
    """What `apply` did, or would do.

    Attributes:
        outputs: the files written, or that would be.
        skipped: those of them that were finished before.
        entries: entries of all input trees.
        bundles: for each track its bundles: path, species, sha256.
        mapping: for each track, where each condition is found in the first tree.
        targets: for each track the names of the new branches, status included.
        counts: for each track the entries with generated targets, and those with each
            status bit; empty for a dry run.
        dry_run: whether nothing was written.
    """

    outputs: tuple[str, ...]
    skipped: tuple[str, ...]
    entries: int
    bundles: dict[str, list[dict[str, str]]]
    mapping: dict[str, dict[str, str]]
    targets: dict[str, list[str]]
    counts: dict[str, dict[str, int]]
    dry_run: bool

    def to_json(self) -> str:
        """Return the summary as JSON."""
        return json.dumps(asdict(self), indent=2)

    def text(self) -> str:
        """Return the summary as lines to read."""
        verb = "would write" if self.dry_run else "wrote"
        lines = [f"{self.entries} entries"]
        for track, mapping in self.mapping.items():
            species = ", ".join(b["species"] for b in self.bundles[track])
            lines.append(f"{track} ({species}): {', '.join(self.targets[track])}")
            lines += [f"  {name} = {origin}" for name, origin in mapping.items()]
            counts = self.counts.get(track, {})
            lines += [f"  {name}: {count}" for name, count in counts.items()]
        for path in self.outputs:
            done = path in self.skipped
            lines.append(f"{'skipped, finished before:' if done else verb} {path}")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class _TreePlan:
    """An input tree, what it gets, and the running number of its first entry."""

    source: Source
    branches: Mapping[str, str]
    first_entry: int
    entries: int
    tracks: tuple[TrackPlan, ...]

    @property
    def needed(self) -> tuple[str, ...]:
        """Branches to read."""
        return tuple(dict.fromkeys(n for track in self.tracks for n in track.needed))

    @property
    def types(self) -> dict[str, np.dtype[Any]]:
        """The new branches with their types."""
        return {n: kind for t in self.tracks for n, kind in t.types.items()}


@dataclass(frozen=True, kw_only=True)
class _FilePlan:
    """An input file: its trees, where the copy goes, and what was asked for."""

    output: Path
    trees: tuple[_TreePlan, ...]
    request: dict[str, Any]

    @property
    def entries(self) -> int:
        """Entries of all its trees."""
        return sum(tree.entries for tree in self.trees)


def apply(
    tracks: Mapping[str, Track],
    files: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    mode: Mode = "append",
    seed: int = 1,
    species_from: str | None = None,
    branches: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    suffix: str = "",
    key: Sequence[str] = (),
    chunk: int = 200_000,
    overwrite: bool = False,
    dry_run: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ApplySummary:
    """Write copies of analysis ntuples with generated PID branches.

    Every track gets a branch `{track}_{target}{suffix}` (float32) for each target and
    `{track}_pidgan_status{suffix}` (int8) with bits 1: a condition outside the trained
    range, 2: a condition missing (targets NaN), 4: no bundle for the species (targets
    NaN), 8: outside the fiducial cut. Inputs are never changed. All checks that need no
    generation come before the first file is written.

    Args:
        tracks: prefix of each track, with its bundle, an open generator, or a directory
            of bundles from which `species_from` chooses.
        files: as for `find_sources`: FILE, FILE:TREE, globs, addresses, Parquet.
        output: a file, if there is one input file and the name ends in .root or
            .parquet; else a directory, where files keep their names.
        mode: "append" adds branches; "replace" replaces those that exist; "friend"
            writes trees that hold the new branches only.
        seed: seed of the noise.
        species_from: NAME of the branches `{track}_NAME` that hold a PDG id; entries of
            another species than the bundles' get NaN.
        branches: CONDITION or TRACK.CONDITION to the branch that holds it.
        units: likewise to its unit in the file, "MeV" or "GeV".
        suffix: end of the new names.
        key: branches that identify an event, such as ("runNumber", "eventNumber"). The
            noise is then a hash of them and of the values of the track's conditions (or
            of a branch with `{track}` in its name, if there is one), not of the entry
            number: equal in skims, merges and re-orderings.
        chunk: most entries in memory at a time; the result does not depend on it.
        overwrite: replace existing outputs.
        dry_run: only find out what would be done.
        progress: called with entries done and entries in all.

    Returns:
        The summary; each output also gets one, `<output>.json`.

    Raises:
        NtupleError: a file, branch, unit or output is not as needed.
        BundleError: a bundle is refused.

    Example:
        >>> apply({"Kplus": "kaon.onnx"}, "d2kpi.root:DecayTree", "out.root")
        ... # doctest: +SKIP
    """
    if mode not in ("append", "replace", "friend"):
        raise ValueError(f"mode is {mode!r}, expected append, replace or friend")
    if not tracks:
        raise ValueError("tracks is empty, expected at least one")
    options = {
        track: open_generators(track, given, species_from)
        for track, given in tracks.items()
    }
    names = {track: _condition_names(found) for track, found in options.items()}
    check_overrides(branches or {}, names, option="branch")
    check_overrides(units or {}, names, option="unit")
    request = {
        "mode": mode,
        "seed": seed,
        "species_from": species_from,
        "branches": dict(branches or {}),
        "units": dict(units or {}),
        "suffix": suffix,
        "key": list(key),
        "tracks": {t: [o.sha256 for o in found] for t, found in options.items()},
        "pidgan": _version("pidgan"),
    }
    plans = _plan(options, find_sources(files), Path(output), request)
    total = sum(plan.entries for plan in plans)
    if total == 0:
        trees = ", ".join(str(tree.source) for plan in plans for tree in plan.trees)
        raise NtupleError(f"{trees}: got 0 entries, expected at least 1")
    pending = [plan for plan in plans if not _is_finished(plan, overwrite=overwrite)]
    for plan in pending:
        for tree in plan.trees:
            _check_tree(tree, mode)
    counts: dict[str, dict[str, int]] = {}
    for plan in plans if not dry_run else ():
        if plan in pending:
            found = _write(plan, total, chunk, overwrite, progress)
        else:
            found = _read_manifest(plan.output)["counts"]
        for track, numbers in found.items():
            sums = counts.get(track, {})
            counts[track] = {n: sums.get(n, 0) + m for n, m in numbers.items()}
    first = plans[0].trees[0].tracks
    return ApplySummary(
        outputs=tuple(str(plan.output) for plan in plans),
        skipped=tuple(str(plan.output) for plan in plans if plan not in pending),
        entries=total,
        bundles={track: _bundles(found) for track, found in options.items()},
        mapping={track.name: track.mapping for track in first},
        targets={track.name: list(track.types) for track in first},
        counts=counts,
        dry_run=dry_run,
    )


def _condition_names(options: Iterable[Option]) -> set[str]:
    return {name for o in options for name in o.generator.card.condition_names}


def _bundles(options: Iterable[Option]) -> list[dict[str, str]]:
    """Return what a summary says of the generators of a track."""
    return [
        {"path": o.where, "species": o.generator.card.species, "sha256": o.sha256}
        for o in options
    ]


def _plan(
    options: Mapping[str, tuple[Option, ...]],
    sources: Sequence[Source],
    output: Path,
    request: Mapping[str, Any],
) -> list[_FilePlan]:
    """Return what is to be done with each file, in the order of their entries."""
    by_path: dict[str, list[Source]] = {}
    for source in sources:
        by_path.setdefault(source.path, []).append(source)
    outputs = _outputs(list(by_path), output)
    settings = {
        name: request[name]
        for name in ("branches", "units", "species_from", "key", "suffix")
    }
    plans = []
    entry = 0
    for path, found in by_path.items():
        trees = []
        for source in found:
            present = list_branches(source)
            tracks = tuple(
                plan_track(track, option, source, present, **settings)
                for track, option in options.items()
            )
            tree = _TreePlan(
                source=source,
                branches=present,
                first_entry=entry,
                entries=count_entries(source),
                tracks=tracks,
            )
            trees.append(tree)
            entry += tree.entries
        stamp = {
            "file": path,
            "trees": [[t.source.tree, t.first_entry, t.entries] for t in trees],
            **_stamp(path),
        }
        plan = _FilePlan(
            output=outputs[path],
            trees=tuple(trees),
            request={**request, "input": stamp},
        )
        plans.append(plan)
    return plans


def _outputs(paths: Sequence[str], output: Path) -> dict[str, Path]:
    """Return the output file of each input file."""
    suffixes = (".root", *PARQUET_SUFFIXES)
    is_file = output.suffix.lower() in suffixes and not output.is_dir()
    if is_file and len(paths) > 1:
        raise NtupleError(f"{output}: expected a directory for {len(paths)} files")
    outputs = {
        path: output if is_file else output / Path(path.partition("?")[0]).name
        for path in paths
    }
    written: dict[Path, str] = {}
    for path, file in outputs.items():
        if file in written:
            raise NtupleError(
                f"{written[file]} and {path} have the same name: both would be {file}; "
                "apply to them one by one"
            )
        written[file] = path
        if is_parquet(file) != is_parquet(path):
            raise NtupleError(f"{file}: expected a name that ends as that of {path}")
    for path in paths:
        for file in written:
            if file.exists() and not is_remote(path) and file.samefile(path):
                raise NtupleError(f"{file} is an input; an input is never changed")
    return outputs


def _stamp(path: str) -> dict[str, int]:
    """Return size and time of change of a local file."""
    if is_remote(path):
        return {}
    status = os.stat(path)
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _is_finished(plan: _FilePlan, *, overwrite: bool) -> bool:
    """Return whether an earlier run wrote this output; raise if another is there."""
    if overwrite:
        return False
    manifest = _read_manifest(plan.output)
    if not manifest and _manifest(plan.output).exists():
        raise NtupleError(
            f"{_manifest(plan.output)} exists and is not the manifest of an output; "
            "choose another name or give --overwrite"
        )
    if not plan.output.exists():
        return False
    old = {**manifest.get("request", {}), "output": manifest.get("output")}
    new = {**plan.request, "output": {"size": plan.output.stat().st_size}}
    differing = sorted(name for name in new if old.get(name) != new[name])
    if not differing:
        return True
    reason = f" and differs in {', '.join(differing)}" if manifest else ""
    raise NtupleError(
        f"{plan.output} exists{reason}; choose another name or give --overwrite"
    )


def _read_manifest(output: Path) -> dict[str, Any]:
    """Return the manifest beside an output, empty if there is none."""
    try:
        content = json.loads(_manifest(output).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and "request" in content else {}


def _manifest(output: Path) -> Path:
    return output.with_name(f"{output.name}.json")


def _check_tree(tree: _TreePlan, mode: Mode) -> None:
    """Raise if a tree cannot be processed; nothing is written yet."""
    source = tree.source
    refused = {} if mode == "friend" else unwritable(source)
    if refused:
        listed = ", ".join(f"{name!r} ({kind})" for name, kind in refused.items())
        raise NtupleError(f"{source}: uproot cannot write {listed}; use --mode friend")
    fresh = [name for track in tree.tracks for name in track.types]
    repeated = sorted({name for name in fresh if fresh.count(name) > 1})
    if repeated:
        raise NtupleError(f"two targets make the same branch {repeated[0]!r}")
    existing = [name for name in fresh if name in tree.branches]
    if mode == "append" and existing:
        raise NtupleError(
            f"{source} has branches {', '.join(map(repr, existing))} already; use "
            "--mode replace, --mode friend or --suffix"
        )
    if tree.entries == 0:
        warnings.warn(f"{source} has 0 entries", PidganWarning, stacklevel=3)
        return
    head = read_columns(source, tree.needed, stop=UNIT_CHECK_ENTRIES)
    for track in tree.tracks:
        for conditions in track.conditions:
            check_units(conditions, head, source, track.name)


def _write(
    plan: _FilePlan,
    total: int,
    chunk: int,
    overwrite: bool,
    progress: Callable[[int, int], None] | None,
) -> dict[str, dict[str, int]]:
    """Write one file and its manifest; return the counts of each track."""
    tracks = plan.trees[0].tracks
    names = ["generated", *STATUS_BITS]
    counts = {track.name: dict.fromkeys(names, 0) for track in tracks}
    additions = [
        Addition(
            source=tree.source,
            needed=tree.needed,
            types=tree.types,
            compute=_computation(tree, plan.request["seed"], total, counts, progress),
        )
        for tree in plan.trees
    ]
    keep = plan.request["mode"] != "friend"
    copy_file(additions, plan.output, keep=keep, overwrite=overwrite, chunk=chunk)
    content = {
        "schema": MANIFEST_SCHEMA,
        "request": plan.request,
        "output": {"size": plan.output.stat().st_size},
        "mapping": {track.name: track.mapping for track in tracks},
        "bundles": {track.name: _bundles(track.options) for track in tracks},
        "counts": counts,
        "versions": _versions(),
    }
    with replacing(_manifest(plan.output), overwrite=True) as temporary:
        temporary.write_text(json.dumps(content, indent=2), encoding="utf-8")
    return counts


def _computation(
    tree: _TreePlan,
    seed: int,
    total: int,
    counts: dict[str, dict[str, int]],
    progress: Callable[[int, int], None] | None,
) -> Callable[[int, pd.DataFrame], dict[str, npt.NDArray[Any]]]:
    """Return the function that makes the new branches of a chunk, and counts."""

    def compute(first: int, frame: pd.DataFrame) -> dict[str, npt.NDArray[Any]]:
        start = tree.first_entry + first
        columns: dict[str, npt.NDArray[Any]] = {}
        for track in tree.tracks:
            fresh = generate_branches(track, frame, seed=seed, start=start)
            _count(counts[track.name], fresh[track.status])
            columns |= fresh
        if progress is not None:
            progress(start + len(frame), total)
        return columns

    return compute


def _count(counts: dict[str, int], status: npt.NDArray[np.int8]) -> None:
    """Add the entries of a chunk to the counts of a track."""
    counts["generated"] += int(np.count_nonzero((status & (MISSING | NO_BUNDLE)) == 0))
    for name, bit in STATUS_BITS.items():
        counts[name] += int(np.count_nonzero(status & bit))


def _versions() -> dict[str, str]:
    """Return the versions that a manifest records."""
    names = ("awkward", "numpy", "onnxruntime", "pyarrow", "uproot")
    return {"python": platform.python_version()} | {n: _version(n) for n in names}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
