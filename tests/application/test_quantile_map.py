"""Quantile maps: what goes in distributed as simulation comes out as data."""

from pathlib import Path

import numpy as np
import pytest

from pidgan.application.conditions import Conditions
from pidgan.application.quantile_map import QuantileMap, make_quantile_map
from pidgan.errors import NtupleError
from pidgan.report.metrics import weighted_ks

ROWS = 20_000


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def test_a_sample_is_mapped_to_itself(rng: np.random.Generator) -> None:
    tracks = rng.poisson(40, ROWS) * 4.0
    found = make_quantile_map(tracks, tracks)
    np.testing.assert_allclose(found.evaluate(tracks), tracks, atol=1e-9)


def test_what_is_mapped_is_distributed_as_data(rng: np.random.Generator) -> None:
    simulation, other = rng.gamma(4.0, 30.0, (2, ROWS))
    data = rng.gamma(6.0, 28.0, ROWS)
    found = make_quantile_map(simulation, data)
    assert weighted_ks(other, data) > 0.2
    # Half against half of this size differs by 1.4 / sqrt(10000) at the most.
    assert weighted_ks(found.evaluate(other), data) < 0.02
    order = np.argsort(other)
    assert (np.diff(found.evaluate(other)[order]) >= 0).all()


def test_signed_weights_are_subtracted(rng: np.random.Generator) -> None:
    simulation = rng.normal(100.0, 10.0, ROWS)
    signal, background = rng.normal(120.0, 10.0, ROWS), rng.normal(60.0, 10.0, ROWS)
    data = np.concatenate([signal, background, rng.normal(60.0, 10.0, ROWS)])
    weights = np.repeat([1.0, 0.5, -0.5], ROWS)
    found = make_quantile_map(simulation, data, data_weights=weights)
    probe = np.array([90.0, 100.0, 110.0])
    np.testing.assert_allclose(found.evaluate(probe), probe + 20.0, atol=1.0)


def test_beyond_the_ends_values_are_shifted() -> None:
    found = QuantileMap(simulation=(0.0, 10.0), data=(5.0, 30.0))
    values = found.evaluate(np.array([-1.0, 0.0, 4.0, 10.0, 12.0, np.nan]))
    np.testing.assert_array_equal(values, [4.0, 5.0, 15.0, 30.0, 32.0, np.nan])


def test_a_file_gives_the_map_back(tmp_path: Path, rng: np.random.Generator) -> None:
    made = make_quantile_map(rng.normal(size=ROWS), rng.normal(2.0, 3.0, ROWS))
    made.save(tmp_path / "m.json")
    assert QuantileMap.open(tmp_path / "m.json") == made
    maps = Conditions(quantile_maps={"a": made, "b": tmp_path / "m.json"}).opened_maps
    assert maps == {"a": made, "b": made}
    with pytest.raises(NtupleError, match=r"m.json exists"):
        made.save(tmp_path / "m.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "is not valid JSON"),
        ("[]", "not a quantile map"),
        ('{"schema": 1, "simulation": [1, 2]}', "not a quantile map .KeyError: 'data'"),
        ('{"schema": 2, "simulation": [1, 2], "data": [1, 2]}', "its seal is none"),
        ('{"schema": 3, "simulation": [1, 2], "data": [1, 2]}', "schema 3, expected 2"),
        ('{"schema": 1, "simulation": [2, 1], "data": [1, 2]}', "must rise"),
        ('{"schema": 1, "simulation": [1, 2], "data": [2, 1]}', "must rise"),
        ('{"schema": 1, "simulation": [1, 2], "data": [1, NaN]}', "not finite"),
        ('{"schema": 1, "simulation": [1], "data": [1]}', "at least 2"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(NtupleError, match=message):
        QuantileMap.open(tmp_path / "m.json")
    with pytest.raises(NtupleError, match="cannot be read"):
        QuantileMap.open(tmp_path / "none.json")


def test_samples_that_say_nothing_are_refused(rng: np.random.Generator) -> None:
    good = rng.normal(size=ROWS)
    with pytest.raises(NtupleError, match="data: got 50 effective rows of 50"):
        make_quantile_map(good, good[:50])
    with pytest.raises(NtupleError, match="simulation: a value or weight is not fin"):
        make_quantile_map(np.append(good, np.nan), good)
    with pytest.raises(NtupleError, match="data: all values are 3"):
        make_quantile_map(good, np.full(ROWS, 3.0))
    with pytest.raises(NtupleError, match="data: got 0 effective rows"):
        make_quantile_map(good, good, data_weights=-np.ones(ROWS))
