"""The record inside an output: which bundles made which branches, of which values.

`apply` writes one line of JSON for each tree into the file itself, so that it goes with
renames and copies. `hadd` puts the lines of all its inputs together. A line has the
number of entries and a fingerprint of each generated branch and of each branch that
held a condition, so that a file which was changed afterwards does not fit its record;
and one of each pair of them, which says that their rows still belong together.

An output of version 0.1 has no record. The manifest beside it counts instead, if the
size of the file is that in the manifest.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pidgan.errors import NtupleError
from pidgan.files import tables
from pidgan.files.trees import RECORD, Source, is_remote

SCHEMA = 4
"""Version of the lines, and of the manifest that is made of them."""

OLD_SCHEMA = 2
"""Last version of a manifest whose output has no record."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """What one line of a record says of one track.

    Attributes:
        entries: Number of entries of the tree, or of the part of it.
        bundles: Path, species and sha256 of each bundle of the track.
        request: What `apply` was asked for.
        mapping: Where each condition was found; empty in a manifest of version 0.1.
        branches: Fingerprints of the generated branches; None if they are not known.
        inputs: Fingerprints of the branches that hold conditions.
        pairs: Fingerprints of a generated branch and a branch of a condition, which
            change with the rows that these have in common; none in a record of
            schema 3.
        sample_cuts: By cut of the calibration sample, the rows that fail it, and all.
        choose: By column, the branch that chose among several bundles.
        passes: Cut and sha256 of each of several passes with --elsewhere keep, in their
            order. A row is that of the last pass whose cut it passes.
    """

    entries: int
    bundles: tuple[Mapping[str, Any], ...]
    request: Mapping[str, Any]
    mapping: Mapping[str, str] = field(default_factory=dict)
    branches: Mapping[str, int] | None = None
    inputs: Mapping[str, int] = field(default_factory=dict)
    pairs: Mapping[tuple[str, str], int] = field(default_factory=dict)
    sample_cuts: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    choose: Mapping[str, str] = field(default_factory=dict)
    passes: tuple[tuple[str | None, tuple[str, ...]], ...] = ()

    def has(self, branch: str) -> bool:
        """Return whether a branch was made then, as far as is known."""
        if self.branches is None:
            return branch.endswith(str(self.request["suffix"]))
        return branch in self.branches


def read_lines(path: str | Path | Source) -> list[dict[str, Any]]:
    """Return the lines of the record of a file; an NtupleError if it is damaged."""
    return parse_lines(tables.read_record(path), path)


def parse_lines(texts: Iterable[str], path: object) -> list[dict[str, Any]]:
    """Return the content of the lines of a record; an NtupleError if it is damaged."""
    lines = []
    for text in texts:
        try:
            line = json.loads(text)
            _ = line["tree"], int(line["entries"]), dict(line["tracks"])
            dict(line["request"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise NtupleError(
                f"{path}: its record, {RECORD}, is damaged ({type(error).__name__})"
            ) from None
        lines.append(line)
    return lines


def without(
    lines: Iterable[Mapping[str, Any]], replaced: Mapping[str | None, set[str]]
) -> list[dict[str, Any]]:
    """Return older lines, without the branches of each tree that are replaced."""
    kept = []
    for line in lines:
        gone = replaced.get(line["tree"], set())
        tracks = {
            track: {
                **own,
                "branches": {k: v for k, v in own["branches"].items() if k not in gone},
                "inputs": {k: v for k, v in own["inputs"].items() if k not in gone},
                **_kept_pairs(own, gone),
            }
            for track, own in line["tracks"].items()
        }
        tracks = {track: own for track, own in tracks.items() if own["branches"]}
        if tracks:
            kept.append({**line, "tracks": tracks})
    return kept


def _kept_pairs(own: Mapping[str, Any], gone: set[str]) -> dict[str, Any]:
    """Return the pairs of a track in an older line without branches that are gone."""
    if "pairs" not in own:
        return {}
    kept = {
        made: {read: text for read, text in pairs.items() if read not in gone}
        for made, pairs in own["pairs"].items()
        if made not in gone
    }
    return {"pairs": kept}


def add_passes(
    line: dict[str, Any], older: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return a line of a pass that keeps values, with the passes that made these."""
    request = line["request"]
    if request.get("elsewhere") != "keep":
        return line
    tracks = {}
    for track, own in line["tracks"].items():
        passes: list[Any] = []
        bundles: list[Any] = []
        for old in older:
            before = old["tracks"].get(track)
            is_same = old["tree"] == line["tree"] and old["entries"] == line["entries"]
            if not is_same or before is None:
                continue
            if set(before["branches"]) >= set(own["branches"]):
                where = _of(old["request"].get("where"), track)
                passes += before.get("passes") or [[where, _hashes(before)]]
                bundles += before["bundles"]
        passes.append([_of(request.get("where"), track), _hashes(own)])
        known = {one["sha256"] for one in own["bundles"]}
        bundles = [one for one in bundles if one["sha256"] not in known]
        several = {"bundles": [*own["bundles"], *bundles], "passes": passes}
        tracks[track] = {**own, **(several if len(passes) > 1 else {})}
    return {**line, "tracks": tracks}


def _of(where: str | None, track: str) -> str | None:
    return None if where is None else where.replace("{track}", track)


def _hashes(own: Mapping[str, Any]) -> list[str]:
    return [str(one["sha256"]) for one in own["bundles"]]


def made_in(
    source: Source, lines: Sequence[Mapping[str, Any]]
) -> dict[str, list[Made]]:
    """Return, by track, what the lines of a record say of a tree."""
    found: dict[str, list[Made]] = {}
    for line in lines:
        if line["tree"] != tree_name(source):
            continue
        for track, own in line["tracks"].items():
            try:
                made = Made(
                    entries=int(line["entries"]),
                    bundles=tuple(own["bundles"]),
                    request=line["request"],
                    mapping=own["mapping"],
                    branches={k: int(v, 16) for k, v in own["branches"].items()},
                    inputs={k: int(v, 16) for k, v in own["inputs"].items()},
                    pairs={
                        (made, read): int(text, 16)
                        for made, pairs in own.get("pairs", {}).items()
                        for read, text in pairs.items()
                    },
                    sample_cuts={
                        cut: (int(n), int(of))
                        for cut, (n, of) in own.get("sample_cuts", {}).items()
                    },
                    choose=dict(own.get("choose", {})),
                    passes=tuple(
                        (where, tuple(hashes))
                        for where, hashes in own.get("passes", ())
                    ),
                )
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise NtupleError(
                    f"{source.path}: its record, {RECORD}, is damaged "
                    f"({type(error).__name__})"
                ) from None
            found.setdefault(track, []).append(made)
    return found


def made_by_manifest(source: Source) -> dict[str, list[Made]]:
    """Return the same of the manifest of version 0.1 beside a file, if it fits."""
    path = Path(f"{source.path}.json")
    try:
        if is_remote(source.path) or source.table is not None:
            return {}
        content = json.loads(path.read_text(encoding="utf-8"))
        request, bundles = content["request"], content["bundles"]
        trees = {tree: int(n) for tree, _, n in request["input"]["trees"]}
        fits = content["output"]["size"] == Path(source.path).stat().st_size
        if content["schema"] > OLD_SCHEMA or not fits or source.tree not in trees:
            return {}
        return {
            track: [
                Made(
                    entries=trees[source.tree],
                    bundles=tuple({**one, "sha256": one["sha256"]} for one in own),
                    request={**request, "suffix": request["suffix"]},
                )
            ]
            for track, own in bundles.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def find_made(source: Source) -> dict[str, list[Made]]:
    """Return, by track, what is known of how the branches of a tree were made."""
    lines = read_lines(source)
    return made_in(source, lines) if lines else made_by_manifest(source)


def key_names(made: Iterable[Made]) -> tuple[str, ...]:
    """Return the branches that identify an event, if all parts were made with them.

    They are those of `--key`, without those of a single track.
    """
    keys = [tuple(one.request.get("key", ())) for one in made]
    if not keys or any(key != keys[0] for key in keys):
        return ()
    return tuple(name for name in keys[0] if "{track}" not in name)


def tree_name(source: Source) -> str | None:
    """Return the name of a tree as records have it, None for a file of one table."""
    return None if source.tree is None else source.name
