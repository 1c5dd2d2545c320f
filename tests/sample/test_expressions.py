"""Expressions of branches: the branches they need, and the type they compute in."""

import numpy as np
import pytest

from pidgan.errors import CutError
from pidgan.sample.expressions import parse_expression

COLUMNS = {
    "a": np.array([3.1, 2.2], np.float32),
    "b": np.array([1.3, 1.7], np.float32),
    "n": np.array([2**60, 2**60 + 1]),
    "k": np.array([1, 4], np.uint32),
    "d": np.array([0.1, 0.2]),
    "v[0]": np.array([5.0, 6.0]),
}


def test_a_branch_alone_is_as_stored() -> None:
    for name, column in COLUMNS.items():
        found = parse_expression(name)
        assert found.names == (name,)
        assert found.evaluate(COLUMNS) is column
    assert parse_expression("μ.mass").names == ("μ.mass",)


def test_single_precision_stays_single_precision() -> None:
    a, b, d = (COLUMNS[name] for name in "abd")
    for text, expected in {
        "a - b": a - b,
        "abs(b - a) * 2": np.abs(b - a) * np.float32(2),
        "(a + b) / -a": (a + b) / -a,
        "a - d": a - d,
        "-1 * a + abs(-3) * (2 - 1.5)": -a + np.float32(1.5),
        "k - 5": np.array([-4.0, -1.0]),
        "+a - 1e3": a - np.float32(1e3),
    }.items():
        values = parse_expression(text).evaluate(COLUMNS)
        assert values.dtype == expected.dtype, text
        np.testing.assert_array_equal(values, expected)
    assert parse_expression("a - b + d*a").names == ("a", "b", "d")


@pytest.mark.parametrize(
    "text",
    ["", " ", "a -", "a > 1", "a & b", "exp(a)", "a.b()", "a[b]+1", "a if b"],
)
def test_what_is_no_expression(text: str) -> None:
    with pytest.raises(CutError, match="is no expression of branches"):
        parse_expression(text)


def test_whole_numbers_too_large_to_compute_with() -> None:
    with pytest.raises(ValueError, match=r"beyond 2\^53"):
        parse_expression("n + 1").evaluate(COLUMNS)
