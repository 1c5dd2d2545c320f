"""Definitions and binnings loaded from TOML files, those that ship included."""

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pidgan.arguments import checked
from pidgan.errors import NtupleError, SampleError, nearest
from pidgan.files.documents import read_json, read_toml
from pidgan.files.places import file_problem
from pidgan.files.recognition import refuse_other
from pidgan.sample.definition import WEIGHTINGS, Sample
from pidgan.sample.links import joined
from pidgan.sample.species import pdg_id

#: A longer chain of `extends` is a mistake.
MAX_EXTENDS = 5
_BINNINGS = "binnings.toml"
#: Characters of a wrong value, and of a whole message, that are shown.
_MOST_SHOWN, _LONGEST = 80, 800


@checked
def load_sample(name_or_path: str | Path | Sample) -> Sample:
    """Load the definition of a calibration sample.

    Args:
        name_or_path: Name that `list_samples` lists, or path of a TOML file; a Sample
            is returned unchanged.

    Raises:
        SampleError: There is no such sample, or its definition is wrong.

    Example:
        >>> load_sample("run2_dstar_k").species
        'K+'
    """
    if isinstance(name_or_path, Sample):
        return name_or_path
    return _load(_find(str(name_or_path), Path.cwd()))


def list_samples() -> dict[str, Path]:
    """Return name and file of every calibration sample that ships with pidgan.

    Example:
        >>> "run2_dstar_k" in list_samples()
        True
    """
    paths = sorted(calibration_directory().glob("*.toml"))
    return {path.stem: path for path in paths if path.name != _BINNINGS}


@checked
def load_binning(name: str) -> dict[str, tuple[float, ...]]:
    """Return the edges of a binning that ships.

    "hadrons", "electrons" and "muons" are the defaults of PIDCalib2 in P, ETA and
    nTracks; "run3_hadrons" and "run3_muons" have nLongTracks; efficiency maps use
    "hadrons_map" and "run3_hadrons_map".

    A file of PIDCalib2, `{"K": {"P": [3000, 9300, ...]}}`, is named by its path, with
    the particle behind a colon if it has several: "my_binning.json:K". So is one block
    of the irregular bins of its `optbinscheme`: "scheme.json:block0".

    Args:
        name: Name of the binning, or path of a JSON file of PIDCalib2.

    Returns:
        Edges by condition, in package units.

    Raises:
        SampleError: No binning has that name, or a file is not as it should be.

    Example:
        >>> load_binning("muons")["nTracks"]
        (0.0, 50.0, 200.0, 300.0, 500.0)
    """
    file, _, particle = name.partition(".json")
    if file and ".json" in name:
        return _pidcalib_binning(f"{file}.json", particle.removeprefix(":"))
    path = calibration_directory() / _BINNINGS
    known = read_toml(path, error=SampleError)
    if name not in known:
        hint = nearest(name, known) or f"; known: {', '.join(known)}"
        raise SampleError(f"no binning {name!r} in {_BINNINGS}{hint}")
    return {key: tuple(map(float, edges)) for key, edges in known[name].items()}


def _pidcalib_binning(path: str, particle: str) -> dict[str, tuple[float, ...]]:
    """Return the edges of a particle in a JSON file of PIDCalib2."""
    content = read_json(path, error=SampleError)
    wanted = 'expected {"K": {"P": [3000, 9300, ...]}}, as for PIDCalib2'
    if not isinstance(content, dict) or not content:
        raise SampleError(f"{path} holds no binning, {wanted}")
    if isinstance(content.get("binning_files"), list):
        content, particle = _block_of(path, content["binning_files"], particle)
    if not particle and len(content) > 1:
        listed = ", ".join(map(str, content))
        raise SampleError(
            f"{path} has binnings of {listed}; say which is meant, "
            f"{path}:{next(iter(content))}"
        )
    particle = particle or str(next(iter(content)))
    if particle not in content:
        hint = nearest(particle, list(content)) or f"; known: {', '.join(content)}"
        raise SampleError(f"{path} has no binning of {particle!r}{hint}")
    found = content[particle]
    if not isinstance(found, dict) or not found:
        raise SampleError(f"{path}: {particle!r} is no binning, {wanted}")
    edges = {}
    for name, values in found.items():
        try:
            edges[str(name)] = tuple(float(value) for value in values)
        except (TypeError, ValueError):
            raise SampleError(
                f"{path}: {particle}.{name} holds no edges, {wanted}"
            ) from None
        steps = itertools.pairwise(edges[str(name)])
        if len(edges[str(name)]) < 2 or not all(a < b for a, b in steps):
            raise SampleError(
                f"{path}: the edges of {particle}.{name} do not rise, expected at "
                "least two that do"
            )
    return edges


def _block_of(path: str, blocks: list[Any], name: str) -> tuple[dict[str, Any], str]:
    """Return one block of the irregular bins of PIDCalib2's optbinscheme.

    Each block has bins of its own; rows of other blocks lie outside.
    """
    known = {
        str(one["filename_suffix"]): one["binning_scheme"]
        for one in blocks
        if isinstance(one, dict)
        and isinstance(one.get("binning_scheme"), dict)
        and one["binning_scheme"]
        and "filename_suffix" in one
    }
    if not known:
        raise SampleError(f"{path}: 'binning_files' holds no block with its bins")
    name = name or (next(iter(known)) if len(known) == 1 else "")
    if name not in known:
        raise SampleError(
            f"{path} has {len(known)} blocks with bins of their own, "
            f"{', '.join(known)}; name one, {path}:{next(iter(known))}"
            f"{nearest(name, known) if name else ''}"
        )
    return known[name], ""


def list_binnings() -> tuple[str, ...]:
    """Return the names of the binnings that ship."""
    return tuple(read_toml(calibration_directory() / _BINNINGS, error=SampleError))


def calibration_directory() -> Path:
    """Return the folder of the definitions: in a wheel, or beside the source tree."""
    package = Path(__file__).resolve().parent.parent
    places = (package / "calibration", package.parent / "calibration")
    for place in places:
        if (place / _BINNINGS).is_file():
            return place
    raise SampleError(
        f"no folder 'calibration' with {_BINNINGS}; looked in "
        f"{' and '.join(map(str, places))}: the installation is incomplete"
    )


def _find(name: str, folder: Path) -> Path:
    shipped = list_samples()
    if name in shipped:
        return shipped[name]
    path = folder / name
    problem = file_problem(path)
    if not problem:
        return path
    if problem != "no such file":
        refuse_other(path, "sample", error=SampleError)
        raise SampleError(f"{str(path)[:200]!r}: {problem}, expected a definition")
    kind = "file" if name.endswith(".toml") else "calibration sample"
    known = {**dict.fromkeys(shipped), **dict.fromkeys(map(str, folder.glob("*.toml")))}
    hint = nearest(name, known) or f"; known: {', '.join(shipped)}"
    raise SampleError(f"no {kind} {name!r}{hint}")


def _load(path: Path) -> Sample:
    return _validated(path, _resolved(path))


def _validated(path: Path, content: dict[str, Any]) -> Sample:
    """Return the sample of the content of a file, with all that it is based on."""
    try:
        content = joined(content)
    except ValueError as error:
        raise _wrong(path, str(error)) from None
    try:
        for key in ("binning", "map_binning"):
            if isinstance(content.get(key), str):
                content[key] = load_binning(content[key])
    except SampleError as error:
        raise _wrong(path, str(error)) from None
    try:
        sample = Sample.model_validate(content, context={"folder": path.parent})
    except ValidationError as error:
        details = _first_causes(error.errors())
        problems = [_one_line(detail, content) for detail in details]
        raise _wrong(path, "; ".join(problems[:5])) from None
    if path.parent != calibration_directory():  # those that ship are tested
        try:
            pdg_id(sample.species)
        except NtupleError as error:
            raise _wrong(path, str(error)) from None
    return sample


def _resolved(
    path: Path, *, depth: int = 0, later: tuple[Path, ...] = ()
) -> dict[str, Any]:
    """Read a file, with the content of the one that it comes after as its `after`.

    It is put over the file that it extends. `later` are the files of later links.
    """
    refuse_other(path, "sample", error=SampleError)
    content = read_toml(path, error=SampleError)
    if "after" in content:
        content["after"] = _earlier(path, content["after"], later=(*later, path))
    base = content.pop("extends", None)
    if base is None:
        return {"name": path.stem} | content
    if not isinstance(base, str):
        raise _wrong(path, f"extends is {base!r}, expected a name or a path")
    if depth == MAX_EXTENDS:
        raise SampleError(f"{path}: extends goes in a circle or is too deep ({base!r})")
    try:
        found = _find(base, path.parent)
        inherited = _resolved(found, depth=depth + 1, later=later)
    except SampleError as error:
        raise _wrong(path, f"extends {base!r}: {error}") from None
    inherited["name"] = path.stem
    if any(key in content for key in WEIGHTINGS):
        for key in WEIGHTINGS:
            inherited.pop(key, None)
    if "conditions" in content:
        _drop_binnings(inherited, content["conditions"])
    return inherited | content


def _drop_binnings(inherited: dict[str, Any], conditions: Any) -> None:
    """Remove inherited binnings in conditions that a definition does not have."""
    listed = conditions if isinstance(conditions, list) else []
    names = {one.get("name") for one in listed if isinstance(one, dict)}
    for key in ("binning", "map_binning"):
        edges = inherited.get(key, {})
        edges = load_binning(edges) if isinstance(edges, str) else edges
        if not names >= set(edges):
            del inherited[key]


def _earlier(path: Path, name: Any, *, later: tuple[Path, ...]) -> dict[str, Any]:
    """Return the content of the definition that a file comes after."""
    if not isinstance(name, str):
        raise _wrong(path, f"after is {name!r}, expected a name or a path")
    try:
        found = _find(name, path.parent)
    except SampleError as error:
        raise _wrong(path, f"after {name!r}: {error}") from None
    same = [place.resolve() for place in later]
    if found.resolve() in same:
        circle = [*later[same.index(found.resolve()) :], found]
        names = " after ".join(place.stem for place in circle)
        raise SampleError(f"{path}: after goes in a circle: {names}")
    try:
        content = _resolved(found, later=later)
        _validated(found, content)  # its own problems, before those of the whole
    except SampleError as error:
        if "goes in a circle" in str(error):
            raise
        raise _wrong(path, f"after {name!r}: {error}") from None
    return content


def _wrong(path: Path, problem: str) -> SampleError:
    """Return the error of a definition: one line of bounded length."""
    line = " ".join(problem.split())
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"
    return SampleError(f"{path}: {line}")


def _first_causes(details: list[ErrorDetails]) -> list[ErrorDetails]:
    """Leave out problems of a whole that follow from a problem of one of its parts.

    A key that is misspelt may be missing too: the spelling comes first.
    """
    places = [detail["loc"] for detail in details]
    wholes = {place[:n] for place in places for n in range(1, len(place))}
    causes = [detail for detail in details if detail["loc"] not in wholes]
    return sorted(causes, key=lambda detail: detail["type"] != "extra_forbidden")


def _one_line(detail: ErrorDetails, content: Mapping[str, Any]) -> str:
    """Rewrite a problem that pydantic found as where, got, expected."""
    where = _location(detail["loc"], content)
    message = detail["msg"].removeprefix("Value error, ")
    key = str(detail["loc"][-1]) if detail["loc"] else ""
    if detail["type"] == "extra_forbidden":
        return f"unknown key {where!r}{nearest(key, _fields(detail['loc']))}"
    if detail["type"] == "missing":
        return f"key {where!r} is missing"
    if detail["type"] == "value_error":
        return f"{where}: {message}" if where else message
    given = repr(detail["input"])
    given = given if len(given) <= _MOST_SHOWN else f"{given[:_MOST_SHOWN]}..."
    return f"{where} is {given}: {message[:1].lower()}{message[1:]}"


def _fields(location: tuple[int | str, ...]) -> Iterable[str]:
    model: type[BaseModel] = Sample
    for name, field in Sample.model_fields.items():
        if len(location) > 1 and location[0] == (field.alias or name):
            kinds = [k for k in get_args(field.annotation) if isinstance(k, type)]
            model = next((k for k in kinds if issubclass(k, BaseModel)), Sample)
    fields = model.model_fields.items()
    return ["extends", "after", *(field.alias or name for name, field in fields)]


def _location(location: tuple[int | str, ...], content: Any) -> str:
    """Write conditions.1.range as conditions['ETA'].range."""
    text = ""
    for part in location:
        try:
            content = content[part]
        except (KeyError, IndexError, TypeError):
            content = None
        if isinstance(part, str):
            text += f".{part}" if text else part
        elif isinstance(content, dict) and "name" in content:
            text += f"[{content['name']!r}]"
        else:
            text += f"[{part}]"
    return text
