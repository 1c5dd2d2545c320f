"""Bytes of an ONNX file, written without the package of that name.

It is the reverse of `pidgan.bundle.onnx_bytes` for what `pidgan.bundle.rearranged`
makes: nodes, constants and ports of fixed shape. Field numbers:
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

import struct
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pidgan.bundle.onnx_bytes import DTYPES, Node

IR_VERSION = 8
_CODES = {np.dtype(name): code for code, name in DTYPES.items()}
# AttributeProto.AttributeType.
_FLOAT, _INT, _STRING, _INTS = 1, 2, 3, 7


def model_bytes(graph: Iterable[bytes], opsets: Mapping[str, int]) -> bytes:
    """Return a file with the parts of a graph, and the operator sets it uses."""
    sets = [
        _message(8, _text(1, domain) + _int(2, version))
        for domain, version in opsets.items()
    ]
    return b"".join([_int(1, IR_VERSION), *sets, _message(7, b"".join(graph))])


def node_bytes(node: Node) -> bytes:
    """Return an operator as a part of a graph."""
    parts = [_text(1, name) for name in node.inputs]
    parts += [_text(2, name) for name in node.outputs]
    parts += [_text(4, node.operator), _text(7, node.domain)]
    parts += [_message(5, _attribute(k, v)) for k, v in node.attributes.items()]
    return _message(1, b"".join(parts))


def constant_bytes(name: str, array: npt.NDArray[Any]) -> bytes:
    """Return a constant as a part of a graph."""
    dims = b"".join(_int(1, size) for size in array.shape)
    stored = array.astype(array.dtype.newbyteorder("<"), copy=False)
    kind = _int(2, _CODES[array.dtype])
    return _message(5, dims + kind + _text(8, name) + _message(9, stored.tobytes()))


def port_bytes(number: int, name: str, dtype: str, shape: Iterable[int]) -> bytes:
    """Return an input (number 11) or output (12) as a part of a graph."""
    dims = b"".join(_message(1, _int(1, size)) for size in shape)
    kind = _message(1, _int(1, _CODES[np.dtype(dtype)]) + _message(2, dims))
    return _message(number, _text(1, name) + _message(2, kind))


def _attribute(name: str, value: Any) -> bytes:
    if isinstance(value, float):
        found = _tag(2, 5) + struct.pack("<f", value) + _int(20, _FLOAT)
    elif isinstance(value, int):
        found = _int(3, value) + _int(20, _INT)
    elif isinstance(value, str):
        found = _text(4, value) + _int(20, _STRING)
    else:
        found = b"".join(_int(8, one) for one in value) + _int(20, _INTS)
    return _text(1, name) + found


def _text(number: int, text: str) -> bytes:
    return _message(number, text.encode())


def _message(number: int, content: bytes) -> bytes:
    return _tag(number, 2) + _varint(len(content)) + content


def _int(number: int, value: int) -> bytes:
    return _tag(number, 0) + _varint(value % 2**64)


def _tag(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
