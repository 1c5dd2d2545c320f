"""Numbers are rounded as the Particle Data Group does, everywhere by one function."""

import math

import pytest

from pidgan.bundle.validation_text import sentences
from pidgan.efficiency.quoted import Estimate, decimals, quote_lines, rounded


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        # Three highest digits of the error: up to 354 two digits, up to 949 one.
        (0.827, 0.119, "0.83 +- 0.12"),
        (0.827, 0.367, "0.8 +- 0.4"),
        (14.674, 0.964, "14.7 +- 1.0"),
        (1.2345, 0.0354, "1.234 +- 0.035"),
        (1.2345, 0.0355, "1.23 +- 0.04"),
        (1.2345, 0.0949, "1.23 +- 0.09"),
        (1.2345, 0.0951, "1.23 +- 0.10"),
        (5432.1, 123.0, "5432 +- 123"),
    ],
)
def test_rules_of_the_pdg(value: float, error: float, text: str) -> None:
    digits = decimals(error)
    assert f"{value:.{digits}f} +- {error:.{digits}f}" == text
    assert " +- ".join(rounded(value, error, 0.0)[:2]) == text


def test_the_total_decides_and_no_part_is_shown_as_zero() -> None:
    assert rounded(92.8712, 0.12, 0.40) == ("92.9", "0.1", "0.4")
    assert rounded(92.8712, 0.12, 0.21) == ("92.87", "0.12", "0.21")
    assert rounded(50.0, 0.004, 0.6) == ("50.000", "0.004", "0.600")


def test_lines_of_results() -> None:
    one = Estimate(
        label="RichDLLk > 0", value=0.9287, stat=0.0012, syst={"a": 0.002}, total=0.0023
    )
    none = Estimate(label="x", value=math.nan, stat=0.1, syst={}, total=0.1)
    first, second = quote_lines([one, none], unit="%")
    assert first == "RichDLLk > 0   (92.87 +- 0.12 stat +- 0.20 syst) %"
    assert second == "x              no value"
    (ratio,) = quote_lines([one], unit="")
    assert ratio == "RichDLLk > 0   0.9287 +- 0.0012 stat +- 0.0020 syst"


def test_a_validation_is_told_in_sentences() -> None:
    content = {
        "c2st": {"value": 0.51, "error": 0.004, "floor": 0.505, "rows": 20_000},
        "efficiency": {
            "DLLk > 0": {
                "real": 0.9552,
                "real_error": 0.0021,
                "generated": 0.9525,
                "difference": {"value": -0.0027, "error": 0.0024},
            }
        },
        "ks": {"DLLk": {"value": None, "error": None, "floor": None}},
        "strange": {"a": {"b": [1, 2]}, "c": True},
    }
    assert list(sentences(content)) == [
        "classifier test (C2ST, area under the curve): 0.51 +- 0.004; real against "
        "real 0.505",
        "DLLk > 0: real 95.52 % +- 0.21 %, generated 95.25 %, difference -0.27 % +- "
        "0.24 %",
        "KS distance of DLLk: not known",
        "strange a b: 1, 2",
        "strange c: True",
    ]
