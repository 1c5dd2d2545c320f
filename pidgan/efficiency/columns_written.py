"""What `write_efficiency_columns` wrote: files, and the numbers of their rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pidgan.notebook import Facts, count, listed, shown


@shown
@dataclass(frozen=True, kw_only=True)
class EfficiencyColumns:
    """Files with the efficiency of each candidate, and what their rows are.

    It is a sequence of the files.

    Attributes:
        paths: Files that were written.
        counts: By track, "rows", and how many of them have NaN because of
            "other_species", else "no_targets", else "no_condition", else "outside_map",
            of which conditions, `outside_map, NAME`. By branch `..PIDCalibEff`, the
            "rows" with a value and how many of these are "unphysical".
        frame: The new columns of rows in memory, else None.
    """

    paths: tuple[Path, ...]
    counts: dict[str, dict[str, int]]
    frame: Any = None

    def __iter__(self) -> Iterator[Path]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def text(self) -> str:
        """Return the files and the numbers that are not zero, a line for each."""
        lines = [str(path) for path in self.paths]
        for name, own in self.counts.items():
            found = [f"{what}: {n}" for what, n in own.items() if n]
            lines.append(f"{name}: {', '.join(found) or 'no rows'}")
        return "\n".join(lines)

    def warning(self) -> str:
        """Say how many rows lie outside maps, or have an unphysical efficiency."""
        parts = []
        for name, own in self.counts.items():
            if n := own.get("outside_map"):
                causes = [
                    f"{what.partition(', ')[2]}: {count}"
                    for what, count in own.items()
                    if what.startswith("outside_map, ") and count
                ]
                parts.append(
                    f"{n} of {own['rows']} rows of {name} lie outside its map and have "
                    f"NaN ({', '.join(causes)})"
                )
            if n := own.get("unphysical"):
                parts.append(
                    f"{n} of {own['rows']} values of {name} lie outside [0, 1] and are "
                    "not clipped"
                )
        return "; ".join(parts)

    def _facts(self) -> Facts:
        found = {
            name: listed([f"{what}: {n:,}" for what, n in own.items() if n])
            for name, own in self.counts.items()
        }
        return Facts(
            f"{count(len(self.paths), 'files')}, columns of {listed(list(found))}",
            {"files": listed(list(map(str, self.paths))), **found},
        )
