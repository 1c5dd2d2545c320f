"""What a graph may hold is a closed list; everything else is refused unseen."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper
from onnx.numpy_helper import from_array
from toy_generator import make_card, toy_onnx

from pidgan.bundle import onnx_check
from pidgan.bundle.c_operators import TRANSLATIONS
from pidgan.bundle.onnx_bytes import MAX_FIELDS, read_onnx_structure
from pidgan.bundle.onnx_check import MAX_NODES, check_graph
from pidgan.bundle.onnx_operators import OPERATORS

WIDTH = 4
node = helper.make_node


def model(
    nodes: Sequence[NodeProto],
    constants: dict[str, Any] | None = None,
    *,
    opset: int = 17,
    rows: Any = "n",
    width: Any = WIDTH,
) -> ModelProto:
    """A model from x (n, width) to y (n, width)."""
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, width])
        for name in "xy"
    ]
    arrays = [from_array(np.asarray(v), k) for k, v in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "graph", ports[:1], ports[1:], arrays)
    ids = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=ids, ir_version=8)


def turned(*nodes: NodeProto) -> ModelProto:
    """From t, which is x with the rows on the last axis, through nodes to u."""
    ends = [
        node("Transpose", [a], [b], perm=[1, 0]) for a, b in (("x", "t"), ("u", "y"))
    ]
    constants = {
        "i": np.array([0]),
        "rows": np.array([2, -1]),
        "square": np.ones((WIDTH, WIDTH), np.float32),
        "column": np.ones((WIDTH, 1), np.float32),
        "row": np.ones((1, 3), np.float32),
    }
    return model([ends[0], *nodes, ends[1]], constants)


def check(made: ModelProto) -> None:
    check_graph(read_onnx_structure(made.SerializeToString()))


def test_a_graph_that_is_fine() -> None:
    nodes = [node("Relu", ["x"], ["v"]), node("Add", ["v", "one"], ["y"])]
    check(model(nodes, {"one": np.ones(WIDTH, np.float32)}))


def test_rows_may_be_on_the_last_axis() -> None:
    """Then constants have their axis, of length 1, and matrices come first."""
    nodes = [
        node("Add", ["t", "column"], ["a"]),
        node("MatMul", ["square", "a"], ["b"]),
        node("Concat", ["b", "t"], ["c"], axis=0),
        node("Gather", ["c", "i"], ["d"], axis=0),
        node("Mul", ["b", "d"], ["u"]),
    ]
    check(turned(*nodes))


def test_every_operator_has_a_translation_to_c() -> None:
    assert set(TRANSLATIONS) == set(OPERATORS) - {"Conv"}
    for name in OPERATORS:
        assert onnx.defs.has(name), name


def test_structure_of_an_onnx_file() -> None:
    found = read_onnx_structure(toy_onnx(make_card()))
    assert [n.operator for n in found.nodes] == ["Gemm", "MatMul", "Add"]
    assert not found.refused
    assert found.opsets == {"": 17}
    assert list(found.metadata) == ["pidgan_card", "pidgan_sha256"]
    assert [port.shape for port in found.inputs] == [("n", 2), ("n", 3)]
    np.testing.assert_array_equal(
        found.constants["slope"], np.float32([[-5e-5, 2e-5], [0.3, 0]])
    )


@pytest.mark.parametrize(
    ("dtype", "kind"), [("f4", "float32"), ("i8", "int64"), ("?", "bool")]
)
def test_constants_are_read_from_either_field(dtype: str, kind: str) -> None:
    array = np.array([[0, 1], [1, 0]], dtype)
    code = helper.np_dtype_to_tensor_dtype(array.dtype)
    made = model([node("Relu", ["x"], ["y"])], {"raw": array})
    made.graph.initializer.append(
        helper.make_tensor("listed", code, array.shape, array.ravel().tolist())
    )
    found = read_onnx_structure(made.SerializeToString()).constants
    for name in ("raw", "listed"):
        assert str(found[name].dtype) == kind
        np.testing.assert_array_equal(found[name], array)


ONE = {"one": np.ones(WIDTH, np.float32)}
RELU = [node("Relu", ["x"], ["y"])]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            model([node("Relo", ["x"], ["y"])]),
            r"0 \(Relo\) is unknown; closest: 'Relu'",
        ),
        (model([node("RandomNormalLike", ["x"], ["y"])]), "is unknown"),
        (model([node("LeakyRelu", ["x"], ["y"])]), "is unknown"),
        (model([node("ConstantOfShape", ["x"], ["y"])]), "is unknown"),
        (model([node("Relu", ["x"], ["y"], domain="evil")]), "operators of evil"),
        (model(RELU, opset=9), "uses operator set 9, expected 13 to 17"),
        (
            model([node("Relu", ["z"], ["v"]), node("Relu", ["v"], ["z"]), *RELU]),
            r"0 \(Relu\) needs 'z', but only a later one gives it: a cycle",
        ),
        (model([node("Relu", ["z"], ["y"])]), "needs 'z', but nothing gives it"),
        (model([*RELU, *RELU]), "gives 'y', which is empty or already there"),
        (model([node("Relu", ["x"], ["v"])]), "output 'y' is given by no operator"),
        (model([node("Relu", ["x"], ["y"], alpha=1.0)]), "unknown attribute 'alpha'"),
        (model([node("Relu", ["x", "x"], ["y"])]), "has 2 inputs, expected at most 1"),
        (model([node("Relu", ["x"], ["y", "z"])]), "has 2 outputs, expected 1"),
        (model([node("Add", ["x"], ["y"])]), "input 1 is missing"),
        (
            model([node("Add", ["x", "one"], ["y"])], {"one": np.ones(3, np.float32)}),
            r"shapes \('n', 4\), \(3,\) do not fit",
        ),
        (
            model([node("Add", ["x", "one"], ["y"])], {"one": np.ones(4, np.int64)}),
            "input 1 is int64, expected float32",
        ),
        (
            model([node("Add", ["x", "t"], ["y"])], {"t": np.ones((2, 1), np.float32)}),
            "do not fit",
        ),
        (model([node("Softmax", ["x"], ["y"], axis=0)]), "it mixes rows"),
        (model([node("Concat", ["x", "x"], ["y"], axis=0)]), "it mixes rows"),
        (
            model([node("Transpose", ["x"], ["y"], perm=[1, 0])]),
            r"y is float32 \('n', 4\), but the operators give float32 \(4, 'n'\)",
        ),
        (turned(node("Softmax", ["t"], ["u"], axis=1)), "it mixes rows"),
        (turned(node("Concat", ["t", "t"], ["u"], axis=1)), "it mixes rows"),
        (turned(node("Concat", ["t", "x"], ["u"], axis=0)), "it mixes rows"),
        (turned(node("Gather", ["t", "i"], ["u"], axis=1)), "it mixes rows"),
        (turned(node("Add", ["t", "x"], ["u"])), "do not fit"),
        (turned(node("Add", ["t", "square"], ["u"])), "do not fit"),
        (turned(node("MatMul", ["t", "square"], ["u"])), "no product of rows with a"),
        (turned(node("MatMul", ["row", "t"], ["u"])), "do not fit"),
        (turned(node("Reshape", ["t", "rows"], ["u"])), r"cannot become \[2, -1\]"),
        (turned(node("ReduceSum", ["t", "i"], ["u"])), "it mixes rows"),
        (turned(node("ReduceMax", ["t"], ["u"], axes=[1])), "it mixes rows"),
        (model([node("Transpose", ["x"], ["y"])]), "expected an order of 2 axes"),
        (
            model([node("Conv", ["x", "x"], ["y"])]),
            "no convolution of rows with a constant kernel",
        ),
        (
            model(
                [node("Reshape", ["x", "i"], ["v"]), node("Conv", ["v", "w"], ["y"])],
                {"i": np.array([0, 1, 4]), "w": np.ones((1, 1, 9), np.float32)},
            ),
            r"shapes \(1, 4\) and \(1, 1, 9\) do not fit",
        ),
        (model([node("Softmax", ["x"], ["y"], axis=2)]), "axis 2 of a value with 2"),
        (
            model([node("Softmax", ["x"], ["y"], axis=1.0)]),
            "attribute axis is 1.0, expected an integer",
        ),
        (
            model([node("Gather", ["x", "i"], ["y"], axis=1)], {"i": np.array([4])}),
            "an index lies beyond 4 numbers",
        ),
        (
            model([node("Div", ["i", "i"], ["v"]), *RELU], {"i": np.array([0])}),
            "uses constants only",
        ),
        (
            model([node("Concat", ["x", "x"], ["y"], axis=1)]),
            r"y is float32 \('n', 4\), but the operators give float32 \('n', 8\)",
        ),
        (model(RELU, rows=5), r"x has shape \(5, 4\), expected the rows open"),
        (model(RELU, width="m"), "expected the rows open and the rest fixed"),
        (model(RELU, width=2**40), "needs 1099511627776 numbers for x a row"),
        (
            model([node("Relu", ["x"], [f"v{i}"]) for i in range(MAX_NODES + 1)]),
            "10001",
        ),
    ],
)
def test_graphs_that_are_refused(made: ModelProto, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(made)


def test_a_graph_that_grows_is_refused() -> None:
    names = ["x", *(f"v{i}" for i in range(100))]
    nodes = [node("Concat", [a, a], [b], axis=1) for a, b in itertools.pairwise(names)]
    with pytest.raises(
        ValueError, match="operations a row, expected at most 1073741824"
    ):
        check(model([*nodes, node("Slice", ["v99", "i", "i", "i"], ["y"])], {"i": [1]}))


def test_operations_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [node("MatMul", ["x", "w"], ["v"]), node("MatMul", ["v", "w"], ["y"])]
    made = model(nodes, {"w": np.ones((WIDTH, WIDTH), np.float32)})
    # 16 multiplications in each product; 4 numbers read and 2 x 4 moved by each.
    cost = 2 * (16 + 16 * 12)
    monkeypatch.setattr("pidgan.bundle.onnx_check.MAX_ROW_OPERATIONS", cost)
    check(made)
    monkeypatch.setattr("pidgan.bundle.onnx_check.MAX_ROW_OPERATIONS", cost - 1)
    onnx_check._check_once.cache_clear()
    with pytest.raises(ValueError, match=f"needs {cost} operations a row, expected at"):
        check(made)


@pytest.mark.parametrize(
    "nodes",
    [
        # Each is within the bounds of nodes, numbers and products.
        [node("ReduceMax", ["v"], [f"r{i}"], axes=[1]) for i in range(9000)],
        [node("Max", ["v"] * 999, ["r"])],
    ],
)
def test_work_that_takes_minutes_is_refused(nodes: list[NodeProto]) -> None:
    wide = np.ones((WIDTH, 2**20), np.float32)
    made = model([node("MatMul", ["x", "w"], ["v"]), *nodes, *RELU], {"w": wide})
    with pytest.raises(ValueError, match="operations a row, expected at most"):
        check(made)


def test_copies_of_a_constant_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [node("MatMul", ["x", "w"], ["v"]), node("MatMul", ["v", "w"], ["y"])]
    made = model(nodes, {"w": np.ones((WIDTH, WIDTH), np.float32)})
    monkeypatch.setattr("pidgan.bundle.onnx_check.MAX_CONSTANTS", 32)
    check(made)
    monkeypatch.setattr("pidgan.bundle.onnx_check.MAX_CONSTANTS", 31)
    onnx_check._check_once.cache_clear()
    with pytest.raises(ValueError, match="constants of more than 31 numbers"):
        check(made)


def _picked(*, index: int, factor: float = 1.0, axis: float = 1) -> ModelProto:
    nodes = [node("Gather", ["x", "i"], ["v"], axis=axis)]
    nodes += [node("Mul", ["v", "factor"], ["y"])]
    numbers = np.full(WIDTH, factor, np.float32)
    return model(nodes, {"i": np.full(WIDTH, index), "factor": numbers})


def _trained(made: ModelProto) -> ModelProto:
    made.training_info.add()
    return made


def test_graphs_that_differ_in_real_numbers_are_checked_once() -> None:
    found = []
    onnx_check._check_once.cache_clear()
    for factor in (1.0, 2.0):
        data = _picked(index=3, factor=factor).SerializeToString()
        values, *_ = check_graph(read_onnx_structure(data))
        found.append(values)
    assert onnx_check._check_once.cache_info().misses == 1
    one, other = (values["factor"].constant for values in found)
    assert (one == 1).all()
    assert (other == 2).all()
    assert {k: v.shape for k, v in found[0].items()} == {
        k: v.shape for k, v in found[1].items()
    }


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (_picked(index=WIDTH), "an index lies beyond 4 numbers"),
        (_picked(index=3, axis=1.0), r"attribute axis is 1\.0, expected an integer"),
        (_picked(index=3, axis=0), "it mixes rows"),
        (_trained(_picked(index=3)), "has training information, expected operators"),
    ],
)
def test_other_graphs_are_not_taken_for_one_that_passed(
    made: ModelProto, message: str
) -> None:
    check(_picked(index=3))
    with pytest.raises(ValueError, match=message):
        check(made)


def test_integers_are_never_divided() -> None:
    nodes = [node("Cast", ["x"], ["i"], to=7), node("Div", ["i", "i"], ["v"]), *RELU]
    with pytest.raises(ValueError, match=r"1 \(Div\): input 0 is int64"):
        check(model(nodes))


def _inner() -> onnx.GraphProto:
    """A graph inside an operator, with data in another file and a custom operator."""
    tensor = TensorProto(data_location=TensorProto.EXTERNAL, dims=[1], data_type=1)
    constant = node("Constant", [], ["c"])
    constant.attribute.append(helper.make_attribute("value", tensor))
    inner = node("Mystery", ["c"], ["d"], domain="other")
    return helper.make_graph([constant, inner], "then", [], [])


def _with_function() -> ModelProto:
    made = model(RELU)
    made.functions.append(helper.make_function("own", "F", ["a"], ["b"], [], []))
    return made


def _with_sparse() -> ModelProto:
    made = model(RELU)
    values = from_array(np.ones(1, np.float32), "s")
    indices = from_array(np.zeros(1, np.int64), "i")
    made.graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, indices, [WIDTH])
    )
    return made


def _with_training() -> ModelProto:
    made = model(RELU)
    made.training_info.add().algorithm.CopyFrom(made.graph)
    return made


def _with_external() -> ModelProto:
    made = model(RELU, ONE)
    made.graph.initializer[0].external_data.add(key="location", value="/etc/hostname")
    return made


def _with_location() -> ModelProto:
    made = model(RELU, ONE)
    made.graph.initializer[0].data_location = TensorProto.EXTERNAL
    return made


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (model([node("If", ["x"], ["y"], then_branch=_inner())]), "graphs inside"),
        (model([node("Loop", ["x"], ["y"], body=_inner())]), "graphs inside"),
        (model([*_inner().node, *RELU]), "constants inside operators"),
        (_with_function(), "has functions, expected operators and constants only"),
        (_with_sparse(), "sparse constants"),
        (_with_training(), "training information"),
        (_with_external(), "data in another file"),
        (_with_location(), "data in another file"),
    ],
)
def test_what_no_bundle_has_is_refused(made: ModelProto, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(made)


def _resized(dims: list[int]) -> bytes:
    made = model(RELU, ONE)
    made.graph.initializer[0].ClearField("dims")
    made.graph.initializer[0].dims.extend(dims)
    return made.SerializeToString()


def _doubled_graph() -> bytes:
    """Readers merge a message that is given twice."""
    data = model(RELU).SerializeToString()
    return data + ModelProto(graph=model(RELU).graph).SerializeToString()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_resized([2**40, 2**40]), "'one' has 4 numbers, expected 1208925819614629174"),
        (_resized([-4]), r"'one' has shape \(-4,\)"),
        (_resized([0]), r"'one' has shape \(0,\)"),
        (_resized([1] * 9), "'one' has shape"),
        (_resized([5]), "'one' has 4 numbers, expected 5"),
        (_doubled_graph(), "graph of model is given twice"),
        (b"\x08\x08" * (MAX_FIELDS + 1), "more than 1000000 fields"),
        (b"\x80" * 20, "a number is too long"),
        (b"\x80" * 5, "ends inside a number"),
        (b"\x00\x00", "field number 0"),
        (b"\x0b", "wire type 3"),
        (b"\x3a\x05\x00", "field 7 ends beyond its message"),
        (b"", "it has no graph"),
        (model(RELU).SerializeToString() + b"\xf8\x07\x01", "unknown field 127"),
    ],
)
def test_damaged_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_onnx_structure(data)
