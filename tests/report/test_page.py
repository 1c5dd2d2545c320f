"""The page of every report: numbers in cells, tables and figures."""

import math

import pytest

pytest.importorskip("mplhep")
pytest.importorskip("jinja2")

from pidgan.report.page import Section, Table, render_page, text_of, with_error


@pytest.mark.parametrize(
    ("value", "error", "unit", "text"),
    [
        (0.123456, 0.0123, "", "0.123 ± 0.012"),
        (0.987654, 0.00123, "%", "(98.77 ± 0.12) %"),
        (12345.6, 789.0, "", "12346 ± 789"),
        (0.9464, 0.0075, "%", "(94.6 ± 0.8) %"),
        (1.5, 0.0, "", "1.5000"),
        (0.25, None, "", "0.2500"),
        (0.25, math.nan, "%", "25.0000 %"),
        (None, 0.1, "", "-"),
        (3e-9, 2e-10, "", "3.00e-09 ± 2.0e-10"),
    ],
)
def test_a_number_is_rounded_to_its_error(
    value: float | None, error: float | None, unit: str, text: str
) -> None:
    assert with_error(value, error, unit=unit) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        (None, "-"),
        (math.nan, "-"),
        (7, "7"),
        (0.5, "0.5000"),
        (0.0, "0.0000"),
        (2e-5, "2.00e-05"),
    ],
)
def test_cells_are_texts_or_numbers(value: object, text: str) -> None:
    assert text_of(value) == text


def test_a_table_is_escaped_and_left_out_if_it_is_empty() -> None:
    long = "x" * 80
    tables = [
        Table(rows=[{"a<b": "1 & 2", "n": 3}, {"a<b": long}], title="T <1>"),
        Table(rows=[], title="nothing"),
    ]
    page = render_page("A & B", [Section(title="S", text="t < u", tables=tables)])
    for text in ("A &amp; B", "a&lt;b", "1 &amp; 2", "T &lt;1&gt;", "t &lt; u", long):
        assert text in page
    assert "<td>3</td>" in page
    assert "<td>-</td>" in page
    assert "nothing" not in page
