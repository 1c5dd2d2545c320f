"""What `apply` and `correct` did, for a reader and as JSON."""

import json
from dataclasses import asdict, dataclass

from pidgan.notebook import Facts, count, listed, shown

STATUS_WORDS = {
    "generated": "with generated values",
    "outside_range": "with a condition outside the trained range, extrapolated",
    "missing_condition": "without a usable condition, NaN",
    "no_bundle": "of another species, or which no bundle serves, NaN",
    "outside_fiducial": "outside the fiducial cut of the calibration sample",
    "not_selected": "not selected by --where",
    "unmatched": "without a true particle",
    "decayed_in_flight": "from a decay in flight",
}
"""What the counters of a summary count."""

CORRECTED_WORDS = STATUS_WORDS | {
    "generated": "with corrected values",
    "outside_range": "with a condition or a simulated target outside the trained "
    "range, extrapolated",
    "missing_condition": "without a usable condition or simulated target, NaN",
}
"""The same for `correct`."""


@shown
@dataclass(frozen=True, kw_only=True)
class ApplySummary:
    """What `apply` did, or would do.

    Attributes:
        outputs: Files that are written, or would be.
        skipped: Files among them that were finished before.
        entries: Number of entries of all input trees.
        bundles: Path, species and sha256 of the bundles of each track.
        mapping: For each track, where each condition is found in the first tree.
        targets: For each track the names of the new branches, status included.
        counts: For each track the entries with generated targets, and those with each
            status bit; empty for a dry run.
        outside: For each track and condition the number of rows outside the trained
            range, or without a usable value, and the number of all rows.
        sample_cuts: For each track and cut on the probe of the calibration sample the
            number of rows that fail it, and of all rows: 0 where the ntuple has no such
            branch.
        dry_run: Whether nothing was written.
        corrects: Whether simulated targets were corrected.
    """

    outputs: tuple[str, ...]
    skipped: tuple[str, ...]
    entries: int
    bundles: dict[str, list[dict[str, str]]]
    mapping: dict[str, dict[str, str]]
    targets: dict[str, list[str]]
    counts: dict[str, dict[str, int]]
    outside: dict[str, dict[str, tuple[int, int]]]
    sample_cuts: dict[str, dict[str, tuple[int, int]]]
    dry_run: bool
    corrects: bool = False

    def to_json(self) -> str:
        """Return the summary as JSON."""
        return json.dumps(asdict(self), indent=2)

    def text(self) -> str:
        """Return the summary as lines to read."""
        verb = "would write" if self.dry_run else "wrote"
        words = CORRECTED_WORDS if self.corrects else STATUS_WORDS
        lines = [f"{self.entries} entries"]
        for track, mapping in self.mapping.items():
            species = ", ".join(b["species"] for b in self.bundles[track])
            lines.append(f"{track} ({species}): {', '.join(self.targets[track])}")
            lines += [f"  {name} = {origin}" for name, origin in mapping.items()]
            counts = self.counts.get(track, {})
            lines += [
                f"  {number} {'track' if number == 1 else 'tracks'} "
                f"{words.get(name, name)}"
                for name, number in counts.items()
                if number or name == "generated"
            ]
            lines += [
                f"  {name} outside the trained range: {n} of {of}"
                for name, (n, of) in self.outside.get(track, {}).items()
                if n
            ]
            lines += [
                f"  cut of the calibration sample, {name}: "
                + (f"fails in {n} of {of}" if of else "no such branch")
                for name, (n, of) in self.sample_cuts.get(track, {}).items()
            ]
        for path in self.outputs:
            done = path in self.skipped
            lines.append(f"{'skipped, finished before:' if done else verb} {path}")
        return "\n".join(lines)

    def _facts(self) -> Facts:
        verb = "would write" if self.dry_run else "wrote"
        species = {
            track: ", ".join(b["species"] for b in found)
            for track, found in self.bundles.items()
        }
        return Facts(
            f"{verb} {count(len(self.outputs), 'files')}, "
            f"{count(self.entries, 'entries')}, tracks {listed(list(species))}",
            {
                **{
                    f"{track} ({species[track]})": listed(names)
                    for track, names in self.targets.items()
                },
                "files": listed(self.outputs),
            },
        )
