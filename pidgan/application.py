"""Apply generators to analysis ntuples: new files with generated PID branches.

`apply` reads each file in chunks, generates the targets of each track from the
conditions found in the file (`pidgan.mapping`) and writes a copy with the targets, or
a friend tree. Nothing depends on the size of the chunks: the noise of an entry is keyed
by seed, track and running entry number, or by branches that identify it. Beside each
output lies a manifest; a rerun with the same request skips what is finished.
"""

import hashlib
import json
import os
import platform
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from pidgan.bundle import open_bundle
from pidgan.card import Generator
from pidgan.cuts import parse_cut
from pidgan.errors import NtupleError, PidganWarning, nearest
from pidgan.mapping import (
    UNIT_CHECK_ENTRIES,
    Condition,
    check_overrides,
    check_units,
    find_conditions,
)
from pidgan.noise import column_keys, entry_keys, keyed_normal
from pidgan.ntuple import (
    Source,
    count_entries,
    find_sources,
    list_branches,
    read_columns,
)
from pidgan.ntuple_copy import Addition, copy_file, unwritable
from pidgan.treefile import PARQUET_SUFFIXES, is_remote, replacing

Mode: TypeAlias = Literal["append", "replace", "friend"]
Track: TypeAlias = str | Path | Generator

OUTSIDE_RANGE = np.int8(1)
"""Status bit: a condition lies outside the trained range; targets are generated."""

MISSING = np.int8(2)
"""Status bit: a condition is NaN or infinite; targets are NaN."""

NO_BUNDLE = np.int8(4)
"""Status bit: there is no bundle for the species; targets are NaN."""

OUTSIDE_FIDUCIAL = np.int8(8)
"""Status bit: the fiducial cut of the calibration sample fails; targets are generated."""

STATUS_BITS = {
    "outside_range": OUTSIDE_RANGE,
    "missing_condition": MISSING,
    "no_bundle": NO_BUNDLE,
    "outside_fiducial": OUTSIDE_FIDUCIAL,
}

NOISE_ROWS = 65_536
"""Rows generated at a time: bounds the memory that the noise takes."""

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
class _Option:
    """A generator of a track, and the PDG id whose entries it serves."""

    generator: Generator
    pdg_id: int
    where: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class _TrackPlan:
    """A track in one tree: its generators with their conditions there."""

    name: str
    options: tuple[_Option, ...]
    conditions: tuple[tuple[Condition, ...], ...]
    species: str | None
    targets: tuple[str, ...]
    key: tuple[str, ...]
    suffix: str

    @property
    def status(self) -> str:
        """Name of the status branch."""
        return f"{self.name}_pidgan_status{self.suffix}"

    @property
    def identity(self) -> tuple[str, ...]:
        """Branches whose values make the noise key; empty if entries are numbered."""
        if not self.key:
            return ()
        own = [key.replace("{track}", self.name) for key in self.key]
        if own != list(self.key):
            return tuple(own)
        return tuple(dict.fromkeys([*own, *self.inputs]))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Branches that hold conditions, in the order of their conditions' names."""
        found = {
            (condition.variable.name, name): name
            for conditions in self.conditions
            for condition in conditions
            for name in condition.inputs
        }
        return tuple(dict.fromkeys(found[place] for place in sorted(found)))

    @property
    def needed(self) -> tuple[str, ...]:
        """Branches to read."""
        extra = () if self.species is None else (self.species,)
        return tuple(dict.fromkeys([*self.inputs, *self.identity, *extra]))

    def branch(self, target: str) -> str:
        """Return the name of the branch of a target."""
        return f"{self.name}_{target}{self.suffix}"


@dataclass(frozen=True, kw_only=True)
class _FilePlan:
    """An input file: its trees, what they get, and where the copy goes."""

    output: Path
    sources: tuple[Source, ...]
    tracks: tuple[tuple[_TrackPlan, ...], ...]
    first_entries: tuple[int, ...]
    entries: int
    request: dict[str, Any] = field(default_factory=dict)


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
        >>> apply({"Kplus": "kaon.onnx"}, "b2kpi.root:DecayTree", "out.root")
        ... # doctest: +SKIP
    """
    if mode not in ("append", "replace", "friend"):
        raise ValueError(f"mode is {mode!r}, expected append, replace or friend")
    if not tracks:
        raise ValueError("tracks is empty, expected at least one")
    options = {
        track: _options(track, given, species_from) for track, given in tracks.items()
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
        "tracks": {t: _bundles(found) for t, found in options.items()},
        "pidgan": _version("pidgan"),
    }
    plans = _plan(options, find_sources(files), Path(output), request)
    pending = [plan for plan in plans if not _is_finished(plan, overwrite=overwrite)]
    for plan in pending:
        _check_file(plan, mode)
    total = sum(plan.entries for plan in plans)
    if total == 0:
        trees = ", ".join(str(source) for plan in plans for source in plan.sources)
        raise NtupleError(f"{trees}: got 0 entries, expected at least 1")
    counts: dict[str, dict[str, int]] = {}
    done = 0
    for plan in plans if not dry_run else ():
        if plan in pending:
            found = _write(plan, done, total, chunk, overwrite, progress)
        else:
            found = _read_manifest(plan.output)["counts"]
        for track, numbers in found.items():
            sums = counts.setdefault(track, dict.fromkeys(numbers, 0))
            counts[track] = {name: sums[name] + numbers[name] for name in numbers}
        done += plan.entries
    first = plans[0].tracks[0]
    return ApplySummary(
        outputs=tuple(str(plan.output) for plan in plans),
        skipped=tuple(str(plan.output) for plan in plans if plan not in pending),
        entries=total,
        bundles={track: _bundles(found) for track, found in options.items()},
        mapping={track.name: _mapping(track) for track in first},
        targets={track.name: [*_types(track)] for track in first},
        counts=counts,
        dry_run=dry_run,
    )


def _options(track: str, given: Track, species_from: str | None) -> tuple[_Option, ...]:
    """Open the generators of a track."""
    if not isinstance(given, str | Path):
        return (_option(given, getattr(given, "path", type(given).__name__)),)
    path = Path(given)
    if not path.is_dir():
        return (_option(open_bundle(path), path),)
    if species_from is None:
        raise NtupleError(
            f"{track}: {path} is a directory of bundles; say which branch holds the "
            "PDG id, --species-from TRUEID, or name one bundle"
        )
    paths = sorted(path.glob("*.onnx"))
    if not paths:
        raise NtupleError(f"{track}: {path} holds no bundle (*.onnx)")
    options = tuple(_option(open_bundle(file), file) for file in paths)
    _check_unambiguous(track, options)
    return options


def _option(generator: Generator, where: str | Path) -> _Option:
    """Return a generator with its species and hash."""
    text = generator.card.to_json()
    digest = hashlib.sha256(text.encode()).hexdigest()
    return _Option(
        generator=generator,
        pdg_id=_pdg_id(generator.card.species),
        where=str(where),
        sha256=getattr(generator, "sha256", digest),
    )


def _pdg_id(species: str) -> int:
    """Return the PDG id of a name; the smallest, as a proton is a nucleus too."""
    from particle import Particle

    found = [int(particle.pdgid) for particle in Particle.finditer(name=species)]
    if not found:
        raise NtupleError(f"species {species!r} is no particle's PDG name")
    return min(found, key=abs)


def _check_unambiguous(track: str, options: Sequence[_Option]) -> None:
    """Raise if several bundles of a directory serve the same species."""
    by_species: dict[int, list[_Option]] = {}
    for option in options:
        by_species.setdefault(abs(option.pdg_id), []).append(option)
    for found in by_species.values():
        signs = {option.pdg_id for option in found}
        if len(found) > 1 and len(signs) < len(found):
            listed = "; ".join(
                f"{option.where} {option.generator.card.sample.data_taking}"
                for option in found
            )
            raise NtupleError(
                f"{track}: several bundles for {found[0].generator.card.species}, "
                f"expected one: {listed}; name one bundle, or put those of one period, "
                "polarity and tuning in a directory of their own"
            )


def _condition_names(options: Iterable[_Option]) -> set[str]:
    return {name for o in options for name in o.generator.card.condition_names}


def _bundles(options: Iterable[_Option]) -> list[dict[str, str]]:
    """Return what a summary says of the generators of a track."""
    return [
        {"path": o.where, "species": o.generator.card.species, "sha256": o.sha256}
        for o in options
    ]


def _plan(
    options: Mapping[str, tuple[_Option, ...]],
    sources: Sequence[Source],
    output: Path,
    request: Mapping[str, Any],
) -> list[_FilePlan]:
    """Return what is to be done with each file."""
    by_path: dict[str, list[Source]] = {}
    for source in sources:
        by_path.setdefault(source.path, []).append(source)
    outputs = _outputs(list(by_path), output)
    plans = []
    first = 0
    for path, trees in by_path.items():
        starts, start = [], first
        for source in trees:
            starts.append(first)
            first += count_entries(source)
        inputs = {
            "file": path,
            "trees": [source.tree for source in trees],
            "entries": first - start,
            "first_entry": start,
            **_stamp(path),
        }
        plans.append(
            _FilePlan(
                output=outputs[path],
                sources=tuple(trees),
                tracks=tuple(_tracks(options, source, request) for source in trees),
                first_entries=tuple(starts),
                entries=first - start,
                request={**request, "input": inputs},
            )
        )
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
        known = Path(path).suffix.lower() in PARQUET_SUFFIXES
        if (file.suffix.lower() in PARQUET_SUFFIXES) != known:
            raise NtupleError(f"{file}: expected a name that ends as that of {path}")
    for path in paths:
        for file in written:
            if file.exists() and not is_remote(path) and file.samefile(path):
                raise NtupleError(f"{file} is an input; an input is never changed")
    return outputs


def _tracks(
    options: Mapping[str, tuple[_Option, ...]],
    source: Source,
    request: Mapping[str, Any],
) -> tuple[_TrackPlan, ...]:
    """Return what each track gets in one tree."""
    present = list_branches(source)
    tracks = []
    for track, found in options.items():
        conditions = tuple(
            find_conditions(
                option.generator.card,
                track,
                source,
                present,
                branches=request["branches"],
                units=request["units"],
            )
            for option in found
        )
        species = request["species_from"]
        targets = (name for o in found for name in o.generator.card.target_names)
        plan = _TrackPlan(
            name=track,
            options=found,
            conditions=conditions,
            species=None if species is None else f"{track}_{species}",
            targets=tuple(dict.fromkeys(targets)),
            key=tuple(request["key"]),
            suffix=request["suffix"],
        )
        for name in plan.needed:
            if name not in present:
                raise NtupleError(
                    f"{source} has no branch {name!r}, needed for {track}"
                    f"{nearest(name, present)}"
                )
        tracks.append(plan)
    return tuple(tracks)


def _stamp(path: str) -> dict[str, int]:
    """Return size and time of change of a local file."""
    if is_remote(path):
        return {}
    status = os.stat(path)
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _is_finished(plan: _FilePlan, *, overwrite: bool) -> bool:
    """Return whether an earlier run wrote this output; raise if another is there."""
    if overwrite or not plan.output.exists():
        return False
    manifest = _read_manifest(plan.output)
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
    return content if isinstance(content, dict) else {}


def _manifest(output: Path) -> Path:
    return output.with_name(f"{output.name}.json")


def _check_file(plan: _FilePlan, mode: Mode) -> None:
    """Raise if the file cannot be processed; nothing is written yet."""
    for source, tracks in zip(plan.sources, plan.tracks, strict=True):
        if mode != "friend":
            refused = unwritable(source)
            if refused:
                listed = ", ".join(f"{n!r} ({kind})" for n, kind in refused.items())
                raise NtupleError(
                    f"{source}: uproot cannot write {listed}; use --mode friend"
                )
        present = list_branches(source)
        fresh = [name for track in tracks for name in _types(track)]
        repeated = sorted({name for name in fresh if fresh.count(name) > 1})
        existing = [name for name in fresh if name in present]
        if repeated:
            raise NtupleError(f"two tracks make the same branch {repeated[0]!r}")
        if mode == "append" and existing:
            raise NtupleError(
                f"{source} has branches {', '.join(map(repr, existing))} already; use "
                "--mode replace, --mode friend or --suffix"
            )
        if count_entries(source) == 0:
            warnings.warn(f"{source} has 0 entries", PidganWarning, stacklevel=3)
            continue
        needed = list(dict.fromkeys(name for track in tracks for name in track.needed))
        head = read_columns(source, needed, stop=UNIT_CHECK_ENTRIES)
        for track in tracks:
            for conditions in track.conditions:
                check_units(conditions, head, source, track.name)


def _types(track: _TrackPlan) -> dict[str, np.dtype[Any]]:
    """Return the new branches of a track with their types."""
    types: dict[str, np.dtype[Any]] = {
        track.branch(target): np.dtype(np.float32) for target in track.targets
    }
    return types | {track.status: np.dtype(np.int8)}


def _mapping(track: _TrackPlan) -> dict[str, str]:
    """Return where each condition of a track is found."""
    return {c.variable.name: str(c) for found in track.conditions for c in found}


def _write(
    plan: _FilePlan,
    done: int,
    total: int,
    chunk: int,
    overwrite: bool,
    progress: Callable[[int, int], None] | None,
) -> dict[str, dict[str, int]]:
    """Write one file and its manifest; return the counts of each track."""
    seed = int(plan.request["seed"])
    counts = {
        track.name: dict.fromkeys(["generated", *STATUS_BITS], 0)
        for track in plan.tracks[0]
    }

    def compute(
        tracks: tuple[_TrackPlan, ...], start: int, first: int, frame: pd.DataFrame
    ) -> dict[str, npt.NDArray[Any]]:
        columns: dict[str, npt.NDArray[Any]] = {}
        for track in tracks:
            fresh = _generate(track, frame, seed=seed, start=start + first)
            _count(counts[track.name], fresh[track.status])
            columns |= fresh
        if progress is not None:
            progress(start + first + len(frame), total)
        return columns

    additions = [
        Addition(
            source=source,
            needed=tuple(dict.fromkeys(n for track in tracks for n in track.needed)),
            types={n: kind for t in tracks for n, kind in _types(t).items()},
            compute=lambda first, frame, tracks=tracks, start=start: compute(
                tracks, start, first, frame
            ),
        )
        for source, tracks, start in zip(
            plan.sources, plan.tracks, plan.first_entries, strict=True
        )
    ]
    keep = plan.request["mode"] != "friend"
    copy_file(additions, plan.output, keep=keep, overwrite=overwrite, chunk=chunk)
    content = {
        "schema": MANIFEST_SCHEMA,
        "request": plan.request,
        "output": {"size": plan.output.stat().st_size},
        "mapping": {track.name: _mapping(track) for track in plan.tracks[0]},
        "counts": counts,
        "versions": _versions(),
    }
    with replacing(_manifest(plan.output), overwrite=True) as temporary:
        temporary.write_text(json.dumps(content, indent=2), encoding="utf-8")
    return counts


def _count(counts: dict[str, int], status: npt.NDArray[np.int8]) -> None:
    """Add the entries of a chunk to the counts of a track."""
    counts["generated"] += int(np.count_nonzero((status & (MISSING | NO_BUNDLE)) == 0))
    for name, bit in STATUS_BITS.items():
        counts[name] += int(np.count_nonzero(status & bit))


def _generate(
    track: _TrackPlan, frame: pd.DataFrame, *, seed: int, start: int
) -> dict[str, npt.NDArray[Any]]:
    """Return the new branches of a track for a chunk that starts at an entry."""
    entries = len(frame)
    targets = {
        target: np.full(entries, np.nan, dtype=np.float32) for target in track.targets
    }
    status = np.zeros(entries, dtype=np.int8)
    if track.identity:
        values = [frame[name].to_numpy() for name in track.identity]
        keys = column_keys(values, seed=seed)
    else:
        keys = entry_keys(
            seed=seed, track=track.name, start=start, stop=start + entries
        )
    served = np.zeros(entries, dtype=np.bool_)
    for option, conditions in zip(track.options, track.conditions, strict=True):
        rows = _rows_of(option, track, frame)
        served[rows] = True
        for first in range(0, len(rows), NOISE_ROWS):
            part = rows[first : first + NOISE_ROWS]
            x = np.column_stack([c.evaluate(frame.iloc[part]) for c in conditions])
            usable, flags = _judge(option.generator, x)
            status[part] |= flags
            part = part[usable]
            noise = keyed_normal(keys[part], n_noise=option.generator.card.n_noise)
            y = option.generator.generate(x[usable], noise)
            for i, target in enumerate(option.generator.card.target_names):
                targets[target][part] = y[:, i]
    status[~served] |= NO_BUNDLE
    columns: dict[str, npt.NDArray[Any]] = {
        track.branch(target): values for target, values in targets.items()
    }
    return columns | {track.status: status}


def _rows_of(
    option: _Option, track: _TrackPlan, frame: pd.DataFrame
) -> npt.NDArray[np.int64]:
    """Return the rows of a chunk that a generator serves."""
    if track.species is None:
        return np.arange(len(frame), dtype=np.int64)
    ids = frame[track.species].to_numpy()
    both_signs = sum(abs(o.pdg_id) == abs(option.pdg_id) for o in track.options) > 1
    chosen = ids == option.pdg_id if both_signs else np.abs(ids) == abs(option.pdg_id)
    return np.flatnonzero(chosen)


def _judge(
    generator: Generator, x: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int8]]:
    """Return which rows of conditions can be used, and the status bits of all rows."""
    card = generator.card
    usable = np.isfinite(x).all(axis=1)
    flags = np.zeros(len(x), dtype=np.int8)
    flags[~usable] |= MISSING
    outside = np.zeros(len(x), dtype=np.bool_)
    for variable, values in zip(card.conditions, x.T, strict=True):
        low, high = np.float32(variable.range)
        sentinel = np.isin(values, np.float32(variable.sentinels))
        outside |= ((values < low) | (values > high)) & ~sentinel
    flags[usable & outside] |= OUTSIDE_RANGE
    if card.sample.fiducial:
        cut = parse_cut(card.sample.fiducial, names=card.condition_names)
        columns = dict(zip(card.condition_names, x.T, strict=True))
        flags[usable & ~cut.passes(columns, None)] |= OUTSIDE_FIDUCIAL
    return usable, flags


def _versions() -> dict[str, str]:
    """Return the versions that a manifest records."""
    names = ("awkward", "numpy", "onnxruntime", "pyarrow", "uproot")
    return {"python": platform.python_version()} | {n: _version(n) for n in names}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
