"""Regions of a graph that are needed for some entries only, such as cells with energy.

A `Where(mask, x, constant)` of k entries says for which of them x is needed. The
operators that lead to x and to nothing else, and that make each entry from the same
entry of what is before them, are its *region*. A C function computes a region for
`LANES` entries of the mask at a time: what is empty costs nothing, and compilers make
vectors of entries as they do of rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pidgan.bundle.onnx_bytes import Node
from pidgan.bundle.onnx_operators import reduced_axes
from pidgan.bundle.onnx_values import Call, Value

LANES = 8
"""Number of entries at a time."""

_NUMBER_BY_NUMBER = frozenset(
    (
        *("Abs", "Add", "And", "Asin", "Cast", "Cos", "Div", "Equal", "Erf", "Exp"),
        *("Floor", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Log", "Max"),
        *("Min", "Mul", "Neg", "Or", "Relu", "Sigmoid", "Sin", "Softplus", "Sqrt"),
        *("Sub", "Tanh", "Where"),
    )
)
_PRODUCTS = frozenset(("MatMul",))


@dataclass(frozen=True, kw_only=True)
class Region:
    """Operators before a Where, by number, that one of its branches alone needs.

    Attributes:
        end: Number of the Where.
        numbers: Numbers of the operators, in the order of computation.
        size: Number of entries k.
        mask: Name of the mask (k,).
        names: Names of the values that have `LANES` entries only.
        read: Names of the values that come from outside, with the mask.
    """

    end: int
    numbers: tuple[int, ...]
    size: int
    mask: str
    names: frozenset[str]
    read: frozenset[str]


def find_regions(
    nodes: Sequence[Node], values: Mapping[str, Value]
) -> dict[int, Region]:
    """Return the regions of a graph, by the number of the Where at their end."""
    users: dict[str, list[int]] = {"targets": [len(nodes)]}
    for number, node in enumerate(nodes):
        for name in node.inputs:
            users.setdefault(name, []).append(number)
    found: dict[int, Region] = {}
    taken: set[int] = set()
    for number, node in enumerate(nodes):
        region = None
        if node.operator == "Where":
            region = _region(number, nodes, values, users)
        if region is not None and not taken & set(region.numbers):
            found[number] = region
            taken |= {number, *region.numbers}
    return found


def in_order(nodes: Sequence[Node], regions: Mapping[int, Region]) -> list[int]:
    """Return the numbers of all operators, each region just before its end."""
    later = {number for region in regions.values() for number in region.numbers}
    order: list[int] = []
    for number in range(len(nodes)):
        if number in regions:
            order += regions[number].numbers
        if number not in later:
            order.append(number)
    return order


def _region(
    end: int,
    nodes: Sequence[Node],
    values: Mapping[str, Value],
    users: Mapping[str, list[int]],
) -> Region | None:
    """Return the region of a Where; None if it has none that is worth a loop."""
    mask, wanted, other = nodes[end].inputs
    whole = values[nodes[end].outputs[0]]
    size = whole.shape[0] if len(whole.shape) == 1 else 0
    if (
        size < LANES
        or values[other].constant is None
        or values[other].size != 1
        or values[mask].shape != whole.shape
        or values[wanted].shape != whole.shape
        or nodes[end].outputs[0] == "targets"
    ):
        return None
    inside: set[int] = set()
    for number in range(end - 1, -1, -1):
        (name,) = nodes[number].outputs
        if (
            name != mask
            and name in users
            and all(
                user == end or (user in inside and _by_entry(nodes[user], values, size))
                for user in users[name]
            )
            and _fits(nodes[number], values, size)
        ):
            inside.add(number)
    inside = _closed(inside, nodes, values, size)
    if not any(nodes[number].operator in _PRODUCTS for number in inside):
        return None
    names = frozenset(nodes[number].outputs[0] for number in inside)
    read = {n for number in (*inside, end) for n in nodes[number].inputs if n}
    return Region(
        end=end,
        numbers=tuple(sorted(inside)),
        size=size,
        mask=mask,
        names=names,
        read=frozenset(read - names),
    )


def _closed(
    inside: set[int], nodes: Sequence[Node], values: Mapping[str, Value], size: int
) -> set[int]:
    """Return the operators without products of what comes from outside.

    Those read whole columns. What leads to nothing else is left out with them.
    """
    names = {nodes[number].outputs[0] for number in inside}
    outside = {
        number
        for number in inside
        if nodes[number].operator in _PRODUCTS and nodes[number].inputs[1] not in names
    }
    while outside:
        inside = inside - outside
        needed = {name for number in outside for name in nodes[number].inputs}
        outside = {n for n in inside if nodes[n].outputs[0] in needed}
    return inside


def _fits(node: Node, values: Mapping[str, Value], size: int) -> bool:
    """Whether an operator can be computed for some entries alone."""
    if node.operator == "Gather":
        call = Call(node, values)
        shape = values[node.outputs[0]].shape
        return bool(shape) and shape[0] == size and call.value(0).per_row
    return _by_entry(node, values, size)


def _by_entry(node: Node, values: Mapping[str, Value], size: int) -> bool:
    """Whether an entry of the result needs the same entry of all inputs alone."""
    call, output = Call(node, values), values[node.outputs[0]]
    shapes = [v.shape for v in call.inputs if v is not None and v.per_row]
    if not output.shape or output.shape[0] != size:
        return False
    if node.operator in _NUMBER_BY_NUMBER:
        return all(len(s) == len(output.shape) for s in shapes)
    if any(not shape or shape[0] != size for shape in shapes):
        return False
    if node.operator in ("Identity", "Reshape"):
        return True
    if node.operator == "Concat":
        return call.axis(0, call.value(0)) > 0
    if node.operator == "Gather":
        data, index = call.value(0), call.value(1)
        places = call.axes([call.integer("axis", 0)], data)
        return data.per_row and not index.per_row and places[0] > 0
    if node.operator in ("ReduceMax", "ReduceSum"):
        return 0 not in reduced_axes(call)
    return node.operator in _PRODUCTS and _is_product_of_rows(call)


def _is_product_of_rows(call: Call) -> bool:
    """Whether a constant matrix multiplies the second axis of (k, i)."""
    return call.value(0).constant is not None and len(call.value(1).shape) == 2
