"""The denominator of an efficiency: among which rows it is given.

`--where "isMuon == 1 & charge == 1"` gives the share of a cut among the tracks that
pass this one. Its terms, joined by "and", are of two kinds. A term on conditions, or on
other columns, chooses rows, which have it in data as in what is generated for them. A
term that names a target chooses among real responses on one side and among generated
ones on the other.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pidgan.arrays import BoolArray
from pidgan.bundle.card import Card, Generator
from pidgan.bundle.reference import reference_frame
from pidgan.errors import CutError, MapError
from pidgan.sample.built_in import WHOLE
from pidgan.sample.cuts import Columns, Cut, all_of, parse_cut, plain_name, terms_of
from pidgan.sample.dataset import Dataset, Part, is_of_weights


@dataclass(frozen=True, kw_only=True)
class Denominator:
    """A cut that rows have to pass to be counted at all.

    Attributes:
        text: The cut as it was given.
        terms: Its terms in one spelling, sorted.
        rows: Terms on conditions and other columns.
        targets: All terms that name a target, as one cut; None if there are none.
        others: Columns that are neither conditions nor targets.
    """

    text: str
    terms: tuple[str, ...]
    rows: tuple[Cut, ...]
    targets: Cut | None
    others: tuple[str, ...]

    def chooses(self, columns: Columns, n: int) -> BoolArray:
        """Return which rows (n,) pass the terms on conditions and other columns."""
        passes = [cut.passes(columns) for cut in self.rows]
        return np.asarray(np.logical_and.reduce([np.ones(n, np.bool_), *passes]))


def parse_where(
    where: str,
    *,
    targets: Sequence[str],
    conditions: Sequence[str],
    others: Iterable[str],
    aliases: Mapping[str, str],
) -> Denominator:
    """Return a denominator; a CutError says which name is unknown.

    A term may join columns of all kinds by "or", but not targets with other columns.
    """
    known = [*targets, *conditions]
    more = [name for name in others if name not in known]
    cut = parse_cut(where, names=[*known, *more], aliases=aliases)
    rows, on_targets = [], []
    for term in terms_of(cut):
        if not set(term.names) & set(targets):
            rows.append(term)
            continue
        if strange := set(term.names).difference(known):
            raise CutError(
                f"where {where!r}: {term.text!r} joins a target with "
                f"{sorted(strange)[0]!r}, which nothing generates; expected terms of "
                "their own, joined by &"
            )
        on_targets.append(term)
    used = tuple(name for name in cut.names if name not in known)
    return Denominator(
        text=where,
        terms=tuple(sorted({spelled(t, used) for t in (*rows, *on_targets)})),
        rows=tuple(rows),
        targets=all_of(on_targets) if on_targets else None,
        others=used,
    )


def spelled(term: Cut, others: Sequence[str] = ()) -> str:
    """Return a term with one spelling of numbers, and of columns of the file."""
    text = WHOLE.sub(r"\1", term.canonical)
    for name in others:
        text = re.sub(rf"\b{re.escape(name)}\b", plain_name(name), text)
    return text


def where_of_card(card: Card, where: str, columns: Iterable[Any]) -> Denominator:
    """Return a denominator of the variables of a generator and of other columns."""
    others = [name for name in map(str, columns) if not is_of_weights(name)]
    return parse_where(
        where,
        targets=card.target_names,
        conditions=card.condition_names,
        others=[name for name in others if name != "weight"],
        aliases=card.sample.aliases,
    )


def where_of_dataset(dataset: Dataset, where: str) -> Denominator:
    """Return a denominator of the variables of a dataset and of what it kept."""
    sample = dataset.sample
    return parse_where(
        where,
        targets=sample.target_names,
        conditions=sample.condition_names,
        others=dataset.kept_names,
        aliases=sample.aliases,
    )


def rows_among(dataset: Dataset, part: Part, own: Denominator) -> BoolArray:
    """Return which rows of a part pass the terms on conditions and what was kept."""
    names = (*dataset.sample.condition_names, *dataset.kept_names)
    columns = [*part.conditions.T, *part.kept.T]
    return own.chooses(dict(zip(names, columns, strict=True)), len(part.weights))


def reference_among(
    generator: Generator, reference: Any, where: str | None
) -> tuple[pd.DataFrame, Denominator | None]:
    """Return the rows of the reference that a denominator chooses, and it.

    Its terms on targets are still to be applied. A MapError says that no row is left,
    or that their sum of weights is not positive.
    """
    if where is None:
        return reference_frame(generator, reference), None
    frame = reference_frame(generator, reference, others=True)
    found = where_of_card(generator.card, where, frame)
    chosen = found.chooses(frame, len(frame))
    total = float(frame["weight"].to_numpy(np.float64)[chosen].sum())
    if not total > 0:
        raise MapError(
            f"where {where!r}: {np.count_nonzero(chosen)} of {len(frame)} rows of the "
            f"reference pass, with a sum of weights of {total:.6g}, expected a "
            "positive sum"
        )
    card = generator.card
    kept = [*card.condition_names, *card.target_names, "weight"]
    kept += [name for name in map(str, frame) if is_of_weights(name)]
    return frame.loc[chosen, kept].reset_index(drop=True), found
