"""Laws of the cut grammar, what it refuses, and sentinels."""

import numpy as np
import pandas as pd
import pytest

from pidgan.errors import CutError
from pidgan.sample.cuts import parse_cut

COLUMNS = {
    "a": np.array([1.0, -1.0, np.nan, -999.0, 2.0, np.inf]),
    "b": np.array([2.0, 3.0, 4.0, 5.0, 0.0, 1.0]),
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a > 0", [1, 0, 0, 0, 1, 0]),
        ("a > 0 & b > 1", [1, 0, 0, 0, 0, 0]),
        ("a>0&&b>1||!(b>3)", [1, 1, 0, 0, 1, 0]),
        ("(a > 0) & (b > 1) | (b == 0)", [1, 0, 0, 0, 1, 0]),
        ("not (a > 0)", [0, 1, 0, 0, 0, 0]),
        ("~(a > 0)", [0, 1, 0, 0, 0, 0]),
        ("a != 5", [1, 1, 0, 0, 1, 0]),
        ("0 < a < 1.5", [1, 0, 0, 0, 0, 0]),
        ("abs(a - b) + 1 <= 2*b/2", [1, 0, 0, 0, 0, 0]),
        ("-a >= 1e0", [0, 1, 0, 0, 0, 0]),
        ("b > 1", [1, 1, 1, 1, 0, 0]),
        ("a / b > -1000", [1, 1, 0, 0, 0, 0]),
    ],
)
def test_rows_that_pass(text: str, expected: list[int]) -> None:
    passed = parse_cut(text, names=COLUMNS).passes(COLUMNS, {"a": (-999.0,)})
    assert passed.tolist() == [bool(value) for value in expected]


@pytest.mark.parametrize("text", ["a > 0", "b - a < 2", "a > 0 | b > 3"])
def test_a_cut_and_its_negation_share_out_the_usable_rows(text: str) -> None:
    sentinels = {"a": (-999.0,)}
    usable = parse_cut("a == a & b == b").passes(COLUMNS, sentinels)
    passed = parse_cut(text).passes(COLUMNS, sentinels)
    failed = parse_cut(f"!({text})").passes(COLUMNS, sentinels)
    np.testing.assert_array_equal(passed ^ failed, usable)
    assert not (passed & failed).any()


def test_spelling_does_not_matter() -> None:
    texts = ["a>0&b<1", "(a > 0) and (b < 1)", "a > 0.0 && b < 1", "((a>0)) & (b<1)"]
    assert {parse_cut(text).canonical for text in texts} == {"a > 0.0 and b < 1.0"}


def test_names_are_listed_once_in_order_without_functions() -> None:
    assert parse_cut("b > abs(a) & b < 3").names == ("b", "a")


def test_aliases() -> None:
    assert parse_cut("DLLK > 0", names=["PIDK", "PIDp"]).names == ("PIDK",)
    assert parse_cut("PIDK > 0", names=["PID_K"]).names == ("PID_K",)
    assert parse_cut("DLLp > 0", names=["DLLp", "PIDp"]).names == ("DLLp",)
    own = {"kaonness": "RichDLLk"}
    assert parse_cut("kaonness > 0", names=["RichDLLk"], aliases=own).names == (
        "RichDLLk",
    )


def test_sentinels_are_found_in_single_precision() -> None:
    frame = pd.DataFrame({"a": np.array([-999.9, 1.0], dtype=np.float32)})
    assert parse_cut("a < 5").passes(frame, {"a": (-999.9,)}).tolist() == [False, True]


def test_integer_and_boolean_columns() -> None:
    frame = pd.DataFrame({"isMuon": [True, False], "n": [3, 4]})
    assert parse_cut("isMuon == 1 & n > 0").passes(frame).tolist() == [True, False]


def test_no_rows() -> None:
    assert parse_cut("a > 0").passes({"a": np.array([])}).shape == (0,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("c > 0", "unknown variable 'c'"),
        ("Aa > 0", "closest: 'a'"),
        ("a", "write a == 1"),
        ("a > 0 & b", "write b == 1"),
        ("", "not a comparison expression"),
        ("a = 3", "write == to compare"),
        ("!a > 0", "before a bracket"),
        ("1 > 0", "names no variable"),
        ("a > 'x'", "only numbers"),
        ("a > True", "only numbers"),
        ("a > 1j", "only numbers"),
        ("a > 1e999 ** 2", "not allowed"),
        ("a ** 2 > 1", "not allowed"),
        ("max(a) > 1", "not allowed"),
        ("a.real > 0", "not allowed"),
        ("a[0] > 1", "not allowed"),
        ("a in b", "not allowed"),
        ("(a > 0) == (b > 0)", "not allowed"),
        ("1 if a > 0 else 2", "not allowed"),
        ("(lambda: a)() > 0", "not allowed"),
        ("(a := 3) > 0", "not allowed"),
        ("__import__('os').system('true') > 0", "only numbers"),
        ("a > 0; b > 0", "not a comparison expression"),
        ("(" * 500 + "a > 0" + ")" * 500, "not a comparison expression"),
        ("-" * 1900 + "a > 0", "nested too deeply"),
        ("a > 0 & " * 400 + "a > 0", "at most 2000"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(CutError, match=message):
        parse_cut(text, names=COLUMNS)


def test_a_missing_column_is_named_when_the_cut_is_applied() -> None:
    with pytest.raises(CutError, match="'probe_PIDk'; closest: 'probe_PIDK'"):
        parse_cut("probe_PIDk > 0").passes({"probe_PIDK": np.ones(2)})


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("DLLK > 4", "probe_PIDK"),
        ("probe_PIDK > 4", "PID_K"),
        ("Brunel_DLLK > 4", "probe_Brunel_PIDK"),
        ("PROBNN_K > 0.2", "ProbNNk"),
        ("MC15TuneV1_ProbNNk > 0.2", "probe_MC15TuneV1_ProbNNk"),
        ("nTracks_Brunel < 200", "nTracks_Brunel"),
    ],
)
def test_names_of_pidcalib_stand_for_branches(text: str, column: str) -> None:
    assert parse_cut(text, names=[column, "P"]).names == (column,)


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("Brunel_DLLK > 4", "probe_PIDK"),
        ("DLLK > 4", "RichDLLk"),
        ("MC12TuneV4_ProbNNk > 0.2", "MC15TuneV1_ProbNNk"),
        ("MC15TuneV1_ProbNNk > 0.2", "ProbNNk"),
    ],
)
def test_variables_of_another_kind_do_not(text: str, column: str) -> None:
    with pytest.raises(CutError, match="unknown variable"):
        parse_cut(text, names=[column])
