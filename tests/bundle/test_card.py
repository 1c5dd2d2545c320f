import json

import numpy as np
import pytest
from pydantic import ValidationError
from toy_generator import ToyGenerator, make_card

from pidgan.bundle.card import Card, CardVariable, sample_targets, trained_text
from pidgan.errors import BundleError


def test_json_round_trip() -> None:
    card = make_card(validation={"ks": 0.1}, self_test={"noise": [[0.5]]})
    assert Card.from_json(card.to_json()) == card


def test_json_is_strict_and_plain() -> None:
    card = make_card(
        validation={
            "ks": np.float32(0.5),
            "missing": float("nan"),
            "bins": np.arange(2),
        }
    )
    figures = json.loads(card.to_json())["validation"]
    assert figures == {"ks": 0.5, "missing": None, "bins": [0, 1]}
    assert card.to_json().isascii()


def test_names_follow_the_order_of_the_columns() -> None:
    card = make_card()
    assert card.condition_names == ("P", "ETA")
    assert card.target_names == ("DLLk", "DLLp")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "x.onnx: the card is not JSON"),
        ("[]", "schema_version None, expected a number from 1 to 7"),
        ('{"schema_version": "1"}', "schema_version '1', expected"),
        ('{"schema_version": 8}', "schema version 8, this package reads up to 7"),
        ('{"schema_version": 1}', "the card's detector is wrong: Field required"),
    ],
)
def test_bad_card(text: str, message: str) -> None:
    with pytest.raises(BundleError, match=message) as info:
        Card.from_json(text, where="x.onnx")
    assert "\n" not in str(info.value)


def test_card_with_an_unknown_field() -> None:
    content = json.loads(make_card().to_json()) | {"colour": "blue"}
    with pytest.raises(BundleError, match="the card's colour is wrong"):
        Card.from_json(json.dumps(content))


def test_repeated_name_is_refused() -> None:
    variable = CardVariable(name="P", unit="MeV", range=(0, 1))
    with pytest.raises(ValidationError, match="named more than once"):
        make_card(conditions=(variable, variable))


@pytest.mark.parametrize("limits", [(1, 1), (2, 1), (0, float("inf"))])
def test_bad_range(limits: tuple[float, float]) -> None:
    with pytest.raises(ValidationError, match="expected low < high"):
        CardVariable(name="P", unit="MeV", range=limits)


def toy_conditions(n: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.stack([rng.uniform(3e3, 1e5, n), rng.uniform(1.5, 5, n)], axis=1)


def test_samples_do_not_depend_on_the_split(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, x = ToyGenerator(card=make_card()), toy_conditions(100)
    whole = sample_targets(generator, x, seed=1, track="K")
    parts = [
        sample_targets(generator, x[a:b], seed=1, track="K", start=a)
        for a, b in ((0, 33), (33, 100))
    ]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    monkeypatch.setattr("pidgan.bundle.card.SAMPLE_ROWS", 7)
    np.testing.assert_array_equal(
        whole, sample_targets(generator, x, seed=1, track="K")
    )


@pytest.mark.parametrize("change", [{"seed": 2}, {"track": "pi"}, {"start": 1}])
def test_samples_depend_on_seed_track_and_entry(change: dict) -> None:  # type: ignore[type-arg]
    generator, x = ToyGenerator(card=make_card()), toy_conditions(10)
    first = sample_targets(generator, x, seed=1, track="K")
    other = sample_targets(generator, x, **({"seed": 1, "track": "K"} | change))
    assert not np.isclose(first, other).any()


def test_rows_without_a_condition_are_nan_and_leave_the_others() -> None:
    generator, x = ToyGenerator(card=make_card()), toy_conditions(10)
    whole = sample_targets(generator, x, seed=1)
    x[3, 0], x[4, 1] = np.nan, np.inf
    y = sample_targets(generator, x, seed=1)
    missing = np.isnan(y).all(axis=1)
    assert np.flatnonzero(missing).tolist() == [3, 4]
    np.testing.assert_array_equal(y[~missing], whole[~missing])


def test_wrong_number_of_conditions() -> None:
    with pytest.raises(ValueError, match=r"expected \(n, 2\) for P, ETA"):
        sample_targets(ToyGenerator(card=make_card()), np.ones((3, 3)), seed=1)


@pytest.mark.parametrize(("steps", "is_poor"), [(0, False), (2, True), (100, False)])
def test_a_card_says_that_a_training_was_too_short(steps: int, is_poor: bool) -> None:
    card = make_card(steps=steps, seed=3)
    assert ("fewer than 100 steps" in trained_text(card)) is is_poor
    assert f"{steps} steps, seed 3" in trained_text(card)
