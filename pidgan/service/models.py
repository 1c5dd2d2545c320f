"""The models of a server: bundles by name and version, and what a request may ask.

A request has `conditions`, and says where its noise comes from: the noise itself, as
the graph takes it; `keys`, one for each row; or a `seed`, with the number of the first
row or with columns that identify the rows. The last two give the numbers of `apply`.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pidgan.application.generating import judge
from pidgan.application.one_track import MISSING
from pidgan.arguments import brief
from pidgan.arrays import BoolArray
from pidgan.bounds import MOST_SEED
from pidgan.bundle import noise
from pidgan.bundle.bundle import Bundle, open_bundle
from pidgan.bundle.collection import SUFFIX, Collection
from pidgan.bundle.shipped import shipped_path
from pidgan.bundle.triton import MODEL_NAME, PLATFORM, member_names
from pidgan.errors import BundleError, nearest
from pidgan.service.batching import Work
from pidgan.service.messages import NAMES, Array, Message, RequestError

Float32Array = npt.NDArray[np.float32]

NOISE_TEXT = (
    "tensor 'noise', tensor 'keys' (UINT64, one for each row), or parameter 'seed' "
    "with parameters 'start' and 'track' or with tensor 'identity'"
)
"""Where the noise of a request can come from."""

KEY_DTYPES = ("UINT64", "INT64")
IDENTITY_DTYPES = ("INT64", "UINT64", "FP64", "FP32")
PARAMETERS = ("seed", "start", "track")

_GIVEN = re.compile(r"(?:(?P<name>[^=/]+)(?:/(?P<version>[^=/]+))?=)?(?P<path>.+)")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a request asks of a model: rows to generate, and how they become a reply."""

    work: Work
    usable: BoolArray
    status: npt.NDArray[np.int8]

    def reply(self, found: Float32Array) -> dict[str, Array]:
        """Return the tensors of the reply, of the targets of usable rows."""
        rows = np.flatnonzero(self.usable)
        y = np.full((len(self.usable), found.shape[1]), np.nan, dtype=np.float32)
        y[rows] = found
        # Where a transform of a condition has no value, as `apply` has it.
        lost = rows[~np.isfinite(found).all(axis=1)]
        y[lost] = np.nan
        self.status[lost] = MISSING
        return {"targets": y, "status": self.status}


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A bundle with the name and version under which it is asked for."""

    name: str
    version: int
    bundle: Bundle

    @property
    def platform(self) -> str:
        """What computes the model, in the words of the protocol."""
        return PLATFORM

    @property
    def inputs(self) -> dict[str, tuple[str, list[int]]]:
        """Type and shape of the inputs of the graph; -1 stands for any number."""
        return {name: ("FP32", [-1, n]) for name, n in self.bundle.card.ports.items()}

    @property
    def outputs(self) -> dict[str, tuple[str, list[int]]]:
        """The same for the outputs."""
        width = len(self.bundle.card.targets)
        return {"targets": ("FP32", [-1, width]), "status": ("INT8", [-1])}

    def read(self, message: Message, *, most_bytes: int) -> Asked:
        """Return what a request asks for, or raise a RequestError."""
        others = {"keys", "identity"}
        for name in message.tensors:
            if name not in {*self.inputs, *others}:
                known = [*self.inputs, *sorted(others)]
                raise RequestError(
                    f"model {self.name!r} has no input {brief(name)}, only "
                    f"{', '.join(known)}{nearest(name, known)}"
                )
        _check_spelling(message.parameters)
        for name in message.wanted or ():
            if name not in self.outputs:
                raise RequestError(
                    f"model {self.name!r} has no output {brief(name)}, only "
                    f"{', '.join(self.outputs)}{nearest(name, self.outputs)}"
                )
        columns = [
            self._rows(message.tensors, name) for name in self.inputs if name != "noise"
        ]
        rows = {name: len(x) for name, x in message.tensors.items()}
        if len(set(rows.values())) > 1:
            listed = ", ".join(f"{name} {n}" for name, n in rows.items())
            raise RequestError(f"tensors have different numbers of rows: {listed}")
        x = columns[0] if len(columns) == 1 else np.concatenate(columns, axis=1)
        card = self.bundle.card
        widest = max(x.shape[1], card.n_noise, len(card.targets))
        if 4 * widest * len(x) > most_bytes:
            most = most_bytes // (4 * widest)
            text = f"got {len(x)} rows, expected at most {most} in a request"
            raise RequestError(text, status=413)
        z = self._noise(message, len(x))
        usable, status, _ = judge(self.bundle, x)
        if not usable.all():
            x, z = x[usable], z[usable]
        return Asked(
            work=Work(bundle=self.bundle, x=x, noise=z), usable=usable, status=status
        )

    def _rows(self, tensors: Mapping[str, Array], name: str) -> Float32Array:
        """Return an input of the graph, of the type and shape that it must have."""
        if name not in tensors:
            datatype, shape = self.inputs[name]
            raise RequestError(
                f"model {self.name!r} needs input {name!r}, {datatype} of shape {shape}"
            )
        datatype, (_, width) = self.inputs[name]
        found = tensors[name]
        _check(name, found, (datatype,), (width,))
        return found

    def _noise(self, message: Message, n: int) -> Any:
        """Return the noise, or the keys, of all rows."""
        tensors, parameters = message.tensors, message.parameters
        given = [k for k in ("noise", "keys") if k in tensors]
        given += [k for k in ("seed",) if k in parameters]
        if len(given) != 1:
            got = " and ".join(given) or "none"
            raise RequestError(f"got {got}, expected one source of noise: {NOISE_TEXT}")
        _check_beside(message, given[0])
        if given == ["noise"]:
            z = self._rows(tensors, "noise")
            if not np.isfinite(z).all():
                raise RequestError("noise has a number that is not finite")
            return z
        if given == ["keys"]:
            keys = tensors["keys"]
            _check("keys", keys, KEY_DTYPES, (1,) if keys.ndim == 2 else ())
            return keys.reshape(n).astype(np.uint64, copy=False)
        seed = _whole(parameters, "seed", None)
        if "identity" in tensors:
            columns = tensors["identity"]
            _check("identity", columns, IDENTITY_DTYPES, (-1,))
            if not columns.shape[1]:
                raise RequestError("identity has no column, expected at least one")
            return noise.column_keys(list(columns.T), seed=seed)
        start = _whole(parameters, "start", 0)
        track = parameters.get("track", "")
        if not isinstance(track, str):
            raise RequestError(f"parameter track is {brief(track)}, expected a text")
        return noise.entry_keys(seed=seed, track=track, start=start, stop=start + n)


def _check_spelling(parameters: Mapping[str, Any]) -> None:
    """Raise for a name that is nearly ours; others are for other servers.

    Requests with a `strat` instead of a `start` would all have the same noise.
    """
    for name in parameters.keys() - set(PARAMETERS):
        if close := difflib.get_close_matches(name[:100].lower(), PARAMETERS, 1, 0.75):
            raise RequestError(f"no parameter {brief(name)}; closest: {close[0]!r}")


def _check_beside(message: Message, source: str) -> None:
    """Raise for what has no meaning beside this source of noise."""
    known = {"seed": ["identity", "start", "track"]}.get(source, [])
    if "identity" in message.tensors:
        known = [name for name in known if name == "identity"]
    for name in ("identity", "start", "track"):
        is_there = name in message.tensors or name in message.parameters
        if is_there and name not in known:
            other = "identity" if "identity" in message.tensors else source
            raise RequestError(f"{name} has no meaning beside {other}")


def _check(
    name: str, array: Array, dtypes: Sequence[str], width: tuple[int, ...]
) -> None:
    """Raise a RequestError unless a tensor has one of the types, and a shape."""
    got = NAMES[array.dtype]
    if got not in dtypes:
        raise RequestError(f"{name} has datatype {got}, expected {' or '.join(dtypes)}")
    is_right = array.ndim == 1 + len(width) and all(
        expected in (-1, n) for expected, n in zip(width, array.shape[1:], strict=True)
    )
    if not is_right:
        shown = ", ".join(["n", *("k" if w == -1 else str(w) for w in width)])
        raise RequestError(f"{name} has shape {list(array.shape)}, expected [{shown}]")


def _whole(parameters: Mapping[str, Any], name: str, default: int | None) -> int:
    """Return a parameter that is a whole number and not negative."""
    given = parameters.get(name, default)
    if type(given) is not int or not 0 <= given <= MOST_SEED:
        raise RequestError(
            f"parameter {name} is {brief(given)}, expected a whole number from 0 to "
            f"{MOST_SEED}"
        )
    return given


@dataclass(frozen=True, kw_only=True)
class Models:
    """All models of a server, by name and version, and its collections by name."""

    by_name: Mapping[str, Mapping[int, ServedModel]]
    collections: Mapping[str, Collection] = field(default_factory=dict)

    def find(self, name: str, version: str = "") -> ServedModel:
        """Return a model, the latest version if none is named, or a RequestError."""
        if name not in self.by_name:
            known = ", ".join(self.by_name)
            close = nearest(name[:100], self.by_name)
            text = f"no model {brief(name)}, only {known}{close}"
            raise RequestError(text, status=404)
        versions = self.by_name[name]
        if not version:
            return versions[max(versions)]
        for number, found in versions.items():
            if str(number) == version:
                return found
        listed = ", ".join(map(str, versions))
        text = f"model {name!r} has no version {brief(version)}, only {listed}"
        raise RequestError(text, status=404)

    @property
    def all(self) -> list[ServedModel]:
        """All models."""
        return [one for own in self.by_name.values() for one in own.values()]


def open_models(given: Sequence[str]) -> Models:
    """Open and check bundles that are named `[NAME[/VERSION]=]PATH`.

    A path is that of a bundle, of a collection, of a folder of bundles, or of a model
    repository as `export_triton` writes it. Names are the stems of files. Bundles of
    one name are its versions, in their order.

    Raises:
        BundleError: A path is none of these, a bundle is refused, or two have the same
            name and version.
    """
    found: dict[str, dict[int, ServedModel]] = {}
    collections: dict[str, Collection] = {}
    for text in given:
        match = None if Path(text).exists() else _GIVEN.fullmatch(text)
        name = match["name"] if match else None
        version = match["version"] if match else None
        path = match["path"] if match else text
        for own, number, place in _places(path, name, version, collections):
            _add(found, own, number, place, text)
    for name in collections.keys() & found.keys():
        raise BundleError(
            f"{name!r} is both a model and a collection; serve one of them as NAME=PATH"
        )
    return Models(by_name=found, collections=collections)


Place = tuple[str, str | None, Path | Bundle]
"""Name, version and file of a model."""


def _places(
    given: str,
    name: str | None,
    version: str | None,
    collections: dict[str, Collection],
) -> list[Place]:
    """Return the models that lie at a path."""
    path = shipped_path(given, ".onnx")
    if path.suffix.lower() == SUFFIX:
        collection = Collection.open(path)
        _refuse_name(given, "collection", version=version)
        _check_name(name or path.stem, given)
        if (name or path.stem) in collections:
            raise BundleError(f"{given}: the collection {name or path.stem!r} is there")
        collections[name or path.stem] = collection
        opened = collection.open_bundles(threads=1)
        names = member_names(collection)
        return [(n, None, b) for n, b in zip(names, opened, strict=True)]
    if path.is_dir():
        _refuse_name(given, "folder", name=name, version=version)
        bundles = sorted(path.glob("*.onnx"))
        versions = sorted(path.glob("*/[0-9]*/model.onnx"), key=_order)
        if not bundles and not versions:
            raise BundleError(
                f"{path}: no bundles, expected *.onnx or a model repository, "
                "NAME/VERSION/model.onnx"
            )
        own: list[Place] = [(file.stem, None, file) for file in bundles]
        own += [(f.parts[-3], f.parts[-2], f) for f in versions]
        return own
    return [(name or path.stem, version, path)]


def _order(path: Path) -> tuple[str, int, str]:
    """Return what sorts versions by their number."""
    text = path.parts[-2]
    return path.parts[-3], int(text) if text.isdigit() else 0, text


def _refuse_name(given: str, kind: str, **names: str | None) -> None:
    for what, value in names.items():
        if value is not None:
            raise BundleError(f"{given}: a {kind} takes no {what}, got {value!r}")


def _check_name(name: str, given: str) -> None:
    if not MODEL_NAME.fullmatch(name):
        raise BundleError(
            f"{given}: {brief(name)} is no name of a model, expected letters, digits "
            "and any of _.+~-; give NAME=PATH"
        )


def _add(
    found: dict[str, dict[int, ServedModel]],
    name: str,
    version: str | None,
    place: Path | Bundle,
    text: str,
) -> None:
    """Add a model; one that is there already is not added twice."""
    _check_name(name, text)
    if version is not None and not re.fullmatch("[1-9][0-9]{0,8}", version):
        raise BundleError(f"{text}: version is {version!r}, expected a number from 1")
    bundle = place if isinstance(place, Bundle) else open_bundle(place, threads=1)
    versions = found.setdefault(name, {})
    if version is None and any(
        one.bundle.sha256 == bundle.sha256 for one in versions.values()
    ):
        return
    if isinstance(place, Bundle) and versions:
        raise BundleError(
            f"{text}: its bundle {name!r} has the name of another model; serve it with "
            "another name"
        )
    number = int(version) if version else max(versions, default=0) + 1
    if number in versions:
        raise BundleError(
            f"{text}: model {name!r} has version {number} already, "
            f"{versions[number].bundle.path}; give NAME/VERSION=PATH"
        )
    versions[number] = ServedModel(name=name, version=number, bundle=bundle)
