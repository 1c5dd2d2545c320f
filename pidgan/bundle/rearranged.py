"""The graph of a bundle, rearranged for speed before onnxruntime gets it.

In the file a value is (n, k): a row after the other. Here it is (k, n), so that
operators on a few columns work on long rows of memory, and the layers of networks are
convolutions of size one on channels in blocks of 8 or 16 numbers, as many as the
processor multiplies at once. This is the layout NCHWc of onnxruntime (Y. Liu et al.,
*Optimizing CNN model inference on CPUs*, USENIX ATC 2019, arXiv:1809.02697). Bias, sum
and activation are part of the product. The file stays as it is; results differ by
rounding.

`rearrange` knows a part of the operators that a bundle may have. A graph with others
runs as it is, and so does each graph where the processor has no such layout.
"""

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pidgan.bundle.card import SIMULATED
from pidgan.bundle.onnx_bytes import Node
from pidgan.bundle.onnx_check import Skeleton
from pidgan.bundle.onnx_operators import reduced_axes, slices
from pidgan.bundle.onnx_values import Call
from pidgan.bundle.onnx_writing import (
    constant_bytes,
    model_bytes,
    node_bytes,
    port_bytes,
)

LARGE = 512
"""Least size of a matrix whose rows are worth the way into blocks and back."""

MOST_KERNELS = 2**22
"""Largest size of all matrices in blocks, which are filled up with zeros."""

BLOCKED = "com.microsoft.nchwc"
"""Operator set of onnxruntime with the layout in blocks."""

_NAMES = """
    Abs Add And Asin Cast Clip Cos Div Equal Erf Exp Floor Greater GreaterOrEqual Less
    LessOrEqual Log Max Min Mul Neg Or Relu Sigmoid Sin Softplus Sqrt Sub Tanh Where
"""
_PLAIN = frozenset(_NAMES.split())
"""Operators number by number."""

_ACTIVATIONS = frozenset(("Relu", "Sigmoid", "Tanh", "Softplus"))
"""Operators number by number that keep the layout in blocks."""

Arrays = Mapping[str, npt.NDArray[Any]]
Make = Callable[[Arrays], npt.NDArray[Any]]
"""Function of the constants of a file that returns an input of the new graph."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Rearranged:
    """A new graph, and what it gets: conditions, noise, and constants of a bundle.

    Attributes:
        data: The bytes of the graph, equal for bundles that differ in real numbers.
        makes: By input, how it is made from the constants of a bundle.
    """

    data: bytes
    makes: Mapping[str, Make]

    def inputs(self, constants: Arrays) -> dict[str, npt.NDArray[np.float32]]:
        """Return the inputs that the constants of a bundle are."""
        return {k: np.ascontiguousarray(v(constants)) for k, v in self.makes.items()}


class _UnknownError(Exception):
    """The graph has something that cannot be rearranged."""


def rearrange(skeleton: Skeleton, rows: int, block: int) -> Rearranged | None:
    """Return a graph for a fixed number of rows, in blocks of so many channels.

    Its inputs and its output are those of the file, inputs with rows last. None stands
    for a graph with operators that are not known here. The graph has no
    real numbers: they are inputs.
    """
    work = _Work(skeleton, rows, block)
    try:
        return work.rearranged()
    except _UnknownError:
        return None


class _Work:
    """The new graph as far as it is, and where it holds each value of the old one."""

    def __init__(self, skeleton: Skeleton, rows: int, block: int) -> None:
        self.old, self.values = skeleton.nodes, skeleton.values
        self.rows, self.block, self.kernels = rows, block, 0
        self.nodes: list[Node] = []
        self.makes: dict[str, Make] = {}
        self.inputs: dict[str, bytes] = {}
        self.literals: dict[str, bytes] = {}
        self.flat: dict[str, str] = {}  # as (k, n)
        self.blocked: dict[str, str] = {}  # as (1, k, 1, n) in blocks
        self.done: set[str] = set()  # values that are part of a layer before
        self.joined: dict[str, tuple[str, ...]] = {}  # parts of values from Concat
        self.pieces: dict[str, dict[int, tuple[int, str]]] = {}
        self.users: dict[str, list[Node]] = {}
        for node in self.old:
            for name in node.inputs:
                self.users.setdefault(name, []).append(node)

    def rearranged(self) -> Rearranged:
        names = ("conditions", SIMULATED, "noise")
        inputs = {name: name for name in names if name in self.values}
        self.flat.update(inputs)
        for node in self.old:
            if node.outputs[0] not in self.done:
                self._add(node)
        targets = self._rows_of("targets")
        self._emit("Transpose", targets, outputs=("targets",), perm=[1, 0])
        sizes = {name: (self._width(name), self.rows) for name in inputs}
        given = [port_bytes(11, name, "float32", size) for name, size in sizes.items()]
        made = port_bytes(12, "targets", "float32", (self.rows, self._width("targets")))
        parts = [*map(node_bytes, self.nodes), *self.literals.values(), *given]
        parts += [*self.inputs.values(), made]
        return Rearranged(
            data=model_bytes(parts, {"": 17, BLOCKED: 1}), makes=self.makes
        )

    def _add(self, node: Node) -> None:
        """Append an operator of the old graph."""
        call, name = Call(node, self.values), node.operator
        for value in (*call.inputs, self.values[node.outputs[0]]):
            if value and value.per_row and (value.rows_last or len(value.shape) != 1):
                raise _UnknownError
        if name in _ACTIVATIONS and node.inputs[0] in self.blocked:
            self.blocked[node.outputs[0]] = self._emit(
                name, self.blocked[node.inputs[0]]
            )
        elif name in ("Gemm", "MatMul"):
            self._layer(node, call)
        elif name in _PLAIN:
            inputs = [each and self._operand(each, node) for each in node.inputs]
            self.flat[node.outputs[0]] = self._emit(name, *inputs, **node.attributes)
        elif name in _JOINING:
            self.joined[node.outputs[0]] = _JOINING[name](self, node, call)
        elif name in _SPECIAL:
            self.flat[node.outputs[0]] = _SPECIAL[name](self, node, call)
        else:
            raise _UnknownError

    def _operand(self, name: str, node: Node) -> str:
        """Return an operand of an operator number by number."""
        value = self.values[name]
        if value.per_row:
            return self._rows_of(name)
        if not value.shape or node.operator == "Clip":
            return self._constant(name, name, value.shape, lambda c: c[name])
        return self._column(name)

    def _layer(self, node: Node, call: Call) -> None:
        """Append a product with a constant matrix, with bias, sum and activation."""
        x, weights = node.inputs[:2]
        bias = node.inputs[2] if len(node.inputs) > 2 else ""
        matrix = self.values[weights]
        if matrix.constant is None or len(matrix.shape) != 2:
            raise _UnknownError
        if bias and self.values[bias].size != matrix.shape[1]:
            raise _UnknownError
        is_large = (x in self.blocked and x not in self.flat) or self._is_large(node)
        if matrix.dtype == "float32" and is_large:
            self._convolution(node.outputs[0], x, weights, bias)
            return
        turned = self._constant(
            f"{weights} turned", weights, matrix.shape[::-1], lambda c: c[weights].T
        )
        found = self._emit("MatMul", turned, self._rows_of(x))
        if bias:
            found = self._emit("Add", found, self._column(bias))
        self.flat[node.outputs[0]] = found

    def _column(self, name: str) -> str:
        """Return a constant as (k, 1)."""
        return self._constant(
            f"{name} column",
            name,
            (self.values[name].size, 1),
            lambda c: c[name].reshape(-1, 1),
        )

    def _is_large(self, node: Node) -> bool:
        """Return whether a product is large, or the first one before a large one."""
        if self.values[node.inputs[1]].size >= LARGE:
            return True
        users = self.users.get(node.outputs[0], [])
        for user in users:
            if user.operator in _ACTIVATIONS:
                users = self.users.get(user.outputs[0], [])
                break
        return any(
            user.operator in ("Gemm", "MatMul")
            and self.values[user.inputs[1]].size >= LARGE
            for user in users
        )

    def _convolution(self, output: str, x: str, weights: str, bias: str) -> None:
        block, (k, m) = self.block, self.values[weights].shape
        k, m = (-(-size // block) * block for size in (k, m))
        self.kernels += k * m
        if self.kernels > MOST_KERNELS:
            raise _UnknownError

        def kernel(constants: Arrays) -> npt.NDArray[Any]:
            padded = np.zeros((k, m), np.float32)
            given = constants[weights]
            padded[: given.shape[0], : given.shape[1]] = given
            parts = padded.reshape(k // block, block, m // block, block)
            return parts.transpose(2, 0, 1, 3).reshape(m, k, 1, 1)

        def shift(constants: Arrays) -> npt.NDArray[Any]:
            padded = np.zeros(m, np.float32)
            padded[: constants[bias].size] = constants[bias].ravel()
            return padded

        size = (m, k, 1, 1)
        inputs = [self._blocks_of(x)]
        inputs.append(self._constant(f"{weights} kernel", weights, size, kernel))
        inputs.append(
            self._constant(f"{bias} shift", bias, (m,), shift) if bias else ""
        )
        attributes: dict[str, Any] = {"kernel_shape": [1, 1]}
        output, added = self._sum_after(output)
        if added:
            inputs.append(self.blocked[added])
            self.done.add(output)
        user = self._only_user(output)
        if user is not None and user.operator == "Relu":
            attributes["activation"] = "Relu"
            output = user.outputs[0]
            self.done.add(output)
        while not inputs[-1]:
            inputs.pop()
        self.blocked[output] = self._emit("Conv", *inputs, domain=BLOCKED, **attributes)

    def _sum_after(self, name: str) -> tuple[str, str]:
        """Return the sum that follows, and what is added: "" if none is there."""
        user = self._only_user(name)
        if user is None or user.operator != "Add":
            return name, ""
        others = [other for other in user.inputs if other != name]
        if len(others) != 1 or others[0] not in self.blocked:
            return name, ""
        if self.values[others[0]].shape != self.values[name].shape:
            return name, ""
        return user.outputs[0], others[0]

    def _only_user(self, name: str) -> Node | None:
        users = self.users.get(name, [])
        return users[0] if len(users) == 1 and name != "targets" else None

    def _width(self, name: str) -> int:
        return self.values[name].shape[0]

    def _rows_of(self, name: str) -> str:
        """Return a value as (k, n)."""
        if name not in self.flat and name in self.joined:
            parts = self.joined[name]
            joined = self._emit("Concat", *parts, axis=0) if parts[1:] else parts[0]
            self.flat[name] = joined
        elif name not in self.flat:
            width = self._width(name)
            found = self._emit(
                "ReorderOutput", self.blocked[name], domain=BLOCKED, channels=width
            )
            self.flat[name] = self._reshape(found, (width, self.rows))
        return self.flat[name]

    def _parts_of(self, name: str) -> tuple[str, ...]:
        """Return the parts of a value as (k, n), one after the other."""
        if name in self.flat or name not in self.joined:
            return (self._rows_of(name),)
        return self.joined[name]

    def split(self, name: str) -> dict[int, tuple[int, str]]:
        """Return the pieces of a value of which its slices are made, by their start.

        Each has its end and its name.
        """
        if name not in self.pieces:
            ends = {0, self._width(name)}
            for node in self.users[name]:
                if node.operator == "Slice":
                    (taken,) = slices(Call(node, self.values))
                    ends |= {taken.start, taken.stop} if taken.step == 1 else set()
            edges = sorted(ends)
            sizes = self._literal(np.diff(edges))
            pairs = list(itertools.pairwise(edges))
            names = tuple(f"piece {name} {a} to {b}" for a, b in pairs)
            self._emit("Split", self._rows_of(name), sizes, outputs=names, axis=0)
            found = zip(pairs, names, strict=True)
            self.pieces[name] = {a: (b, piece) for (a, b), piece in found}
        return self.pieces[name]

    def _blocks_of(self, name: str) -> str:
        """Return a value as (1, k, 1, n) in blocks of channels."""
        if name not in self.blocked:
            # The order is changed by fours.
            width = self._width(name)
            rest = -width % 4
            parts = self._parts_of(name)
            if rest:
                parts = (*parts, self._literal(np.zeros((rest, self.rows), np.float32)))
            found = self._emit("Concat", *parts, axis=0) if parts[1:] else parts[0]
            found = self._reshape(found, (1, width + rest, 1, self.rows))
            self.blocked[name] = self._emit("ReorderInput", found, domain=BLOCKED)
        return self.blocked[name]

    def _reshape(self, name: str, shape: Sequence[int]) -> str:
        return self._emit("Reshape", name, self._literal(np.array(shape, np.int64)))

    def _literal(self, array: npt.NDArray[Any]) -> str:
        """Return the name of a constant that is the same in all bundles."""
        digest = hashlib.sha256(array.tobytes()).hexdigest()
        key = f"literal {array.dtype} {array.shape} {digest}"
        self.literals.setdefault(key, constant_bytes(key, array))
        return key

    def _constant(self, key: str, name: str, shape: tuple[int, ...], make: Make) -> str:
        """Return the name of what is made of a constant of a bundle."""
        key, value = f"constant {key}", self.values[name]
        if value.dtype in ("float32", "float64"):
            self.makes[key] = make
            self.inputs[key] = port_bytes(11, key, value.dtype, shape)
        elif key not in self.literals:
            # Other numbers are the same in all bundles of the kind.
            assert value.constant is not None
            self.literals[key] = constant_bytes(key, make({name: value.constant}))
        return key

    def _emit(
        self,
        operator: str,
        *inputs: str,
        outputs: tuple[str, ...] = (),
        domain: str = "",
        **attributes: Any,
    ) -> str:
        outputs = outputs or (f"result {len(self.nodes)}",)
        node = Node(
            operator=operator,
            domain=domain,
            inputs=inputs,
            outputs=outputs,
            attributes=attributes,
        )
        self.nodes.append(node)
        return outputs[0]


def _concat(work: _Work, node: Node, call: Call) -> tuple[str, ...]:
    return tuple(part for name in node.inputs for part in work._parts_of(name))


def _slice(work: _Work, node: Node, call: Call) -> tuple[str, ...]:
    (taken,) = slices(call)
    source = node.inputs[0]
    if taken.step != 1:
        places = work._literal(np.array(taken, np.int64))
        return (work._emit("Gather", work._rows_of(source), places, axis=0),)
    if taken == range(work._width(source)):
        return work._parts_of(source)
    found, at, pieces = [], taken.start, work.split(source)
    while at < taken.stop:
        at, piece = pieces[at]
        found.append(piece)
    return tuple(found)


def _gather(work: _Work, node: Node, call: Call) -> str:
    data, index = node.inputs
    if call.value(0).per_row:
        fixed = call.integers(1)
        if fixed is None or len(call.value(1).shape) != 1:
            raise _UnknownError
        places = work._literal(np.array(fixed, np.int64))
        return work._emit("Gather", work._rows_of(data), places, axis=0)
    if len(call.value(0).shape) != 1:
        raise _UnknownError
    # The general operator copies each number as a block of memory.
    width = work._width(index)
    size = (1, call.value(0).size)
    table = work._constant(f"{data} row", data, size, lambda c: c[data].reshape(size))
    row = work._reshape(work._rows_of(index), (1, width * work.rows))
    found = work._emit("GatherElements", table, row, axis=1)
    return work._reshape(found, (width, work.rows))


def _gather_elements(work: _Work, node: Node, call: Call) -> str:
    both = map(work._rows_of, node.inputs)
    return work._emit("GatherElements", *both, axis=0)


def _softmax(work: _Work, node: Node, call: Call) -> str:
    x = work._rows_of(node.inputs[0])
    largest = work._emit("ReduceMax", x, axes=[0], keepdims=1)
    powers = work._emit("Exp", work._emit("Sub", x, largest))
    user = work._only_user(node.outputs[0])
    if user is not None and user.operator == "CumSum" and not user.attributes:
        # The last sum is the total.
        sums = work._emit("CumSum", powers, work._literal(np.array(0)))
        last = work._literal(np.array([call.value(0).shape[0] - 1]))
        total = work._emit("Gather", sums, last, axis=0)
        work.flat[user.outputs[0]] = work._emit("Div", sums, total)
        work.done.add(user.outputs[0])
        return powers
    total = work._emit("ReduceSum", powers, work._literal(np.array([0])), keepdims=1)
    return work._emit("Div", powers, total)


def _cumsum(work: _Work, node: Node, call: Call) -> str:
    axis = work._literal(np.array(0))
    return work._emit("CumSum", work._rows_of(node.inputs[0]), axis, **node.attributes)


def _reduce(work: _Work, node: Node, call: Call) -> str:
    if not call.integer("keepdims", 1) or reduced_axes(call) != [0]:
        raise _UnknownError
    x = work._rows_of(node.inputs[0])
    if node.operator == "ReduceMax":
        return work._emit("ReduceMax", x, axes=[0], keepdims=1)
    return work._emit("ReduceSum", x, work._literal(np.array([0])), keepdims=1)


_SPECIAL = {
    "Identity": lambda work, node, _: work._rows_of(node.inputs[0]),
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "Softmax": _softmax,
    "CumSum": _cumsum,
    "ReduceMax": _reduce,
    "ReduceSum": _reduce,
}
"""Operators that do not work number by number."""

_JOINING = {"Concat": _concat, "Slice": _slice}
"""Operators whose result is made of parts, which are copied only if needed."""
