"""An output that is finished: what its record says, and the manifest beside it.

The record decides. The manifest is written after the output and says the same, so that
a run which was killed in between has done its work. An output of version 0.1 has only a
manifest.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from pidgan.application import record
from pidgan.application.sample_cuts import SampleCuts, add_numbers
from pidgan.errors import NtupleError
from pidgan.files.leftovers import remove_leftovers
from pidgan.files.writing import exists_error, writing_file

Counts: TypeAlias = dict[str, dict[str, int]]
"""For each track the rows with generated targets, and those with each status bit."""

Outside: TypeAlias = dict[str, dict[str, tuple[int, int]]]
"""For each track and condition the rows outside the trained range, and all rows."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a file that is done holds, and notes on what it lacks."""

    counts: Counts
    outside: Outside
    notes: list[str]
    sample_cuts: SampleCuts = field(default_factory=dict)


def manifest_path(output: Path) -> Path:
    """Return where the manifest of an output lies."""
    return output.with_name(f"{output.name}.json")


def read_manifest(output: Path) -> dict[str, Any]:
    """Return the manifest beside an output, empty if there is none."""
    try:
        content = json.loads(manifest_path(output).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and "request" in content else {}


def write_manifest(output: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write the manifest of an output from the lines of its record, if it is not so."""
    first = lines[0]
    done = outcome(lines, first["notes"])
    content = {
        "schema": record.SCHEMA,
        "output": {"size": output.stat().st_size},
        "request": first["request"],
        "mapping": {t: own["mapping"] for t, own in first["tracks"].items()},
        "bundles": {t: own["bundles"] for t, own in first["tracks"].items()},
        **asdict(done),
        "versions": first["versions"],
    }
    text = json.dumps(content, indent=2)
    if read_manifest(output) != json.loads(text):
        with writing_file(manifest_path(output), overwrite=True) as temporary:
            temporary.write_text(text, encoding="utf-8")


def find_outcome(
    output: Path,
    request: Mapping[str, Any],
    trees: Sequence[str | None],
    *,
    restore: bool = True,
) -> Outcome | None:
    """Return what an earlier run did of a request; raise if another file is there.

    With `restore`, the manifest is written if the earlier run ended before it, and what
    killed runs left is removed.
    """
    if restore:
        remove_leftovers(output)
    beside = manifest_path(output)
    if beside.exists() and not read_manifest(output):
        raise exists_error(beside, " and is not the manifest of an output")
    if not output.exists():
        return None
    try:
        own = record.read_lines(output)[-len(trees) :]
    except NtupleError:  # It is no file that pidgan wrote.
        own = []
    if not own:
        return _outcome_of_manifest(output, request)
    # Numbers and texts as JSON has them.
    wanted = json.loads(json.dumps(request))
    differing = {
        name
        for line in own
        for name in wanted
        if line["request"].get(name) != wanted[name]
    }
    if differing or [line["tree"] for line in own] != list(trees):
        named = ", ".join(sorted(differing)) or "its trees"
        raise exists_error(output, f" and differs in {named}")
    if restore:
        write_manifest(output, own)
    return outcome(own, own[0]["notes"])


def _outcome_of_manifest(output: Path, request: Mapping[str, Any]) -> Outcome:
    """Return what the manifest beside an output of version 0.1 says; raise if not."""
    manifest = read_manifest(output)
    old = {**manifest.get("request", {}), "output": manifest.get("output")}
    new = {**request, "output": {"size": output.stat().st_size}}
    differing = sorted(name for name in new if old.get(name) != new[name])
    if manifest.get("schema") != record.OLD_SCHEMA or differing:
        reason = f" and differs in {', '.join(differing)}" if differing else ""
        raise exists_error(output, reason if manifest else "")
    return Outcome(counts=manifest["counts"], outside={}, notes=manifest["notes"])


def outcome(lines: Sequence[Mapping[str, Any]], notes: list[str]) -> Outcome:
    """Return the sums over the trees of a file, from the lines of its record."""
    counts: Counts = {}
    outside: Outside = {}
    cuts: SampleCuts = {}
    for line in lines:
        for track, own in line["tracks"].items():
            mine = counts.setdefault(track, {})
            for name, number in own["counts"].items():
                mine[name] = mine.get(name, 0) + number
        add_numbers(outside, {t: o["outside"] for t, o in line["tracks"].items()})
        found = {t: own.get("sample_cuts", {}) for t, own in line["tracks"].items()}
        add_numbers(cuts, {t: own for t, own in found.items() if own})
    return Outcome(counts=counts, outside=outside, notes=notes, sample_cuts=cuts)
