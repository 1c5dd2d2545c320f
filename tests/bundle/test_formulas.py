"""Every word of the language means the same for numpy, tensorflow, ONNX and C."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from formula_arms import assert_equal_on_every_arm, graph_of

from pidgan.bundle import formulas as f
from pidgan.bundle.graph_values import Traced
from pidgan.training.backend import tf

RNG = np.random.default_rng(1)
MATRIX, CONSTANT = RNG.normal(size=(3, 5)), RNG.normal(size=5)
TABLE = RNG.normal(size=12).astype(np.float32)


def _edges(z: Any) -> Any:
    """Rising inner edges of four bins from three numbers."""
    return f.cumulated(f.exp(f.columns(z, 0, 3))) - 3.0


def _last(formula: Any) -> Any:
    """A formula whose rows are on the last axis inside."""
    return lambda x, z: f.turn(formula(f.turn(x)))


def _mask(x: Any, z: Any) -> Any:
    one, other = f.less(x, 0.5), f.greater(x, -0.5)
    return f.numbers(f.either(f.both(one, other), f.at_most(x, -1.0)), x)


WORDS: dict[str, Any] = {
    **{
        name: lambda x, z, name=name: getattr(f, name)(x)
        for name in (
            *("exp", "sin", "cos", "tanh", "absolute", "floor", "sigmoid", "softplus"),
            *("relu", "negative", "softmax", "cumulated", "uniform"),
        )
    },
    "log": lambda x, z: f.log(f.absolute(x) + 0.1),
    "sqrt": lambda x, z: f.sqrt(f.absolute(x)),
    "arcsin": lambda x, z: f.arcsin(f.tanh(x)),
    "maximum": lambda x, z: f.maximum(x, 0.3),
    "minimum": lambda x, z: f.minimum(x, CONSTANT[:3].astype(np.float32)),
    "less": lambda x, z: f.numbers(f.less(x, f.columns(z, 0, 3)), x),
    "at_most": _mask,
    "greater": lambda x, z: f.numbers(f.greater(f.columns(x, 0, 1), z), x),
    "at_least": lambda x, z: f.numbers(f.at_least(x, 0.2), x),
    "equal": lambda x, z: f.numbers(f.equal(f.floor(x), 0.0), x),
    "both": _mask,
    "either": _mask,
    "clip": lambda x, z: f.clip(x, -0.5, 1.5),
    "where": lambda x, z: f.where(f.less(x, 0.0), 7.0, f.columns(z, 1, 4)),
    "where_constant": lambda x, z: f.where(np.array([True, False, True]), x, 1.0),
    "like": lambda x, z: x * f.like(x, CONSTANT[:3]) / f.like(x, CONSTANT[1:4]),
    "numbers": lambda x, z: 1.0 - f.numbers(f.less(x, 0.0), x),
    "near": lambda x, z: f.near(x, 1.0),
    "with_precision": lambda x, z: f.with_precision(
        f.exp(f.with_precision(x, double=True)), double=False
    ),
    "precise": lambda x, z: f.with_precision(f.exp(f.precise(x)), double=False),
    "cumulated_exclusive": lambda x, z: f.cumulated(x, exclusive=True),
    "total": lambda x, z: x / (1.0 + f.absolute(f.total(x, 1))),
    "matmul": lambda x, z: f.matmul(x, MATRIX),
    "affine": lambda x, z: f.affine(x, MATRIX, CONSTANT),
    "affine_offset": lambda x, z: f.affine(x, MATRIX, CONSTANT, CONSTANT[::-1]),
    "columns": lambda x, z: f.columns(z, 1, 3) - f.columns(x, 0, 2),
    "reshape": lambda x, z: f.reshape(f.reshape(z, (2, 2)), (4,)),
    "take": lambda x, z: f.take(x, [2, 0, 0, 1], axis=1),
    "concatenate": lambda x, z: f.concatenate([x, z, x]),
    "turn": lambda x, z: f.turn(f.turn(x) * 2.0),
    "product": _last(lambda x: f.product(MATRIX.T, x)),
    "stack": _last(lambda x: f.stack([x, x * 2.0])),
    "pick": _last(lambda x: f.pick(x, [2, 1, 1])),
    "largest": _last(lambda x: f.largest(f.pick(x, [[0, 1], [1, 2]]))),
    "fold": _last(lambda x: f.fold(f.fold(x, (1, 3)) * 2.0, (3,))),
    "index": lambda x, z: f.lookup(
        TABLE, f.index(f.clip(f.floor(f.absolute(x)), 0.0, 3.0), np.array([0, 4, 8]))
    ),
    "lookup": lambda x, z: f.lookup(
        TABLE, f.index(f.numbers(f.less(x, 0.0), x), f.numbers(f.less(x, 1.0), x))
    ),
    "bins": lambda x, z: f.in_bin(z, f.bins(f.columns(x, 0, 1), _edges(z))),
    "in_bin": lambda x, z: f.in_bin(
        f.concatenate([z, x]), f.bins(f.columns(x, 0, 1), _edges(z)), ahead=1
    ),
    "operators": lambda x, z: -x * 2.0 + 3.0 * x / (2.0 + x * x) - 1.0 / (3.0 + x * x),
}

# Its operators have no C translation: double precision, and parametrised showers.
NOT_IN_C = {"with_precision", "sin", "cos", "arcsin"}


@pytest.mark.parametrize("word", WORDS)
def test_a_word_means_the_same_everywhere(word: str, tmp_path: Path) -> None:
    x = np.random.default_rng(2).normal(0.3, 1.2, size=(64, 3)).astype(np.float32)
    z = np.random.default_rng(3).normal(size=(64, 4)).astype(np.float32)
    assert_equal_on_every_arm(
        WORDS[word], x, z, path=tmp_path, c=word not in NOT_IN_C, tolerance=2e-6
    )


def test_every_word_is_tested() -> None:
    tools = {"register", "Traced", "GraphArm", "Any"}
    words = {
        name
        for name, value in vars(f).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }
    assert words - tools <= set(WORDS)


def test_rows_keep_their_missing_values(tmp_path: Path) -> None:
    """NaN stays NaN where it is not asked for, in a choice too."""
    x = np.array([[np.nan, 1.0, -1.0], [0.5, np.nan, 2.0]], dtype=np.float32)
    z = np.zeros((2, 4), dtype=np.float32)

    def formula(x: Any, z: Any) -> Any:
        return f.where(f.greater(x, 0.0), x, 0.0) + f.clip(x, -2.0, 1.5) + z[:, :3] * 0

    for kind in (np.asarray, tf.constant):
        found = np.asarray(formula(kind(x), kind(z)))
        np.testing.assert_array_equal(np.isnan(found), np.isnan(x))


def test_gradients_pass_through_the_words() -> None:
    x = tf.constant([[0.3, -0.4, 1.2]])
    z = tf.constant([[0.1, 0.2, -0.3, 0.4]])
    with tf.GradientTape() as tape:
        tape.watch(z)
        y = f.in_bin(f.exp(z), f.bins(f.columns(x, 0, 1), _edges(z)))
    gradient = tape.gradient(y, z).numpy()
    assert (gradient != 0).sum() == 1


def test_a_graph_is_in_double_precision_only_where_it_asks() -> None:
    for double in (False, True):
        graph = graph_of(WORDS["precise"], 3, 4, double=double).graph
        casts = [node for node in graph.node if node.op_type == "Cast"]
        assert len(casts) == (2 if double else 0)


def test_constants_take_the_precision_of_what_they_meet() -> None:
    x = np.ones((2, 3), dtype=np.float32)
    assert f.like(x, np.arange(3)).dtype == np.float32
    assert f.affine(x, MATRIX, CONSTANT).dtype == np.float32
    assert f.where(f.less(x, 0.0), x, 1.0).dtype == np.float32
    assert f.affine(f.with_precision(x, double=True), MATRIX, CONSTANT).dtype == float


def test_a_graph_knows_its_shapes() -> None:
    seen: list[Traced] = []

    def formula(x: Any, z: Any) -> Any:
        seen.append(f.pick(f.turn(x), [[0, 1], [1, 2]]))
        return f.turn(f.largest(seen[0]))

    graph_of(formula, 3, 4)
    assert seen[0].shape == (2, 2)
    assert seen[0].rows_last
