"""What an ONNX file contains, read from its bytes without loading the graph.

An ONNX file is one protocol-buffer message. Its operators, its metadata and the places
that may refer to other files are found here by walking that message, so that a file can
be refused before an inference engine sees it: the engine would follow a reference to
another file, and accepts some operators that the ONNX standard does not define.

Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. Encoding:
https://protobuf.dev/programming-guides/encoding.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_DEPTH = 64
_MAX_VARINT_BYTES = 10

# Message -> field number -> message or, for leaves, what the field means.
_FIELDS: dict[str, dict[int, str]] = {
    "model": {
        7: "graph",
        8: "opset",
        14: "metadata",
        20: "training",
        25: "function",
    },
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "node": {5: "attribute", 7: "domain"},
    "function": {7: "node", 9: "opset", 11: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse",
        23: "sparse",
    },
    "tensor": {13: "external", 14: "tensor_location"},
    "opset": {1: "domain"},
    "metadata": {1: "key", 2: "value"},
}


@dataclass(frozen=True, kw_only=True)
class OnnxStructure:
    """What the walk found.

    Attributes:
        metadata: the entries of `metadata_props`.
        domains: operator domains that are imported or used ("" is the ONNX standard).
        has_graph: whether there is a graph.
        has_external_data: whether a tensor refers to another file.
    """

    metadata: dict[str, str]
    domains: frozenset[str]
    has_graph: bool
    has_external_data: bool


@dataclass(kw_only=True)
class _Found:
    metadata: dict[str, str] = field(default_factory=dict)
    domains: set[str] = field(default_factory=set)
    has_graph: bool = False
    has_external_data: bool = False


def read_onnx_structure(data: bytes) -> OnnxStructure:
    """Return the structure of an ONNX file.

    Args:
        data: the whole file.

    Raises:
        ValueError: the bytes are not a protocol-buffer message of that shape.
    """
    found = _Found()
    _walk(memoryview(data), "model", found, 0)
    return OnnxStructure(
        metadata=found.metadata,
        domains=frozenset(found.domains),
        has_graph=found.has_graph,
        has_external_data=found.has_external_data,
    )


def _walk(data: memoryview, message: str, found: _Found, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError(f"messages nested deeper than {_MAX_DEPTH}")
    entry = {"key": "", "value": ""}
    for number, value in _fields(data):
        meaning = _FIELDS[message].get(number)
        if meaning is None:
            continue
        if meaning == "tensor_location":
            # DataLocation: 0 inside the file, 1 in another file.
            found.has_external_data |= value != 0
            continue
        if not isinstance(value, memoryview):
            raise ValueError(f"field {number} of {message} has the wrong type")
        if meaning == "external":
            found.has_external_data = True
        elif meaning == "domain":
            found.domains.add(_text(value))
        elif meaning in entry:
            entry[meaning] = _text(value)
        else:
            found.has_graph |= meaning == "graph" and message == "model"
            _walk(value, meaning, found, depth + 1)
    if message == "metadata":
        found.metadata[entry["key"]] = entry["value"]


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
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind}")
        if position + size > len(data):
            raise ValueError(f"field {number} ends beyond its message")
        yield number, data[position : position + size]
        position += size


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for i in range(_MAX_VARINT_BYTES):
        if position + i >= len(data):
            raise ValueError("the message ends inside a number")
        byte = data[position + i]
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, position + i + 1
    raise ValueError("a number is too long")


def _text(data: memoryview) -> str:
    return bytes(data).decode("utf-8")
