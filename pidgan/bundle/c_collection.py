"""A collection of bundles as one C99 file, with a function that chooses among them."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pidgan.arguments import checked
from pidgan.bundle.bundle import Bundle
from pidgan.bundle.c_file import (
    block_rows,
    check_name,
    filled,
    memory_text,
    template,
    translate_bundle,
    write_c,
)
from pidgan.bundle.c_regions import LANES
from pidgan.bundle.c_writer import Constants
from pidgan.bundle.choice import Ranges
from pidgan.bundle.collection import Collection
from pidgan.bundle.when import SPECIES, card_values, when_text


@checked
def export_collection_c(
    collection: Collection | str | Path,
    path: str | Path,
    *,
    name: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a collection as a C99 file with a function for each bundle, and a chooser.

    Bundle number i has the functions NAME_i, NAME_i_row and NAME_i_batch, as in
    `export_c`. `int NAME_choose(const double *columns)` returns the number of the
    bundle that serves a row with these columns, or -1. `float *NAME(float *output,
    const float *input, const float *noise, const double *columns)` calls its function,
    and returns `output`, or 0 if none serves the row. The comment at the top of the
    file lists columns and bundles in their order.

    Args:
        collection: Collection, whose bundles are opened, or its path.
        path: Path of the file, which ends in ".c".
        name: Beginning of all names; the default is the stem of the file.
        overwrite: Whether an existing file is replaced.

    Returns:
        Path of the file.

    Raises:
        BundleError: The name is not possible in C, or a bundle is refused.
        NtupleError: The file exists, or it cannot be written.

    Example:
        >>> found = Collection.open("kaons.toml")                    # doctest: +SKIP
        >>> export_collection_c(found, "kaons.c")                   # doctest: +SKIP
        PosixPath('kaons.c')
    """
    source = partial(collection_source, Collection.open(collection))
    return write_c(path, name, source, overwrite=overwrite)


def collection_source(collection: Collection, name: str) -> str:
    """Return the text of the C99 file of a collection."""
    file, section = template("collection.c"), template("generator_bundle.c")
    check_name(name, file.partition("#include")[2], section)
    bundles = collection.open_bundles()
    columns, when = _columns(collection, bundles)
    constants, functions = Constants(), dict[str, str]()
    sections, tests, listed = [], [], []
    rows = block_rows(bundles)
    for number, bundle in enumerate(bundles):
        own = {"NAME": f"{name}_{number}", "PRE": f"{name}_{number}_"}
        own |= translate_bundle(bundle, own, constants, functions, rows=rows)
        sections.append(f"/*\n{own['CARD']}\n */\n\n{filled(section, own)}")
        tests.append(filled(template("generator_test.c"), own))
        serves = when_text(when[number]) or "all rows"
        listed.append(f"{own['NAME']}: {bundle.card.species}, {serves}")
    cards = [bundle.card for bundle in bundles]
    numbers = range(len(bundles))
    choices = [_condition(columns, own) for own in when]
    return filled(
        file,
        {
            "NAME": name,
            "COLUMNS": _comment(columns or ["none"]),
            "BUNDLES": _comment(listed),
            "ROWS": str(rows),
            "LANES": str(LANES),
            "MEMORY": memory_text(rows),
            "N_GENERATORS": str(len(bundles)),
            "N_COLUMNS": str(len(columns)),
            "CONSTANTS": constants.text(),
            "FUNCTIONS": "\n".join(functions.values()),
            "SECTIONS": "\n".join(sections),
            "ALL_CONDITIONS": ", ".join(str(len(card.conditions)) for card in cards),
            "ALL_NOISE": ", ".join(str(card.n_noise) for card in cards),
            "ALL_TARGETS": ", ".join(str(len(card.targets)) for card in cards),
            "GENERATORS": ",\n".join(f"    {name}_{k}" for k in numbers),
            "CHOICES": "\n".join(
                f"    if ({choice})\n        return {k};"
                for k, choice in enumerate(choices)
            ),
            "SELF_TESTS": "\n".join(tests),
            "CALLS": "\n".join(
                f"    failed |= {name}_{k}_self_test();" for k in numbers
            ),
        },
    )


def _columns(
    collection: Collection, bundles: Sequence[Bundle]
) -> tuple[list[str], list[dict[str, Ranges]]]:
    """Return the columns that choose, and the values that each bundle serves."""
    columns = list(collection.content.choose)
    when = [dict(member.when) for member in collection.members]
    if SPECIES not in columns and any(SPECIES in own for own in when):
        columns.insert(0, SPECIES)
    if SPECIES in columns:
        for own, bundle in zip(when, bundles, strict=True):
            own.setdefault(SPECIES, card_values(bundle.card)[SPECIES])
    return columns, when


def _condition(columns: Sequence[str], when: dict[str, Ranges]) -> str:
    """Return the C expression that a bundle serves a row."""
    terms = []
    for number, column in enumerate(columns):
        value = f"columns[{number}]"
        parts = [
            f"{value} == {a}.0" if a == b else f"({value} >= {a}.0 && {value} <= {b}.0)"
            for a, b in when.get(column, ())
        ]
        if parts:
            joined = "\n            || ".join(parts)
            terms.append(f"({joined})" if len(parts) > 1 else joined)
    return "\n        && ".join(terms) or "1"


def _comment(lines: Sequence[str]) -> str:
    """Return lines of a comment, as text that cannot end it."""
    texts = (line.encode("ascii", "backslashreplace").decode() for line in lines)
    safe = (re.sub(r"[/?\\]", "_", text) for text in texts)
    return "\n".join(f" *   {text}" for text in safe)
