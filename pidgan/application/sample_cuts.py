"""Cuts that the calibration sample had, and the tracks of an ntuple that fail them.

A generator knows the tracks that its sample had: those in the acceptance of the muon
stations, or of one charge. Cuts on the probe alone are looked for in an analysis
ntuple, under the name of the track, and the rows that fail them are counted. They get
generated values all the same. What cannot be looked for is said too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from pidgan.application.conditions import CHARGES, Conditions, FoundCondition
from pidgan.application.several_tracks import Shape
from pidgan.bundle.card import Card, CardVariable
from pidgan.errors import NtupleError
from pidgan.files.trees import Source, TreeInfo
from pidgan.sample.built_in import Term, sample_terms
from pidgan.sample.cuts import plain_name
from pidgan.sample.pidcalib_names import BREMS
from pidgan.sample.pidcalib_names import CHARGES as CHARGE_PATTERNS
from pidgan.sample.variables import UNIT_FACTORS

SampleCuts: TypeAlias = dict[str, dict[str, tuple[int, int]]]
"""For each track and cut the rows that fail it, and all rows: 0 if nobody looked."""

_PATTERNS = {**dict.fromkeys(CHARGES, CHARGE_PATTERNS), "HASBREM": BREMS}


_IN_MEV = {"P", "PT", "PX", "PY", "PZ", "PE", "E", "ET", "M", "MM"}
"""Quantities of a track that have the unit of its momentum."""


@dataclass(frozen=True, kw_only=True)
class SampleCut:
    """A cut on the probe, and what an ntuple has for each of its branches.

    `found` is empty if one is missing.
    """

    term: Term
    found: Mapping[str, FoundCondition]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Branches to read."""
        return tuple(name for one in self.found.values() for name in one.inputs)

    def count(self, columns: Mapping[str, Any], rows: int) -> tuple[int, int]:
        """Return how many rows fail, and how many were judged."""
        if not self.found:
            return 0, 0
        values = {name: one.evaluate(columns) for name, one in self.found.items()}
        return rows - int(np.count_nonzero(self.term.cut.passes(values))), rows


def find_sample_cuts(
    card: Card,
    track: str,
    own: Sequence[FoundCondition],
    conditions: Conditions,
    *,
    source: Source,
    tree: TreeInfo,
    shape: Shape,
) -> tuple[SampleCut, ...]:
    """Return the cuts on the probe of a bundle's sample, as a tree has their branches.

    `own` are the conditions of the bundle, where the tree has them, and `shape` is that
    of the branches of the track.
    """
    known = {
        variable.inputs[0]: found
        for variable in card.sample.conditions
        for found in own
        if variable.name == found.variable.name
        and variable.derive is None
        and UNIT_FACTORS[variable.unit] == 1
    }
    cuts = []
    for term in sample_terms(card.sample, card.dataset):
        if not term.prefix:
            continue
        found = {}
        for name in term.cut.names:
            one = known.get(name)
            if one is None:
                short = name.removeprefix(term.prefix)
                one = _find(short, track, conditions, source, tree, shape)
                if one is not None and short.upper() in _IN_MEV:
                    one = _with_unit(one, card, own)
            if one is not None:
                found[name] = one
        is_whole = len(found) == len(term.cut.names)
        cuts.append(SampleCut(term=term, found=found if is_whole else {}))
    return tuple(cuts)


def _with_unit(
    found: FoundCondition, card: Card, own: Sequence[FoundCondition]
) -> FoundCondition | None:
    """Return a momentum, energy or mass in the unit that the ntuple has for others.

    None means that it cannot be compared: the calibration sample is not in MeV.
    """
    if any(variable.unit == "GeV" for variable in card.sample.conditions):
        return None
    units = {one.unit for one in own if one.variable.unit == "MeV"}
    return replace(found, unit=units.pop()) if len(units) == 1 else found


def _find(
    name: str,
    track: str,
    conditions: Conditions,
    source: Source,
    tree: TreeInfo,
    shape: Shape,
) -> FoundCondition | None:
    """Return where a tree has a quantity of a track, None if it does not."""
    patterns = _PATTERNS.get(name, (f"{{track}}_{name}",))
    variable = CardVariable(name=name, unit="1", range=(0, 1), patterns=patterns)
    try:
        (found,) = conditions.find((variable,), track, source, tree)
    except NtupleError:
        return None
    kinds = [tree.types.get(branch) for branch in found.inputs]
    fits = all(kind is not None and kind.shape in ((), shape) for kind in kinds)
    # A number of the event with the same name is no quantity of the track.
    is_own = not track or all(branch != name for branch in found.inputs)
    return found if fits and is_own else None


def own_branch(name: str, track: str, tree: TreeInfo) -> str | None:
    """Return the branch of a quantity of a track or else of the event, if there is one.

    A quantity may have the name of the calibration sample, with "probe_" before it, and
    any of its synonyms.
    """
    short = plain_name(name)
    patterns = _PATTERNS.get(short, _PATTERNS.get(name, ()))
    tried = [pattern.replace("{track}", track) for pattern in patterns]
    tried += [f"{track}_{name}", f"{track}_{short}", name, short]
    same = (
        branch
        for branch in tree.branches
        if branch.startswith(f"{track}_")
        and plain_name(branch.removeprefix(f"{track}_")) == short
    )
    return next((b for b in tried if b in tree.branches), next(same, None))


def add_numbers(
    total: SampleCuts, more: Mapping[str, Mapping[str, Sequence[int]]]
) -> None:
    """Add numbers of rows, by track and name, to those of other rows or files."""
    for track, found in more.items():
        mine = total.setdefault(track, {})
        for name, (n, of) in found.items():
            before = mine.get(name, (0, 0))
            mine[name] = before[0] + n, before[1] + of


def unjudged_texts(parts: Mapping[str, SampleCuts]) -> list[str]:
    """Say which cuts only some of several files had the branches for, by their path."""
    lacking: dict[tuple[str, str], list[str]] = {}
    judged: set[tuple[str, str]] = set()
    for path, own in parts.items():
        for track, found in own.items():
            for name, (_, of) in found.items():
                if of:
                    judged.add((track, name))
                else:
                    lacking.setdefault((track, name), []).append(path)
    return [
        f"{track}: the cut {name} of the calibration sample was looked for in "
        f"{len(parts) - len(paths)} of {len(parts)} files only; {paths[0]}"
        f"{f' and {len(paths) - 1} more have' if len(paths) > 1 else ' has'} no such "
        "branch, and their rows are in no number"
        for (track, name), paths in lacking.items()
        if (track, name) in judged
    ]


def sample_cut_text(track: str, found: Mapping[str, Sequence[int]]) -> str:
    """Return a warning of the cuts that rows fail or nobody looked for, or ""."""
    failed = [
        f"{name} (fails in {n} of {of} rows, {100 * n / of:.1f} %)"
        for name, (n, of) in found.items()
        if n
    ]
    missing = [f"{name} (no such branch)" for name, (_, of) in found.items() if not of]
    if not failed and not missing:
        return ""
    return (
        f"{f'{track}: ' if track else ''}the calibration sample was selected with "
        f"{'; '.join([*failed, *missing])}; generated values hold for tracks that "
        "pass, so that an analysis needs the same cuts"
    )
