"""Cuts that a calibration sample already has."""

import numpy as np
import pytest

from pidgan.errors import CutError
from pidgan.sample.built_in import split_terms, translate_cut
from pidgan.sample.cuts import parse_cut


@pytest.mark.parametrize(
    ("texts", "cut"),
    [
        (["a > 1"], "a > 1"),
        (["a > 1", "b < 2.50"], "a > 1 & b < 2.5"),
        (["(1==1)"], None),
        ([], None),
        (["(1==1) & ((a) >=3)"], "a >= 3"),
        (["(2 > 3) | (a > 3)"], "a > 3"),
        (["((a == 1) | (b == 1)) == 1"], "a == 1 | b == 1"),
        (["1 == ((a == 1) & (b == 1))"], "a == 1 & b == 1"),
        (["((a == 1) | (b == 1)) == 0"], "!(a == 1 | b == 1)"),
        (["((a == 1)) != 1"], "!(a == 1)"),
        (
            ["a > 1 and (b > 1 or (c > 1 and d > 1))"],
            "a > 1 & (b > 1 | (c > 1 & d > 1))",
        ),
        (["((a > 1) & (b > 1)) & (c > 1)"], "a > 1 & b > 1 & c > 1"),
        (["x > 1.5e3 & y > 12.0 & z2.0 > 1"], None),
    ],
)
def test_cuts_of_programs_become_cuts(texts: list[str], cut: str | None) -> None:
    if texts and "z2.0" in texts[0]:
        with pytest.raises(CutError):
            translate_cut(texts)
        return
    assert translate_cut(texts) == cut


def test_a_translated_cut_selects_the_same_rows() -> None:
    rng = np.random.default_rng(1)
    rows = {name: rng.integers(0, 4, 500) for name in "abcd"}
    text = "((a > 1 | (b >= 2 & !(c == 1))) == 1) & (1 < 2) & d != 3"
    plain = (rows["a"] > 1) | ((rows["b"] >= 2) & ~(rows["c"] == 1))
    found = translate_cut([text])
    assert found is not None
    np.testing.assert_array_equal(
        parse_cut(found).passes(rows), plain & (rows["d"] != 3)
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("1 == 2", "never true"),
        ("a > 1 & 2 < 1", "never true"),
        ("(a > 1) == 2", "true or false"),
        ("(a > 1) > 0", "true or false"),
        ("(a > 1) == (b > 1)", "true or false"),
        ("f(a) > 1", "only function"),
    ],
)
def test_cuts_that_are_refused(text: str, problem: str) -> None:
    with pytest.raises(CutError, match=problem):
        translate_cut([text])
    # The grammar for people takes none of what only programs write.
    with pytest.raises(CutError):
        parse_cut("1 == 1 & a > 0")


def test_hundreds_of_terms() -> None:
    terms = [f"((RUN) >= {k} & (RUN) <= {k + 5})" for k in range(0, 4000, 10)]
    cut = translate_cut([f"(({' | '.join(terms)})) & (1==1)"])
    assert cut is not None
    rows = {"RUN": np.arange(30)}
    expected = rows["RUN"] % 10 <= 5
    np.testing.assert_array_equal(parse_cut(cut).passes(rows), expected)


def test_terms_of_the_probe() -> None:
    cut = "tag_X < 0 & mu_IN == 1 & (mu_A == 1 | mu_B == 1) & mu_PT > tag_PT"
    terms = split_terms(cut, "mu_")
    assert [term.text for term in terms if term.prefix] == [
        "mu_IN == 1",
        "mu_A == 1 | mu_B == 1",
    ]
    assert not any(term.prefix for term in split_terms(cut, None))
    assert split_terms(None, "mu_") == ()


def test_long_terms_are_abridged() -> None:
    many = " | ".join(f"mu_Hlt1Line{k}Decision_TIS == 1" for k in range(23))
    (term,) = split_terms(many, "mu_")
    assert term.brief == "mu_Hlt1Line0Decision_TIS == 1 or 22 more"
