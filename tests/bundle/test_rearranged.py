"""A graph that is rearranged gives what the file says, wherever a row stands."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx
from onnx import NodeProto, TensorProto, helper
from onnx.numpy_helper import from_array
from toy_generator import make_card

from pidgan.bundle import session
from pidgan.bundle.bundle import Bundle, open_bundle, read_bundle
from pidgan.bundle.bundle_file import CARD_KEY, seal
from pidgan.bundle.session import _Shared, channels_at_once

ROWS = 5000
node = helper.make_node
rng = np.random.default_rng(1)

is_blocked = pytest.mark.skipif(
    channels_at_once() is None, reason="the processor has no blocks of channels"
)


def real(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32) / np.float32(shape[0]) ** 0.5


def start(width: int = 20) -> tuple[list[NodeProto], dict[str, np.ndarray]]:
    """Operators that make a value "x" (n, width) of conditions and noise."""
    nodes = [
        node("Mul", ["conditions", "scale"], ["small"]),
        node("Concat", ["small", "noise"], ["both"], axis=1),
        node("Gemm", ["both", "w0", "b0"], ["x"]),
    ]
    scale = np.array([1e-5, 0.2], np.float32)
    return nodes, {"scale": scale, "w0": real(5, width), "b0": real(width)}


def layer(x: str, y: str, number: int, shape: tuple[int, int]) -> tuple[Any, Any]:
    w, b = f"w{number}", f"b{number}"
    made = [node("Gemm", [x, w, b], [f"{y} raw"]), node("Relu", [f"{y} raw"], [y])]
    return made, {w: real(*shape), b: real(shape[1])}


def integers(**lists: Any) -> dict[str, np.ndarray]:
    return {name: np.array(values, np.int64) for name, values in lists.items()}


def residual() -> tuple[list[NodeProto], dict[str, Any]]:
    """Two blocks with a sum, whose first value is used again."""
    nodes, constants = start(32)
    made, more = layer("x", "h", 1, (32, 40))
    again = [
        node("Gemm", ["h", "back", "b0"], ["change"]),
        node("Add", ["x", "change"], ["sum"]),
        node("Relu", ["sum"], ["active"]),
        node("Gemm", ["active", "other"], ["turned"]),
        node("Add", ["turned", "sum"], ["total"]),
        node("Tanh", ["total"], ["bounded"]),
        node("MatMul", ["bounded", "last"], ["targets"]),
    ]
    more |= {"back": real(40, 32), "other": real(32, 32), "last": real(32, 2)}
    return [*nodes, *made, *again], constants | more


def chosen() -> tuple[list[NodeProto], dict[str, Any]]:
    """A choice by a uniform number, and a value for each choice."""
    nodes, constants = start(7)
    nodes += [
        node("Softmax", ["x"], ["p"], axis=1),
        node("CumSum", ["p", "one"], ["sums"]),
        node("Slice", ["sums", "zeros", "sixes", "ones"], ["edges"]),
        node("Slice", ["noise", "ones", "twos", "ones"], ["z"]),
        node("Erf", ["z"], ["u"]),
        node("Greater", ["u", "edges"], ["above"]),
        node("Cast", ["above"], ["steps"], to=TensorProto.FLOAT),
        node("Gemm", ["steps", "w", "b"], ["kind"]),
        node("MatMul", ["kind", "values"], ["targets"]),
    ]
    constants |= integers(one=1, ones=[1], zeros=[0], sixes=[6], twos=[2])
    w = np.eye(6, 7, 1, dtype=np.float32) - np.eye(6, 7, dtype=np.float32)
    first = np.eye(1, 7, dtype=np.float32)[0]
    return nodes, constants | {"w": w, "b": first, "values": real(7, 2)}


def parts() -> tuple[list[NodeProto], dict[str, Any]]:
    """Slices that overlap, that step, that go back; columns; and a layer of them."""
    nodes, constants = start(9)
    slices = {"a": (0, 4, 1), "b": (2, 7, 1), "c": (0, 9, 2), "d": (-1, -10, -1)}
    slices |= {"e": (0, 9, 1)}
    for name, (begin, end, step) in slices.items():
        constants |= integers(**{f"{name} start": [begin], f"{name} stop": [end]})
        constants |= integers(**{f"{name} step": [step]})
        inputs = ["x", f"{name} start", f"{name} stop", "ones", f"{name} step"]
        nodes.append(node("Slice", inputs, [name]))
    nodes += [
        node("Gather", ["x", "columns"], ["f"], axis=1),
        node("Concat", ["a", "b", "c"], ["abc"], axis=-1),
        node("Concat", ["abc", "d", "e", "f"], ["all"], axis=1),
    ]
    made, more = layer("all", "h", 1, (38, 48))
    constants |= integers(ones=[1], columns=[3, 3, -1, 0, 5, 2])
    end = node("Gemm", ["h", "last", "bias"], ["targets"])
    more |= {"last": real(48, 2), "bias": real(2)}
    return [*nodes, *made, end], constants | more


def tables() -> tuple[list[NodeProto], dict[str, Any]]:
    """Knots of a table, sums, maxima, masks and bounds."""
    nodes, constants = start(2)
    nodes += [
        node("Clip", ["x", "low", "high"], ["inside"]),
        node("Floor", ["inside"], ["below"]),
        node("Cast", ["below"], ["place"], to=TensorProto.INT64),
        node("Add", ["place", "first"], ["index"]),
        node("Gather", ["table", "index"], ["knot"]),
        node("ReduceMax", ["x"], ["largest"], axes=[1], keepdims=1),
        node("ReduceSum", ["x", "ones"], ["sum"], keepdims=1),
        node("Max", ["largest", "sum", "row"], ["most"]),
        node("Where", ["mask", "knot", "most"], ["either"]),
        node("Cast", ["either"], ["precise"], to=TensorProto.DOUBLE),
        node("Mul", ["precise", "third"], ["scaled"]),
        node("Cast", ["scaled"], ["targets"], to=TensorProto.FLOAT),
    ]
    constants |= integers(first=[3, 3], ones=[1])
    bounds = {"low": np.float32(-3), "high": np.float32(4), "row": real(1, 2)}
    more = {"table": real(8), "mask": np.array([True, False]), "third": np.array(1 / 3)}
    return nodes, constants | bounds | more


def long_way() -> tuple[list[NodeProto], dict[str, Any]]:
    """Values with a second axis, which stay as they are."""
    nodes, constants = start(4)
    nodes += [
        node("Reshape", ["x", "shape"], ["square"]),
        node("ReduceSum", ["square", "ones"], ["targets"], keepdims=0),
    ]
    return nodes, constants | integers(shape=[0, 2, 2], ones=[1])


GRAPHS = (residual, chosen, parts, tables)


def make_bundle(made: tuple[Sequence[NodeProto], Any], path: Path) -> Bundle:
    nodes, constants = made
    widths = {"conditions": 2, "noise": 3, "targets": 2}
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width])
        for name, width in widths.items()
    ]
    arrays = [from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph(list(nodes), "graph", ports[:2], ports[2:], arrays)
    ids = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=ids, ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    helper.set_model_props(model, {CARD_KEY: make_card().to_json()})
    path.write_bytes(seal(model.SerializeToString()))
    return read_bundle(path, threads=1)


def draw(n: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    x = rng.uniform((3e3, 1.5), (1e5, 5.0), (n, 2)).astype(np.float32)
    return x, rng.normal(size=(n, 3)).astype(np.float32)


def as_stored(path: Path, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """What onnxruntime makes of the file itself."""
    import onnxruntime

    stored = onnxruntime.InferenceSession(path.read_bytes())
    (found,) = stored.run(None, {"conditions": x, "noise": z})
    return found


def is_rearranged(bundle: Bundle) -> bool:
    return isinstance(bundle._session.start(), _Shared)


def assert_same(got: np.ndarray, expected: np.ndarray, *, edges: int = 0) -> None:
    """Compare rows; some may lie at the edge of a choice."""
    far = np.abs(got - expected) > 1e-5 * np.maximum(1, np.abs(expected))
    assert far.any(axis=1).sum() <= edges


@pytest.mark.parametrize("make", [*GRAPHS, long_way])
def test_it_gives_what_the_file_says(make: Any, tmp_path: Path) -> None:
    bundle = make_bundle(make(), tmp_path / "a.onnx")
    x, z = draw()
    expected = as_stored(bundle.path, x, z)
    assert np.std(expected, axis=0).min() > 0.01
    edges = 1 if make in (chosen, tables) else 0
    assert_same(bundle.generate(x, z), expected, edges=edges)


@is_blocked
@pytest.mark.parametrize("make", [*GRAPHS, long_way])
def test_what_is_rearranged(make: Any, tmp_path: Path) -> None:
    bundle = make_bundle(make(), tmp_path / "a.onnx")
    bundle.generate(*draw(1))
    assert is_rearranged(bundle) is (make is not long_way)


@pytest.mark.parametrize("make", GRAPHS)
def test_a_row_does_not_depend_on_its_place(make: Any, tmp_path: Path) -> None:
    bundle = make_bundle(make(), tmp_path / "a.onnx")
    x, z = draw()
    whole = bundle.generate(x, z)
    order = rng.permutation(len(x))
    assert np.array_equal(bundle.generate(x[order], z[order]), whole[order])
    # The last rows are computed in small blocks.
    for first in (1, 2, 3, 5, 7, 2047, 2700, 3800, 4990):
        assert np.array_equal(bundle.generate(x[first:], z[first:]), whole[first:])


@is_blocked
def test_bundles_of_one_kind_share_a_session(tmp_path: Path) -> None:
    one = make_bundle(residual(), tmp_path / "a.onnx")
    other = make_bundle(residual(), tmp_path / "b.onnx")
    x, z = draw()
    for bundle in (one, other, one):
        assert_same(bundle.generate(x, z), as_stored(bundle.path, x, z))
    assert one._session.start() is other._session.start()


def test_a_bundle_keeps_its_session(tmp_path: Path) -> None:
    bundle = make_bundle(residual(), tmp_path / "a.onnx")
    x, z = draw()
    first = bundle.generate(x, z)
    session._shared.cache_clear()
    assert np.array_equal(bundle.generate(x, z), first)
    assert np.array_equal(bundle.generate(x[:9], z[:9]), first[:9])


def test_without_blocks_the_file_runs_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pidgan.bundle.session.channels_at_once", lambda: None)
    bundle = make_bundle(parts(), tmp_path / "a.onnx")
    x, z = draw()
    assert_same(bundle.generate(x, z), as_stored(bundle.path, x, z))
    assert not is_rearranged(bundle)


def test_a_trained_generator(kaon_bundle: Path) -> None:
    bundle = open_bundle(kaon_bundle, threads=1)
    frame = bundle.reference()
    assert frame is not None
    x = frame[list(bundle.card.condition_names)].to_numpy(np.float32)
    z = rng.normal(size=(len(x), bundle.card.n_noise)).astype(np.float32)
    assert_same(bundle.generate(x, z), as_stored(kaon_bundle, x, z), edges=1)
    if channels_at_once() is not None:
        assert is_rearranged(bundle)
