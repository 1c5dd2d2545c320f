"""What a generator costs: the operations of its exported graph, for one row.

A clock depends on the machine and on what else runs there. The number of operations
does not: it compares settings of one family. A product of matrices counts two for each
multiplication with its addition, every other operator one for each number it returns.
"""

import math
from typing import Any

import onnx
from onnx import shape_inference

from pidgan.training.export import Exported, build_graph

# Operators that move numbers, and do not compute.
_FREE = (
    *("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Concat", "Slice"),
    *("Constant", "Shape", "Split", "Expand", "Cast"),
)


def operations(model: Exported) -> int:
    """Return the number of operations with which a bundle of a model makes one row."""
    graph = build_graph(model)
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    inferred = shape_inference.infer_shapes(graph, data_prop=True).graph
    known = (*inferred.input, *inferred.value_info, *inferred.output)
    shapes = {value.name: _shape(value) for value in known}
    shapes |= {one.name: tuple(one.dims) for one in inferred.initializer}
    return sum(_cost(node, shapes) for node in inferred.node)


def _cost(node: Any, shapes: dict[str, tuple[int, ...]]) -> int:
    if node.op_type in _FREE:
        return 0
    made = sum(math.prod(shapes.get(name, (1,))) for name in node.output)
    if node.op_type in ("MatMul", "Gemm"):
        return 2 * made * int(shapes.get(node.input[0], (1,))[-1])
    if node.op_type == "Conv":
        return 2 * made * math.prod(shapes.get(node.input[1], (1,))[1:])
    return made


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """Return a shape in which sizes that are not known are those of one row."""
    return tuple(d.dim_value or 1 for d in value.type.tensor_type.shape.dim)
