"""Make the file of a collection from the cards of its bundles."""

import json
import os
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path

from pidgan.arguments import checked
from pidgan.bundle.bundle import Bundle, open_bundle
from pidgan.bundle.bundle_file import MAX_BYTES
from pidgan.bundle.choice import Choice, When
from pidgan.bundle.collection import (
    SUFFIX,
    Collection,
    Content,
    Member,
    check_overlap,
)
from pidgan.bundle.shipped import shipped_path
from pidgan.bundle.when import SPECIES, sample_values, when_text
from pidgan.errors import BundleError, nearest
from pidgan.files.fetching import keep
from pidgan.files.trees import is_remote
from pidgan.files.writing import writing_file
from pidgan.sample.species import pdg_id

BRANCHES = {
    SPECIES: "{track}_TRUEID",
    "polarity": "Polarity",
    "year": "year",
    "block": "block",
}
"""Columns that cards know, and the branch of each unless another one is named."""

_HEAD = """\
# A collection of bundles, made by `pidgan collect`. You may change it by hand: `choose`
# has the branch of each column, and `when` the values that a bundle serves.
"""


@checked
def collect(
    bundles: Sequence[str | Path],
    output: str | Path,
    *,
    choose: Mapping[str, str] | None = None,
    title: str = "",
    overwrite: bool = False,
) -> Collection:
    """Write a collection of bundles, which their cards tell apart.

    Columns are what cards say of `species` (with its charge), `polarity`, `year` and
    `block`, as far as this differs between the bundles. A bundle whose card states no
    charge serves both, unless the antiparticle has a bundle.

    Args:
        bundles: Bundles, folders of bundles, or addresses of bundles.
        output: File that is written, which ends in ".toml". Paths in it are relative.
        choose: Branch of columns, where it is not the default; `{track}` in it is
            replaced. A column that is named here stays, even if all bundles agree.
        title: Description in one line.
        overwrite: Whether an existing file is replaced.

    Returns:
        The collection.

    Raises:
        BundleError: A bundle is refused, or two serve the same rows.
        NtupleError: The file exists, or it cannot be written.

    Example:
        >>> collect(["bundles/"], "kaons.toml")  # doctest: +SKIP
    """
    output, named = Path(output), dict(choose or {})
    if output.suffix != SUFFIX:
        raise BundleError(f"{output}: the name of a collection ends in {SUFFIX}")
    for name in named:
        if name not in BRANCHES:
            raise BundleError(
                f"column {name!r} is on no card, expected {', '.join(BRANCHES)}"
                f"{nearest(name, BRANCHES)}; add others to the file by hand"
            )
    opened = list(_open_all(bundles))
    if not opened:
        raise BundleError("no bundle given, expected at least one")
    for place, bundle in opened:
        if bundle.card.is_corrector:
            raise BundleError(
                f"{place}: a corrector, expected generators: a collection chooses what "
                "`pidgan apply` generates"
            )
    cards = [bundle.card for _, bundle in opened]
    when = _values([(card.species, card.sample.data_taking) for card in cards])
    columns = _columns(when, named)
    members = tuple(
        Member(
            file=place if is_remote(place) else _relative(place, output),
            sha256=bundle.sha256,
            when={name: own[name] for name in columns if name in own},
        )
        for (place, bundle), own in zip(opened, when, strict=True)
    )
    content = Content.model_construct(
        schema_version=1,
        title=title,
        gaps="error",
        choose={name: (BRANCHES | named)[name] for name in columns},
        bundles=members,
    )
    _refuse_overlap(content.choice(), [member.file for member in members])
    shared = {
        name: values
        for name, values in when[0].items()
        if name not in (*columns, SPECIES)
    }
    with writing_file(output, overwrite=overwrite) as temporary:
        text = collection_text(content, shared=shared)
        temporary.write_text(text, encoding="utf-8")
    return Collection.open(output)


def check_distinct(bundles: Mapping[str, tuple[str, Mapping[str, str]]]) -> None:
    """Raise a BundleError if `collect` could not tell bundles apart.

    They need not exist: by name, a bundle has its species and the data-taking
    conditions that its card will state.
    """
    when = _values([*bundles.values()])
    columns = _columns(when, ())
    own = tuple({n: one[n] for n in columns if n in one} for one in when)
    named = tuple(dict.fromkeys([*columns, SPECIES]))
    _refuse_overlap(Choice(columns=named, when=own), [*bundles])


def _refuse_overlap(choice: Choice, files: Sequence[str]) -> None:
    """Raise a BundleError that names two bundles for the same rows."""
    try:
        check_overlap(choice, files)
    except ValueError as error:
        raise BundleError(
            f"{error}; leave one out, or write by hand what tells them apart, such as "
            "ranges of run numbers"
        ) from None


def _columns(when: Sequence[When], named: Container[str]) -> list[str]:
    """Return the columns that tell bundles apart, and those that are named."""
    return [
        name
        for name in BRANCHES
        if name in named or _differs([own.get(name) for own in when], name)
    ]


def collection_text(content: Content, *, shared: When | None = None) -> str:
    """Return the text of the file of a collection.

    A comment names the values that all bundles have, and that choose none of them.
    """
    head = _HEAD
    if shared:
        head += f"# All bundles are for {when_text(shared)}, which is not looked at.\n"
    lines = [head, "schema = 1"]
    if content.title:
        lines.append(f"title = {_quoted(content.title)}")
    if content.gaps != "error":
        lines.append(f"gaps = {_quoted(content.gaps)}")
    lines += ["", "[choose]"]
    lines += [f"{name} = {_quoted(b)}" for name, b in content.choose.items()]
    for member in content.bundles:
        lines += ["", "[[bundles]]", f"file = {_quoted(member.file)}"]
        lines.append(f'sha256 = "{member.sha256}"')
        lines.append(f"when = {{{when_text(member.when)}}}")
    return "\n".join([*lines, ""])


def _open_all(places: Sequence[str | Path]) -> Iterator[tuple[str, Bundle]]:
    """Yield path or address of each bundle, and the bundle."""
    for place in places:
        if is_remote(place):
            path, _ = keep(str(place), most=MAX_BYTES)
            yield str(place), open_bundle(path)
        elif Path(place).is_dir():
            files = sorted(Path(place).glob("*.onnx"))
            if not files:
                raise BundleError(f"{place} holds no bundle (*.onnx)")
            yield from ((str(file), open_bundle(file)) for file in files)
        else:
            path = shipped_path(place, ".onnx")
            yield str(path), open_bundle(path)


def _values(bundles: Sequence[tuple[str, Mapping[str, str]]]) -> list[When]:
    """Return what each card says of the rows: species and data-taking conditions.

    Of a bundle for both charges, the one that another bundle is for is left out.
    """
    found = [sample_values(*one) for one in bundles]
    own = [((i, i),) for i in (pdg_id(species) for species, _ in bundles)]
    taken = {*own, *(one[SPECIES] for one in found if len(one[SPECIES]) == 1)}
    when: list[When] = []
    for values, mine in zip(found, own, strict=True):
        others = [pair for pair in values[SPECIES] if (pair,) not in taken]
        both = len(values[SPECIES]) == 1 or len(others) == 1
        when.append(values if both else values | {SPECIES: mine})
    return when


def _differs(values: Sequence[object], name: str) -> bool:
    """Return whether a column tells bundles apart, or leaves out a charge."""
    first = values[0]
    is_single = name == SPECIES and isinstance(first, tuple) and len(first) == 1
    return is_single or any(value != first for value in values)


def _relative(place: str, output: Path) -> str:
    """Return the path of a bundle as seen from the folder of a file."""
    folder = os.path.abspath(output.parent)
    try:
        return Path(os.path.relpath(os.path.abspath(place), folder)).as_posix()
    except ValueError:  # another drive
        return Path(place).absolute().as_posix()


def _quoted(text: str) -> str:
    """Return a text as TOML has it, which is that of JSON."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
