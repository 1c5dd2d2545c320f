"""Sample definitions made from the list of calibration samples of PIDCalib2.

PIDCalib2 distributes `pidcalib2/data/samples.json`: a key for each sample, magnet
polarity and particle, such as "2024_WithUT_block1_v2-MagUp-K", with its files, trees,
cuts and the folder of its sWeights. A definition says what such a sample is. Where its
files are stays with the user, who is told what the list says of it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from pidgan.arguments import checked
from pidgan.errors import CutError, SampleError, nearest
from pidgan.files.documents import read_json
from pidgan.files.writing import refuse_existing, writing_file, writing_folder
from pidgan.sample import pidcalib_names as names
from pidgan.sample.built_in import translate_cut
from pidgan.sample.weight_file import WeightFile

SOURCE = "PIDCalib2 (gitlab.cern.ch/lhcb-rta/pidcalib2), samples.json"
#: File of the outcome of every key, in a folder of definitions.
OUTCOMES = "outcomes.json"
_KEY = re.compile(r"(?P<sample>.+)-(?P<magnet>Mag(?:Up|Down))-(?P<particle>[^-]+)")
_TABLES = "PIDCalib2_ElectronTables"
_SUPERSEDED = re.compile(r"_(without|with)_brem_[12]Dbin$")


class _Entry(BaseModel):
    """What the list says of a key; a key of another kind could change the meaning."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    files: list[str] = []
    calib_files: dict[str, str | int] = {}
    link: str | None = None
    cuts: list[str] = []
    sweight_dir: str | None = None
    sweight_branch: str | None = None
    tuple_names: dict[str, list[str]] = {}
    probe_prefix: str | None = None
    ordering_variables: list[str] = []
    mass_fit_variables: list[str] = []


@dataclass(frozen=True, kw_only=True)
class PidcalibSample:
    """A key of PIDCalib2's list, and the definition that is made of it.

    Attributes:
        name: The key: sample, magnet polarity and particle.
        outcome: "converted", or in a few words what the key is instead.
        reason: Why it is not converted, in one sentence; else empty.
        content: The content of the definition; empty if it is not converted.
        files: Addresses of the files, where the list has them.
        query: Otherwise what finds the files among LHCb's analysis productions.
        sweights: Folder of the files with the sWeights; empty if the files have them.
        notes: What a user of the sample should know.
    """

    name: str
    outcome: str
    reason: str = ""
    content: Mapping[str, Any]
    files: tuple[str, ...] = ()
    query: Mapping[str, str | int]
    sweights: str = ""
    notes: tuple[str, ...] = ()

    @cached_property
    def definition(self) -> str:
        """The definition as TOML, without any path."""
        lines = [f"# {self.name} of PIDCalib2's list of samples."]
        lines += [f"# {note}" for note in self.notes]
        for key, value in self.content.items():
            if key in ("conditions", "targets"):
                rows = "".join(f"  {_toml(row)},\n" for row in value)
                lines.append(f"{key} = [\n{rows}]")
            else:
                lines.append(f"{key} = {_toml(value)}")
        return "\n".join(lines) + "\n"

    def text(self) -> str:
        """Return as lines where PIDCalib2 finds the files of the sample."""
        lines = []
        if self.query:
            asked = ", ".join(f"{key} = {value}" for key, value in self.query.items())
            lines.append(f"files: LHCb analysis production with {asked}")
        elif self.files:
            lines += [
                f"files: {len(self.files)}",
                *(f"  {name}" for name in self.files),
            ]
        if self.sweights:
            lines.append(f"sWeights: files in {self.sweights}")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def to_json(self) -> str:
        """Return everything as JSON."""
        content = {
            "name": self.name,
            "outcome": self.outcome,
            "reason": self.reason,
            "definition": self.definition if self.content else None,
            "files": list(self.files),
            "query": dict(self.query),
            "sweights": self.sweights,
            "notes": list(self.notes),
        }
        return json.dumps(content, indent=2)

    @checked
    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the definition to a TOML file.

        Args:
            path: File of the definition.
            overwrite: Replace an existing file.
        """
        with writing_file(path, overwrite=overwrite) as temporary:
            temporary.write_text(self.definition, encoding="utf-8")
        return Path(path)


@checked
def list_pidcalib_samples(from_pidcalib: str | Path) -> dict[str, PidcalibSample]:
    """Return every key of PIDCalib2's list with its definition, or why it has none.

    Args:
        from_pidcalib: The file `pidcalib2/data/samples.json` of PIDCalib2.

    Raises:
        SampleError: The file is no such list.

    Example:
        >>> found = list_pidcalib_samples("samples.json")  # doctest: +SKIP
        >>> Path("k.toml").write_text(found["Turbo16-MagUp-K"].definition)
        ... # doctest: +SKIP
    """
    samples = _read(from_pidcalib)
    return {key: _convert(key, samples) for key in samples}


@checked
def convert_pidcalib_sample(from_pidcalib: str | Path, name: str) -> PidcalibSample:
    """Return one key of PIDCalib2's list with its definition.

    Args:
        from_pidcalib: The file `pidcalib2/data/samples.json` of PIDCalib2.
        name: The key, such as "Turbo16-MagUp-K": sample, magnet, particle.

    Raises:
        SampleError: There is no such key, or it cannot be converted.

    Example:
        >>> found = convert_pidcalib_sample("samples.json", "Turbo16-MagUp-K")
        ... # doctest: +SKIP
    """
    samples = _read(from_pidcalib)
    if name not in samples:
        hint = nearest(name, samples) or f"; it has {len(samples)} others"
        raise SampleError(f"{from_pidcalib} has no key {name!r}{hint}")
    found = _convert(name, samples)
    if found.reason:
        raise SampleError(f"{from_pidcalib}: {name} is {found.reason}")
    return found


def _read(path: str | Path) -> dict[str, Any]:
    """Return the content of the list."""
    content = read_json(path, error=SampleError)
    if not isinstance(content, dict) or not content:
        raise SampleError(
            f"{path} is no list of samples of PIDCalib2, samples.json: expected an "
            "object with a key for each sample"
        )
    return content


@checked
def save_pidcalib_samples(
    from_pidcalib: str | Path, output: str | Path, *, overwrite: bool = False
) -> dict[str, PidcalibSample]:
    """Write the definitions of all keys of PIDCalib2's list to a folder.

    Args:
        from_pidcalib: The file `pidcalib2/data/samples.json` of PIDCalib2.
        output: New folder, with a file KEY.toml for each key that can be converted,
            and `outcomes.json` with the outcome of every key.
        overwrite: Replace a folder that this function wrote.

    Returns:
        Every key with its definition, or the reason why it has none.

    Raises:
        SampleError: The file is no such list.
    """
    refuse_existing(output, overwrite=overwrite)
    found = list_pidcalib_samples(from_pidcalib)
    with writing_folder(output, mark=OUTCOMES, overwrite=overwrite) as folder:
        (folder / OUTCOMES).write_text(outcomes_json(found), encoding="utf-8")
        for sample in found.values():
            if sample.content:
                sample.save(folder / f"{sample.name}.toml")
    return found


def outcomes_json(found: Mapping[str, PidcalibSample]) -> str:
    """Return outcome and reason of every key as JSON."""
    content = {
        key: {"outcome": sample.outcome, "reason": sample.reason}
        for key, sample in found.items()
    }
    return json.dumps(content, indent=2)


def _convert(key: str, samples: Mapping[str, Any]) -> PidcalibSample:
    """Return a key with its definition, or with the reason why it has none."""
    try:
        if not re.fullmatch(r"\w[\w.+-]{0,199}", key):
            raise _RefusalError("not understood", "no name of a file")
        entry = _resolve(key, samples)
        sweights = entry.sweight_dir or ""
        if sweights.rstrip("/").endswith(_TABLES):
            raise _RefusalError(
                "table of efficiencies",
                "a table of efficiencies in bins, from fits; there are no weights of "
                "rows, from which a generator could learn; samples of electrons with "
                "sWeights have names that end with _v1",
            )
        match = _KEY.fullmatch(key)
        if match is None:
            users = [name for name, own in samples.items() if _link(own) == key]
            raise _RefusalError(
                "list of files",
                "a list of files for several particles; choose one of the keys that "
                f"use it: {', '.join(users) or 'none'}",
            )
        content, notes = _content(key, match, entry)
    except _RefusalError as refused:
        return PidcalibSample(
            name=key, outcome=refused.outcome, reason=str(refused), content={}, query={}
        )
    return PidcalibSample(
        name=key,
        outcome="converted",
        content=content,
        files=tuple(entry.files),
        query=entry.calib_files,
        sweights=sweights,
        notes=notes,
    )


class _RefusalError(Exception):
    """Why a key has no definition: in a few words, and in one sentence."""

    def __init__(self, outcome: str, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome


def _link(entry: Any) -> Any:
    return entry.get("link") if isinstance(entry, dict) else None


def _resolve(key: str, samples: Mapping[str, Any]) -> _Entry:
    """Return what the list says of a key, with what it takes from the key it links."""
    try:
        entry = _Entry.model_validate(samples[key])
        if entry.link is None:
            return entry
        if entry.link not in samples:
            raise _RefusalError(
                "not understood",
                f"not understood: it links to {entry.link!r}, which the list does not "
                f"have{nearest(entry.link, samples)}",
            )
        base = _Entry.model_validate(samples[entry.link])
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "the entry"
        raise _RefusalError(
            "not understood", f"not understood: {where}: {problem['msg']}"
        ) from None
    # As PIDCalib2 does: files come from the other key, and the rest has precedence.
    merged = {n: getattr(base, n) for n in base.model_fields_set}
    own = entry.model_fields_set - {"files", "calib_files", "link"}
    return base.model_copy(update=merged | {n: getattr(entry, n) for n in own})


def _content(
    key: str, match: re.Match[str], entry: _Entry
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the content of the definition, and notes for its user."""
    sample, particle = match["sample"], match["particle"]
    found = names.particle_of(particle)
    if found is None:
        raise _RefusalError("not understood", f"of an unknown particle, {particle!r}")
    species, charge, kind = found
    run = "1" if entry.probe_prefix is None else "3"
    if run == "1" and names.is_run2(sample):
        run = "2"
    weights, notes = _weights(entry)
    try:
        selection = translate_cut(entry.cuts)
    except CutError as error:
        opened, closed = (sum(c.count(s) for c in entry.cuts) for s in "()")
        raise _RefusalError(
            "wrong cut",
            f"a sample whose cut PIDCalib2 cannot read either: {opened} brackets open "
            f"and {closed} close"
            if opened != closed
            else f"a sample whose cut cannot be used: {error}",
        ) from None
    if _SUPERSEDED.search(sample):
        notes.append("PIDCalib2 advises against it for new analyses: see _v1.")
    content = {
        "schema": 1,
        "name": key,
        "title": f"{particle} of {sample}, Mag{match['magnet'][3:]}, combined DLLs",
        "detector": "LHCb",
        "species": species,
        "source": f"{SOURCE}: {key}",
        "trees": _trees(sample, particle, entry),
        **weights,
        **({"selection": selection} if selection else {}),
        **names.settings(species, kind, run),
        "data_taking": _data_taking(sample, match["magnet"], charge, run),
        **names.variables(kind, entry.probe_prefix),
    }
    return content, tuple(notes)


def _trees(sample: str, particle: str, entry: _Entry) -> list[str]:
    """Return the trees of a particle, as PIDCalib2 chooses them."""
    if names.SIMPLE.fullmatch(sample):
        return ["DecayTree"]
    found = entry.tuple_names.get(particle, names.TREES.get(particle))
    if found is None:
        raise _RefusalError(
            "not understood", f"without trees: PIDCalib2 knows none for {particle!r}"
        )
    return [f"{tree}/DecayTree".lstrip("/") for tree in found]


def _weights(entry: _Entry) -> tuple[dict[str, Any], list[str]]:
    """Return where the weights are, and notes."""
    if entry.sweight_dir is None:
        return {"weight_branch": entry.sweight_branch or "probe_sWeight"}, []
    file: dict[str, Any] = {"file": "{stem}_sweights.root"}
    if entry.ordering_variables:
        matched = {"match": "order_index", "order": entry.ordering_variables}
    else:
        matched = {"match": "entry"}
    try:
        WeightFile.model_validate(file | matched)
    except ValidationError as error:
        problem = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise _RefusalError("not understood", f"not understood: {problem}") from None
    note = "The sWeights are in files of their own; say where with --sweights-from."
    return {"sweights": {**file, **matched}}, [note]


def _data_taking(sample: str, magnet: str, charge: str, run: str) -> dict[str, str]:
    """Return what the name of a sample says of the data."""
    # Blocks of 2024 are block1 to block8, and those of later years c1 to c4.
    block = re.search(r"_(?:block|c)(\d)(?=[_-]|v\d|$)", sample)
    brem = re.search(r"_(with|without)_brem", sample)
    tuning = re.search(r"_MCTun[eE]?([vV]\d)", sample)
    found = {
        "run": run,
        "year": _year(sample),
        "polarity": magnet[3:].lower(),
        "charge": charge,
        "block": block[1] if block else "",
        "bremsstrahlung": brem[1] if brem else "",
        "tuning": f"MCTune{tuning[1].upper()}" if tuning else "",
        "sample": sample,
    }
    return {name: value for name, value in found.items() if value}


def _year(sample: str) -> str:
    """Return the year of a sample: from its name, or of its stripping."""
    if found := re.match(r"20\d\d(?=[_-]|$)", sample):
        return found[0]
    if found := re.search(r"(?:Turbo|Electron)(\d\d)", sample):
        return f"20{found[1]}"
    return names.YEARS.get(sample.split("_")[0], "")


def _toml(value: Any) -> str:
    """Write a value in one line of TOML."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{k} = {_toml(v)}' for k, v in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, float):
        return (
            f"{value:g}"
            if "e" in f"{value:g}" or "." in f"{value:g}"
            else f"{value:.1f}"
        )
    # A text of JSON is one of TOML.
    return json.dumps(value, ensure_ascii=False)
