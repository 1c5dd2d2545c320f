"""The content of an ONNX file, decoded from its bytes without an inference engine.

Fields of the protocol-buffer message are decoded against a closed list, so that a file
can be refused before an engine follows a reference to another file, or runs any
operator. Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto;
encoding: https://protobuf.dev/programming-guides/encoding.

Generators of one kind share most of their operators, byte by byte, and these are
decoded once.
"""

import functools
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

# Largest number of fields in a file, so that reading takes seconds. A generator has
# some thousands, however large its constants are.
MAX_FIELDS = 1_000_000
# TensorProto.DataType of the types in bundles.
DTYPES = {1: "float32", 7: "int64", 9: "bool", 11: "float64"}

_VARINT, _BYTES = 0, 2
_FIXED = {1: 8, 5: 4}  # bytes of numbers of fixed size
_MAX_VARINT_BYTES = 10
_MAX_RANK = 8

# Size of messages that are decoded once, and number of those remembered: some megabytes
# for the operators of some twenty kinds of generators, of 100 to 300 bytes each.
_SMALL = 512
_REMEMBERED = 8192


class _Field(NamedTuple):
    """A field: its name, its message or code, and whether it is a list."""

    name: str
    kind: str
    repeated: bool = False


# Number, name and kind of the fields of each message; "*" marks a list.
_KNOWN = {
    "model": "7 graph graph, 8 opsets opset*, 14 metadata entry*",
    "opset": "1 domain text, 2 version int",
    "entry": "1 key text, 2 value text",
    "graph": "1 nodes node*, 5 constants tensor*, 11 inputs port*, 12 outputs port*",
    "node": "1 inputs text*, 2 outputs text*, 4 operator text, "
    "5 attributes attribute*, 7 domain text",
    "attribute": "1 name text, 2 f float, 3 i int, 4 s text, 7 floats float*, "
    "8 ints int*, 9 strings text*",
    "tensor": "1 dims int*, 2 dtype int, 4 floats float*, 5 ints int*, 7 ints int*, "
    "8 name text, 9 raw bytes, 14 location int",
    "port": "1 name text, 2 type type",
    "type": "1 tensor tensor_type",
    "tensor_type": "1 dtype int, 2 shape shape",
    "shape": "1 dims dim*",
    "dim": "1 value int, 2 parameter text",
}

# Fields without influence on the outputs, such as names and documentation.
_IGNORED = {
    "model": (1, 2, 3, 4, 5, 6),
    "graph": (2, 10, 13, 16),
    "node": (3, 6, 9),
    "attribute": (13, 20),
    "tensor": (12, 16),
    "port": (3, 4),
    "type": (6,),
    "dim": (3,),
}

# Fields that no bundle may have.
_REFUSED: dict[str, dict[str, tuple[int, ...]]] = {
    "model": {"training information": (20,), "functions": (25,)},
    "graph": {"quantization": (14,), "sparse constants": (15,)},
    "node": {"overloads of functions": (8,)},
    "attribute": {
        "constants inside operators": (5, 10),
        "graphs inside operators": (6, 11),
        "references to attributes of functions": (21,),
        "sparse constants": (22, 23),
    },
    "tensor": {"data in another file": (13,)},
}


def _fields_of(message: str) -> dict[int, _Field]:
    found = dict.fromkeys(_IGNORED.get(message, ()), _Field("", "ignored"))
    for what, numbers in _REFUSED.get(message, {}).items():
        found |= dict.fromkeys(numbers, _Field(what, "refused"))
    for entry in _KNOWN[message].split(", "):
        number, name, kind = entry.split()
        found[int(number)] = _Field(name, kind.rstrip("*"), kind.endswith("*"))
    return found


_MESSAGES = {message: _fields_of(message) for message in _KNOWN}


@dataclass(frozen=True, kw_only=True)
class Node:
    """An operator with names of inputs ("" for an absent one) and outputs."""

    operator: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Port:
    """An input or output of the graph; an open dimension has a name, others a size."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True)
class OnnxStructure:
    """The content of an ONNX file; `refused` tells what no bundle may have.

    `skeleton` is a hash of all that types, shapes and costs depend on: the operators,
    the ports, and constants without their real numbers.
    """

    metadata: dict[str, str]
    opsets: dict[str, int]
    graph: bytes
    nodes: tuple[Node, ...]
    constants: dict[str, npt.NDArray[Any]]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    refused: frozenset[str]
    skeleton: bytes


def read_onnx_structure(data: bytes) -> OnnxStructure:
    """Return the content of an ONNX file, or raise a ValueError if it is damaged."""
    decoder = _Decoder()
    view = memoryview(data)
    model = decoder.message(view, "model")
    if "graph" not in model:
        raise ValueError("it has no graph")
    graph = model["graph"]
    metadata = ((e.get("key", ""), e.get("value", "")) for e in model["metadata"])
    listed = ((e.get("domain", ""), e.get("version", 0)) for e in model["opsets"])
    opsets = _unique("operator set", listed)
    # A constant that is refused may have no numbers.
    constants = _unique("constant", [] if decoder.refused else graph["constants"])
    return OnnxStructure(
        metadata=_unique("metadata", metadata),
        opsets=opsets,
        graph=bytes(next(part for number, part in _fields(view) if number == 7)),
        nodes=tuple(graph["nodes"]),
        constants=constants,
        inputs=tuple(graph["inputs"]),
        outputs=tuple(graph["outputs"]),
        refused=frozenset(decoder.refused),
        skeleton=_skeleton(opsets, constants, decoder.parts),
    )


def _skeleton(
    opsets: dict[str, int], constants: dict[str, Any], parts: list[bytes]
) -> bytes:
    """Return a hash of operator sets, constants without real numbers, and the rest."""
    kinds = [(name, a.dtype.char, a.shape) for name, a in constants.items()]
    numbers = [a.tobytes() for a in constants.values() if a.dtype.kind != "f"]
    stated = repr((sorted(opsets.items()), kinds)).encode()
    return hashlib.sha256(b"".join([*parts, *numbers, stated])).digest()


class _Decoder:
    """Decoder of messages, which counts fields and notes content to refuse."""

    def __init__(self) -> None:
        self.fields_left = MAX_FIELDS
        self.refused: set[str] = set()
        self.parts: list[bytes] = []

    def spend(self, n: int) -> None:
        """Count fields and listed numbers."""
        self.fields_left -= n
        if self.fields_left < 0:
            raise ValueError(f"more than {MAX_FIELDS} fields")

    def message(self, data: memoryview, kind: str) -> dict[str, Any]:
        """Return the fields of a message by name; a repeated field is a list."""
        known = _MESSAGES[kind]
        found: dict[str, Any] = {f.name: [] for f in known.values() if f.repeated}
        for number, value in _fields(data):
            self.spend(1)
            field = known.get(number)
            if field is None:
                raise ValueError(f"unknown field {number} of {kind}")
            if field.kind == "refused":
                self.refused.add(field.name)
            elif field.kind == "ignored":
                continue
            elif field.repeated:
                found[field.name] += self._values(value, field, kind)
            elif field.name in found:
                raise ValueError(f"{field.name} of {kind} is given twice")
            else:
                (found[field.name],) = self._values(value, field, kind)
        if found.get("location", 0) != 0:
            self.refused.add("data in another file")
        return found

    def _values(
        self, value: "int | memoryview", field: _Field, message: str
    ) -> list[Any]:
        """Return one value, or the values of a packed list."""
        if field.kind == "int":
            if isinstance(value, int):
                return [_signed(value)]
            if field.repeated:
                return [_signed(v) for v in self._varints(value)]
        elif isinstance(value, memoryview):
            if field.kind == "text":
                return [bytes(value).decode("utf-8")]
            if field.kind == "bytes":
                return [value]
            if field.kind == "float" and (field.repeated or len(value) == 4):
                if len(value) % 4:
                    raise ValueError(f"{field.name} of {message} ends inside a number")
                self.spend(len(value) // 4)
                return list(np.frombuffer(value, "<f4").tolist())
            if field.kind in _MADE:
                return [self._made(value, field)]
            if field.kind in _MESSAGES:
                return [self.message(value, field.kind)]
        raise ValueError(f"{field.name} of {message} has the wrong type")

    def _made(self, data: memoryview, field: _Field) -> Any:
        """Return an operator, a port or a constant; small ones are decoded once."""
        kind = field.kind
        if kind != "tensor":
            self.parts += [f"{field.name} {len(data)} ".encode(), bytes(data)]
        if len(data) > _SMALL:
            found = self.message(data, kind)
            return None if self.refused and kind == "tensor" else _MADE[kind](found)
        known = _remembered(kind, bytes(data))
        self.spend(known.fields)
        self.refused |= known.refused
        return known.value

    def _varints(self, data: memoryview) -> Iterator[int]:
        position = 0
        while position < len(data):
            self.spend(1)
            value, position = _varint(data, position)
            yield value


class _Known(NamedTuple):
    """An operator, port or constant, the fields that it took, and what it refuses."""

    value: Any
    fields: int
    refused: frozenset[str]


@functools.lru_cache(maxsize=_REMEMBERED)
def _remembered(kind: str, data: bytes) -> _Known:
    """Decode a message, which gives the same for the same bytes."""
    decoder = _Decoder()
    found = decoder.message(memoryview(data), kind)
    is_refused = bool(decoder.refused) and kind == "tensor"
    return _Known(
        value=None if is_refused else _MADE[kind](found),
        fields=MAX_FIELDS - decoder.fields_left,
        refused=frozenset(decoder.refused),
    )


def _unique(what: str, entries: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in entries:
        if name in found:
            raise ValueError(f"two entries of {what} are named {name!r}")
        found[name] = value
    return found


def _node(found: dict[str, Any]) -> Node:
    attributes: dict[str, Any] = {}
    for entry in found["attributes"]:
        name = entry.pop("name", "")
        given = [v for k, v in entry.items() if k in ("f", "i", "s") or v]
        if name in attributes or len(given) > 1:
            raise ValueError(f"attribute {name!r} is given twice")
        # A file may leave out an empty list, and the value 0.
        attributes[name] = given[0] if given else None
    return Node(
        operator=found.get("operator", ""),
        domain=found.get("domain", ""),
        inputs=tuple(found["inputs"]),
        outputs=tuple(found["outputs"]),
        attributes=attributes,
    )


def _port(found: dict[str, Any]) -> Port:
    kind = found.get("type", {}).get("tensor", {})
    dims = kind.get("shape", {}).get("dims", [])
    return Port(
        name=found.get("name", ""),
        dtype=DTYPES.get(kind.get("dtype", 0), f"type {kind.get('dtype', 0)}"),
        shape=tuple(dim.get("value", dim.get("parameter", "?")) for dim in dims),
    )


def _tensor(found: dict[str, Any]) -> tuple[str, npt.NDArray[Any]]:
    """Return the name and the numbers of a tensor, which nobody can change."""
    name, dims = found.get("name", ""), found["dims"]
    dtype = DTYPES.get(found.get("dtype", 0))
    if dtype is None:
        raise ValueError(f"constant {name!r} has type {found.get('dtype', 0)}")
    if len(dims) > _MAX_RANK or any(size < 1 for size in dims):
        raise ValueError(f"constant {name!r} has shape {tuple(dims[:_MAX_RANK])}")
    expected = math.prod(dims)
    stored = np.dtype("u1" if dtype == "bool" else dtype).newbyteorder("<")
    if "raw" in found:
        got, rest = divmod(len(found["raw"]), stored.itemsize)
        values = np.frombuffer(found["raw"], stored, count=got)
    else:
        listed = found["floats"] if dtype == "float32" else found["ints"]
        values, got, rest = np.array(listed), len(listed), 0
    if rest or got != expected:
        raise ValueError(f"constant {name!r} has {got} numbers, expected {expected}")
    if dtype == "bool" and not np.isin(values, (0, 1)).all():
        raise ValueError(f"constant {name!r} has truth values other than 0 and 1")
    values = values.astype(dtype).reshape(dims)
    values.flags.writeable = False
    return name, values


_MADE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "node": _node,
    "port": _port,
    "tensor": _tensor,
}


def _fields(data: memoryview) -> Iterator[tuple[int, "int | memoryview"]]:
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise ValueError("field number 0")
        if kind == _VARINT:
            value, position = _varint(data, position)
            yield number, value
            continue
        if kind == _BYTES:
            size, position = _varint(data, position)
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise ValueError(f"wire type {kind}")
        if position + size > len(data):
            raise ValueError(f"field {number} ends beyond its message")
        yield number, data[position : position + size]
        position += size


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    # Most numbers are small: tags, and sizes of names.
    if position < len(data) and data[position] < 0x80:
        return data[position], position + 1
    value = 0
    for i in range(_MAX_VARINT_BYTES):
        if position + i >= len(data):
            raise ValueError("the message ends inside a number")
        byte = data[position + i]
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value & (2**64 - 1), position + i + 1
    raise ValueError("a number is too long")


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
