"""Messages of the open inference protocol (KServe v2) over HTTP, read and written.

A message is JSON. With the extension for binary tensors, bytes of tensors follow it,
little-endian and in their order, and a header has the length of the JSON. Server and
client read and write them here. The protocol:
https://github.com/kserve/open-inference-protocol
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pidgan.arguments import brief
from pidgan.errors import nearest, repeated

Array = npt.NDArray[Any]

JSON_LENGTH = "Inference-Header-Content-Length"
"""Header with the number of bytes of the JSON, if bytes of tensors follow it."""

DTYPES: dict[str, np.dtype[Any]] = {
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    **{f"INT{8 * n}": np.dtype(f"<i{n}") for n in (1, 2, 4, 8)},
    **{f"UINT{8 * n}": np.dtype(f"<u{n}") for n in (1, 2, 4, 8)},
}
"""Types of numbers by their name in the protocol."""

NAMES = {dtype: name for name, dtype in DTYPES.items()}

MOST_TENSORS, MOST_DIMENSIONS = 64, 8


class RequestError(Exception):
    """A request that a server refuses.

    Attributes:
        status: Status of HTTP: 400, 404, 408, 413, 500 or 503.
    """

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(" ".join(message.split()))
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Message:
    """A request or a reply: its tensors by name, and what is said beside them.

    Attributes:
        tensors: Arrays by name, inputs of a request and outputs of a reply.
        parameters: Texts and numbers by name.
        id: Identity that a client gives a request; the reply repeats it.
        wanted: Outputs that a request asks for; None stands for all.
        binary: Outputs that a request wants as bytes, by name; "" stands for others.
    """

    tensors: Mapping[str, Array]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""
    wanted: tuple[str, ...] | None = None
    binary: Mapping[str, bool] = field(default_factory=dict)

    def is_binary(self, name: str) -> bool:
        """Return whether an output is wanted as bytes."""
        return self.binary.get(name, self.binary.get("", False))


def read_request(body: bytes, json_length: str | None) -> Message:
    """Read a request; a RequestError says what is wrong with it."""
    content, rest = _split(body, json_length)
    parameters = read_parameters(content.get("parameters"), "the request")
    listed = _entries(content, "outputs", optional=True)
    binary = {"": _flag(parameters, "binary_data_output")}
    for entry in listed or ():
        own = read_parameters(entry.get("parameters"), f"output {entry['name']!r}")
        if "binary_data" in own:
            binary[entry["name"]] = _flag(own, "binary_data")
    return Message(
        tensors=_read_tensors(_entries(content, "inputs") or [], rest, "input"),
        parameters=parameters,
        id=_text(content, "id"),
        wanted=tuple(entry["name"] for entry in listed) if listed else None,
        binary=binary,
    )


def read_reply(body: bytes, json_length: str | None) -> tuple[Message, dict[str, Any]]:
    """Read a reply, and all that its JSON says."""
    content, rest = _split(body, json_length)
    entries = _entries(content, "outputs") or []
    found = Message(
        tensors=_read_tensors(entries, rest, "output"),
        parameters=read_parameters(content.get("parameters"), "the reply"),
        id=_text(content, "id"),
    )
    return found, content


def write_request(message: Message, outputs: Sequence[str]) -> tuple[bytes, int]:
    """Return a request with tensors as bytes, and the length of its JSON."""
    inputs, parts = [], []
    for name, array in message.tensors.items():
        data = array.astype(DTYPES[_datatype(array)], copy=False).tobytes()
        inputs.append(_described(name, array) | _size(data))
        parts.append(data)
    content = {
        "id": message.id,
        **({"parameters": message.parameters} if message.parameters else {}),
        "inputs": inputs,
        "outputs": [
            {"name": name, "parameters": {"binary_data": True}} for name in outputs
        ],
    }
    head = json.dumps(content).encode()
    return b"".join([head, *parts]), len(head)


def write_reply(
    request: Message, tensors: Mapping[str, Array], head: Mapping[str, Any]
) -> tuple[bytes, int | None]:
    """Return a reply, and the length of its JSON if bytes follow.

    In JSON, which has no NaN, null stands for it.
    """
    outputs, parts = [], []
    for name, array in tensors.items():
        entry = _described(name, array)
        if request.is_binary(name):
            data = array.astype(DTYPES[entry["datatype"]], copy=False).tobytes()
            parts.append(data)
            entry |= _size(data)
        else:
            entry["data"] = _listed(array)
        outputs.append(entry)
    named = {"id": request.id} if request.id else {}
    text = json.dumps({**head, **named, "outputs": outputs}).encode()
    return b"".join([text, *parts]), len(text) if parts else None


def read_parameters(given: Any, where: str) -> dict[str, Any]:
    """Return parameters: texts, numbers and truth values by name."""
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise RequestError(f"{where}: parameters is {brief(given)}, expected an object")
    for name, value in given.items():
        if not isinstance(value, str | int | float | bool):
            raise RequestError(
                f"{where}: parameter {brief(name)} is {brief(value)}, expected a text, "
                "a number or a truth value"
            )
    return given


def check_shape(name: str, shape: Any) -> tuple[int, ...]:
    """Return a shape, or raise a RequestError unless it is a list of sizes."""
    sizes = tuple(shape) if isinstance(shape, list | tuple) else None
    if (
        sizes is None
        or len(sizes) > MOST_DIMENSIONS
        or not all(type(n) is int and 0 <= n < 2**40 for n in sizes)
    ):
        raise RequestError(
            f"{name}: shape is {brief(shape)}, expected a list of sizes such as [2, 3]"
        )
    return sizes


def check_dtype(name: str, datatype: Any) -> np.dtype[Any]:
    """Return the type of a tensor, or raise a RequestError."""
    if not isinstance(datatype, str) or datatype not in DTYPES:
        known = ", ".join(DTYPES)
        close = nearest(str(datatype)[:20], DTYPES)
        raise RequestError(
            f"{name}: datatype is {brief(datatype)}, expected one of {known}{close}"
        )
    return DTYPES[datatype]


def from_bytes(name: str, datatype: Any, shape: Any, data: bytes | memoryview) -> Array:
    """Return a tensor of little-endian bytes, or raise a RequestError."""
    dtype, sizes = check_dtype(name, datatype), check_shape(name, shape)
    expected = math.prod(sizes) * dtype.itemsize
    if len(data) != expected:
        raise RequestError(
            f"{name}: got {len(data)} bytes of data, expected {expected} for "
            f"{datatype} of shape {list(sizes)}"
        )
    return np.frombuffer(data, dtype).reshape(sizes)


def from_numbers(name: str, datatype: Any, shape: Any, data: Any) -> Array:
    """Return a tensor of a list of numbers, flat or nested, or raise a RequestError."""
    dtype, sizes = check_dtype(name, datatype), check_shape(name, shape)
    if not isinstance(data, list):
        raise RequestError(f"{name}: data is {brief(data)}, expected a list of numbers")
    for _ in range(MOST_DIMENSIONS):
        if data and isinstance(data[0], list):
            if not all(isinstance(part, list) for part in data):
                raise RequestError(f"{name}: data mixes lists and numbers")
            data = [value for part in data for value in part]
    if len(data) != math.prod(sizes):
        raise RequestError(
            f"{name}: got {len(data)} numbers, expected {math.prod(sizes)} for shape "
            f"{list(sizes)}"
        )
    # null stands for NaN, which JSON does not have.
    kinds = (int, float, type(None)) if dtype.kind == "f" else (int,)
    wrong = next((value for value in data if type(value) not in kinds), data)
    if wrong is not data:
        raise RequestError(f"{name}: data has {brief(wrong)}, expected {datatype}")
    try:
        with np.errstate(over="ignore"):  # infinite, which the status tells
            return np.array(data, dtype=dtype).reshape(sizes)
    except OverflowError:
        text = f"{name}: data has a number that {datatype} cannot hold"
        raise RequestError(text) from None


def _split(body: bytes, json_length: str | None) -> tuple[dict[str, Any], memoryview]:
    """Return the JSON of a message, and the bytes that follow it."""
    end = len(body)
    if json_length is not None:
        is_number = json_length.isascii() and json_length.isdigit()
        if not is_number or len(json_length) > 12 or int(json_length) > end:
            raise RequestError(
                f"{JSON_LENGTH} is {brief(json_length)}, expected a number of at most "
                f"{end}, the bytes of the body"
            )
        end = int(json_length)
    try:
        content = json.loads(body[:end])
    # Too deep, too long a number, or no Unicode.
    except (ValueError, RecursionError) as error:
        text = f"the body is not JSON: {type(error).__name__}: {str(error)[:100]}"
        raise RequestError(text) from None
    if not isinstance(content, dict):
        raise RequestError(f"the body is {brief(content)}, expected a JSON object")
    return content, memoryview(body)[end:]


def _entries(
    content: Mapping[str, Any], key: str, *, optional: bool = False
) -> list[dict[str, Any]] | None:
    """Return the list of described tensors at a key."""
    given = content.get(key)
    if given is None and optional:
        return None
    is_list = isinstance(given, list) and len(given) <= MOST_TENSORS
    if given is None or not is_list or not all(isinstance(e, dict) for e in given):
        raise RequestError(
            f"{key} is {brief(given)}, expected a list of at most {MOST_TENSORS} "
            "objects, each with a name"
        )
    names = [entry.get("name") for entry in given]
    wrong = [name for name in names if not isinstance(name, str) or len(name) > 255]
    if wrong:
        raise RequestError(f"{key}: a name is {brief(wrong[0])}, expected a text")
    if twice := repeated(names):
        raise RequestError(f"{key}: {brief(twice[0])} is there twice")
    found: list[dict[str, Any]] = given
    return found


def _read_tensors(
    entries: Sequence[Mapping[str, Any]], rest: memoryview, kind: str
) -> dict[str, Array]:
    """Return the tensors of a message, whose bytes follow each other in `rest`."""
    found, at = {}, 0
    for entry in entries:
        name = f"{kind} {entry['name']!r}"
        own = read_parameters(entry.get("parameters"), name)
        size = own.get("binary_data_size")
        described = (name, entry.get("datatype"), entry.get("shape"))
        if size is None:
            if "data" not in entry:
                text = f"{name} has neither data nor parameter binary_data_size"
                raise RequestError(text)
            found[entry["name"]] = from_numbers(*described, entry["data"])
            continue
        if "data" in entry:
            raise RequestError(f"{name} has both data and binary_data_size")
        if type(size) is not int or not 0 <= size <= len(rest) - at:
            raise RequestError(
                f"{name}: binary_data_size is {brief(size)}, expected at most "
                f"{len(rest) - at}, the bytes that are left of the body"
            )
        data = rest[at : at + size]
        found[entry["name"]] = from_bytes(*described, data)
        at += size
    if at != len(rest):
        raise RequestError(
            f"{len(rest) - at} bytes follow the last tensor, expected none; "
            f"{JSON_LENGTH} and binary_data_size of each tensor say where bytes are"
        )
    return found


def _described(name: str, array: Array) -> dict[str, Any]:
    return {"name": name, "datatype": _datatype(array), "shape": list(array.shape)}


def _datatype(array: Array) -> str:
    return NAMES[array.dtype.newbyteorder("<")]


def _size(data: bytes) -> dict[str, Any]:
    return {"parameters": {"binary_data_size": len(data)}}


def _listed(array: Array) -> list[Any]:
    """Return all numbers as a flat list; None for those that JSON does not have."""
    flat = array.ravel()
    values: list[Any] = flat.tolist()
    if flat.dtype.kind != "f" or np.isfinite(flat).all():
        return values
    return [value if math.isfinite(value) else None for value in values]


def _flag(parameters: Mapping[str, Any], name: str) -> bool:
    given = parameters.get(name, False)
    if not isinstance(given, bool):
        raise RequestError(
            f"parameter {name} is {brief(given)}, expected true or false"
        )
    return given


def _text(content: Mapping[str, Any], key: str) -> str:
    given = content.get(key, "")
    if not isinstance(given, str) or len(given) > 1000:
        raise RequestError(f"{key} is {brief(given)}, expected a short text")
    return given
