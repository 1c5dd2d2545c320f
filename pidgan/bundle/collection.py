"""A collection: bundles with checksums, and the columns that choose one for each row.

A collection is a small TOML file, which `pidgan collect` makes and a person can mend:

    schema = 1

    [choose]
    species = "{track}_TRUEID"
    polarity = "Polarity"
    run = "runNumber"

    [[bundles]]
    file = "kaon_down.onnx"
    sha256 = "7d8d6c9d..."
    when = {species = ["K+", "K-"], polarity = -1, run = [[1000, 2000], 2500]}

`choose` has the branch of an ntuple for each column; `{track}` in it is replaced.
`when` has the values that a bundle serves: a whole number, or a list of numbers and of
ranges [first, last]; particles may be named. `file` is a path relative to the
collection, or an address, which is fetched once and kept in a cache
(`pidgan.files.fetching`). Two bundles for one row are an error of the file. A row
without a bundle is an error of `apply`, unless the file has `gaps = "nan"`.
"""

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias
from warnings import warn

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from pidgan import higher
from pidgan.arguments import brief, check_path, checked
from pidgan.bundle.bundle import Bundle, read_bundle
from pidgan.bundle.bundle_file import MAX_BYTES
from pidgan.bundle.card import Card
from pidgan.bundle.choice import Choice, Ranges
from pidgan.bundle.when import (
    SPECIES,
    card_values,
    is_within,
    parse_when,
    species_text,
    values_text,
    when_text,
)
from pidgan.errors import BundleError, PidganError, PidganWarning, nearest
from pidgan.files.documents import read_toml
from pidgan.files.fetching import fetch
from pidgan.files.machine import available_cores
from pidgan.files.recognition import refuse_other
from pidgan.files.trees import is_remote
from pidgan.notebook import Facts, count, shown
from pidgan.sample.species import pdg_id
from pidgan.sample.variables import FROZEN

if TYPE_CHECKING:
    import pandas as pd

    from pidgan.files.frames import Frame

SUFFIX = ".toml"

MOST_BUNDLES = 1000
"""Largest number of bundles of a collection."""

Gaps: TypeAlias = Literal["error", "nan"]
"""Rows without a bundle are an error, or get NaN and a status bit."""

_COLUMN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Member(BaseModel):
    """A bundle of a collection.

    Attributes:
        file: Path of the bundle relative to the collection, or its address.
        sha256: Checksum of the bundle, in hexadecimal.
        when: By column, the values of the rows that it serves.
    """

    model_config = FROZEN

    file: str = Field(min_length=1)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    when: Annotated[dict[str, Ranges], BeforeValidator(parse_when)] = Field(
        default_factory=dict
    )

    def text(self) -> str:
        """Return the values that it serves as text."""
        return when_text(self.when)


class Content(BaseModel):
    """The content of the file of a collection.

    Attributes:
        schema_version: Version of the format, 1.
        title: Description in one line.
        gaps: What happens to rows that no bundle serves, "error" or "nan".
        choose: By column, the branch that holds it; `{track}` in it is replaced.
        bundles: The bundles.
    """

    model_config = FROZEN

    schema_version: Literal[1] = Field(alias="schema")
    title: str = ""
    gaps: Gaps = "error"
    choose: dict[str, Annotated[str, Field(min_length=1)]] = Field(default_factory=dict)
    bundles: tuple[Member, ...] = Field(min_length=1, max_length=MOST_BUNDLES)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in self.choose:
            if not _COLUMN.fullmatch(name):
                raise ValueError(f"choose has {name!r}, which is no name of a column")
        named = {name for member in self.bundles for name in member.when}
        for name in named - {SPECIES}:
            if name not in self.choose:
                raise ValueError(
                    f"when has the column {name!r}, of which choose gives no branch"
                    f"{nearest(name, self.choose)}"
                )
        for name in self.choose.keys() - named - {SPECIES}:
            raise ValueError(
                f"choose has {name!r}, which no bundle has in when"
                f"{nearest(name, named)}"
            )
        check_overlap(self.choice(), [member.file for member in self.bundles])
        return self

    def rules(self) -> dict[str, Any]:
        """Return what decides which bundle a row gets, ready for JSON."""
        when = [
            {k: list(map(list, v)) for k, v in m.when.items()} for m in self.bundles
        ]
        return {"choose": dict(self.choose), "when": when}

    def choice(self) -> Choice:
        """Return the choice of the file, among species too."""
        columns = dict.fromkeys([*self.choose, SPECIES])
        return Choice(columns=tuple(columns), when=tuple(m.when for m in self.bundles))


def check_overlap(choice: Choice, files: Sequence[str]) -> None:
    """Raise a ValueError that names two bundles which serve the same values."""
    if (found := choice.overlap()) is None:
        return
    i, j, values = found
    shared = when_text({name: ((v, v),) for name, v in values.items()})
    one, other = (when_text(choice.when[k]) or "all rows" for k in (i, j))
    raise ValueError(
        f"{files[i]} (when {one}) and {files[j]} (when {other}) both serve "
        f"{shared or 'all rows'}; expected one bundle for each row"
    )


@shown
@dataclass(frozen=True, kw_only=True)
class Collection:
    """Bundles with checksums, and the columns that choose one for each row.

    Attributes:
        content: What the file says.
        path: The file, beside which relative paths begin.

    Example:
        >>> collection = Collection.open("kaons.toml")          # doctest: +SKIP
        >>> pidgan.apply({"Kplus": collection}, "a.root", "b.root")  # doctest: +SKIP
    """

    content: Content
    path: Path

    @classmethod
    @checked
    def open(cls, path: "str | Path | Collection") -> "Collection":
        """Read a collection; its bundles are not opened. One that is open is returned.

        Raises:
            BundleError: The file is missing, damaged, or says something impossible.
        """
        if isinstance(path, Collection):
            return path
        check_path("open", path)
        path = Path(path)
        refuse_other(path, "collection", error=BundleError)
        content = read_toml(path, error=BundleError)
        try:
            return cls(content=Content.model_validate(content), path=path)
        except ValidationError as error:
            raise BundleError(f"{path}: {_first_problem(error, content)}") from None

    @property
    def members(self) -> tuple[Member, ...]:
        """The bundles of the file."""
        return self.content.bundles

    def rules(self) -> dict[str, Any]:
        """Return what decides which bundle a row gets, ready for JSON."""
        return self.content.rules()

    def text(self) -> str:
        """Return the columns and the bundles as text."""
        lines = [f"{self.path}: {self.content.title or 'collection'}"]
        lines += [f"column        {k}: {v}" for k, v in self.content.choose.items()]
        served = [(m.file, m.text() or "all rows") for m in self.members]
        lines += [f"bundle        {file}: {when}" for file, when in served]
        return "\n".join([*lines, f"other rows    {self.content.gaps}"])

    @checked
    def open_bundles(
        self, *, threads: int | None = None, verify: bool = True
    ) -> list[Bundle]:
        """Open all bundles, fetched where they have an address, and check them.

        Args:
            threads: Number of threads of each, as in `open_bundle`.
            verify: Whether the self-tests run.

        Raises:
            BundleError: A bundle is missing, is refused, or has another checksum or
                species than the file says.
        """
        # Only fetching gains from threads: reading is work of Python.
        is_far = any(is_remote(member.file) for member in self.members)
        with ThreadPoolExecutor(available_cores()) as pool:
            each = pool.map if is_far else map
            bundles = list(each(lambda m: self._open(m, threads), self.members))
            if verify:
                list(pool.map(lambda bundle: bundle.run_self_test(), bundles))
        for member, bundle in zip(self.members, bundles, strict=True):
            self._check_card(member, bundle.card)
        return bundles

    @checked
    def sample(
        self,
        frame: "Frame",
        *,
        seed: int = 1,
        track: str = "",
        columns: Mapping[str, str] | None = None,
        units: Mapping[str, str] | None = None,
        scales: Mapping[str, float] | None = None,
        quantile_maps: Mapping[str, Any] | None = None,
        key: Sequence[str] = (),
        start: int = 0,
        species_from: str | None = None,
        gaps: Gaps | None = None,
        threads: int | None = None,
    ) -> "pd.DataFrame":
        """Return generated targets of rows in memory, each by the bundle for it.

        The columns that choose are found as `choose` names them. Everything else is as
        in `Bundle.sample`.

        Args:
            frame: A DataFrame, a dict of arrays, an awkward array of records, or a
                structured array of numpy.
            seed: Seed of the noise.
            track: Prefix of the columns of the track.
            columns: Column that holds a condition, by its name, where it has another.
            units: Unit of a column, by condition.
            scales: Known ratio of data to simulation, by condition.
            quantile_maps: Map of a condition from simulation to data, or its file.
            key: Columns that identify an event, as in `apply`.
            start: Number of the first row.
            species_from: NAME of the column `{track}_NAME` that holds a PDG id.
            gaps: Treatment of rows that no bundle serves, as in `apply`.
            threads: Number of threads; the result does not depend on it.

        Returns:
            A column for each target, and `pidgan_status`, with the index of the frame.

        Raises:
            NtupleError: A column is missing, holds no numbers, or has another unit; or
                no bundle serves some rows.
            BundleError: A bundle is refused.
        """
        made: pd.DataFrame = higher.function("application.in_memory", "sample")(
            self,
            frame,
            seed=seed,
            track=track,
            columns=columns,
            units=units,
            scales=scales,
            quantile_maps=quantile_maps,
            key=key,
            start=start,
            species_from=species_from,
            gaps=gaps,
            threads=threads,
        )
        return made

    def _open(self, member: Member, threads: int | None) -> Bundle:
        """Open a bundle; raise if it is another one than that of the file."""
        is_far = is_remote(member.file)
        try:
            if is_far:
                path = fetch(member.file, member.sha256, most=MAX_BYTES)
            else:
                path = self.path.parent / member.file
            bundle = read_bundle(path, threads=threads)
        except PidganError as error:
            raise BundleError(f"{self.path}: {error}") from error
        if bundle.sha256 != member.sha256:
            raise BundleError(
                f"{self.path}: bundle {member.file} has sha256 {bundle.sha256}, "
                f"expected {member.sha256}: it is another file than the one meant; "
                "make the collection again with `pidgan collect`"
            )
        return replace(bundle, address=member.file) if is_far else bundle

    def _check_card(self, member: Member, card: Card) -> None:
        """Raise if a bundle serves another species than its own; warn of periods."""
        own = pdg_id(card.species)
        for first, last in member.when.get(SPECIES, ()):
            if {abs(first), abs(last)} != {abs(own)}:
                raise BundleError(
                    f"{self.path}: bundle {member.file} is for {card.species}, but "
                    f"serves species = {species_text(((first, last),))}"
                )
        for name, ranges in card_values(card).items():
            given = member.when.get(name, ranges)
            if name != SPECIES and not is_within(ranges, given):
                said = card.sample.data_taking[name]
                warn(
                    f"{self.path}: bundle {member.file} serves {name} = "
                    f"{values_text(given)}, but its card says {name} = {said!r}",
                    PidganWarning,
                    stacklevel=5,
                )

    def _facts(self) -> Facts:
        columns = ", ".join(self.content.choose) or "species"
        return Facts(
            f"{self.path.name}: {count(len(self.members), 'bundles')}, chosen by "
            f"{columns}",
            {
                "title": self.content.title or "none",
                "other rows": self.content.gaps,
                **{m.file: m.text() or "all rows" for m in self.members},
            },
        )


def _first_problem(error: ValidationError, content: Mapping[str, Any]) -> str:
    """Return the first problem that pydantic found, in one line."""
    # A key that is misspelt is missing too: the spelling is the cause.
    found = error.errors()
    first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
    place = ".".join(str(part) for part in first["loc"])
    bundles: Any = content.get("bundles")
    if first["loc"][:1] == ("bundles",) and len(first["loc"]) > 1:
        number = int(first["loc"][1])
        one = bundles[number]
        named = one.get("file") if isinstance(one, dict) else None
        rest = ".".join(str(part) for part in first["loc"][2:])
        place = f"bundle {brief(named or number + 1)}{f', {rest}' if rest else ''}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        model = Member if first["loc"][0] == "bundles" else Content
        names = [f.alias or n for n, f in model.model_fields.items()]
        return f"unknown key {place}{nearest(str(first['loc'][-1]), names)}"
    if first["type"] == "missing":
        return f"{place} is missing"
    if first["type"] == "value_error":
        return f"{place}: {message}" if place else message
    return f"{place} is {brief(first['input'])}: {message[:1].lower()}{message[1:]}"
