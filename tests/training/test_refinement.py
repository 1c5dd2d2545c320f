"""Refinement: a ratio that is known is found, and rows are chosen by it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from command_line import Run

pytest.importorskip("tensorflow")

from pidgan.bundle.bundle import open_bundle
from pidgan.bundle.card import sample_targets
from pidgan.errors import TrainingError
from pidgan.report.metrics import energy_distance
from pidgan.sample.weights import with_differences
from pidgan.training.export import check_parity, export_bundle
from pidgan.training.model import Model
from pidgan.training.networks.density_ratio import LOG_BOUND, RatioNetwork
from pidgan.training.networks.perceptrons import Shape
from pidgan.training.refinement import RefinedModel, refine
from pidgan.training.targets.track_fits import fit_columns


def _log_ratio(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """log N(y; x, 1) - log N(y; 0, 1)."""
    return x * y - x**2 / 2


def _toy(n: int, *, seed: int) -> dict[str, np.ndarray]:
    """Signal y ~ N(x, 1) on as much background, and generated rows y ~ N(0, 1).

    Weights have both signs; their mean is 1 for signal and 0 for background.
    """
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (n, 1))
    is_signal = rng.random(n) < 0.5
    y = rng.normal(size=(n, 1)) + np.where(is_signal[:, None], x, 3)
    none = np.zeros((n, 0))
    return {
        "x": x,
        "pattern": none,
        "y": y,
        "w": is_signal + rng.choice([-0.6, 0.6], n),
        "v": np.ones(n),
        "g_pattern": np.zeros((n, 4, 0)),
        "g_y": rng.normal(size=(n, 4, 1)),
    }


def _ratio_network() -> RatioNetwork:
    return RatioNetwork(shape=Shape(n_conditions=1, n_patterns=0, n_targets=1), seed=1)


def test_a_known_ratio_is_found_from_weights_of_both_signs() -> None:
    network, held_out = _ratio_network(), _toy(20_000, seed=4)
    losses = network.fit(
        _toy(60_000, seed=1), held_out=held_out, steps=600, batch_size=1024
    )
    assert losses[0] == 0
    # The gain is 1/2 E[(r - 1)^2], r - 1 about x y.
    assert -min(losses) == pytest.approx(0.2, abs=0.06)
    # Where rows are frequent.
    x, y = (v.ravel() for v in np.meshgrid(np.linspace(-0.7, 0.7, 9), [-1, 0, 1]))
    columns = [v[:, None].astype("f4") for v in (x, 0 * x, y)]
    found = np.log(network.ratio(columns[0], columns[1][:, :0], columns[2]))
    assert np.sqrt(np.mean((found - _log_ratio(x, y)) ** 2)) < 0.15


def test_a_ratio_that_gains_nothing_is_one() -> None:
    """Real rows are made as the generated ones, and the weights are noise."""
    network, rows = _ratio_network(), _toy(500, seed=6)
    rows["y"] = rows["g_y"][:, 0]
    other = {name: v[250:] for name, v in rows.items()}
    rows = {name: v[:250] for name, v in rows.items()}
    # What one half gains is what the other half loses.
    sign = np.sign(rows["y"][:, 0])
    rows["w"], other["w"] = 1 + 3 * sign, 1 - 3 * np.sign(other["y"][:, 0])
    losses = network.fit(rows, held_out=other, steps=100, batch_size=256)
    assert min(losses) == 0 < losses[-1]
    r = network.ratio(*(rows[k].astype("f4") for k in ("x", "pattern", "y")))
    assert np.all(r.numpy() == 1)


def test_rows_are_chosen_by_the_ratio(kaon_model: Model) -> None:
    """Candidates N(0, 1) and r = N(y; 1/2, 1) / N(y; 0, 1) give N(1/2, 1)."""
    rng = np.random.default_rng(5)
    count, n = 40, 4000
    card = kaon_model.card
    one_target = card.model_copy(
        update={"targets": card.targets[:1], "n_noise": 1, "sample": card.sample}
    )
    base = dataclasses.replace(
        kaon_model,
        card=one_target,
        targets=fit_columns(rng.normal(size=(200_000, 1)), np.ones(200_000)),
        generator=lambda inputs: _Array(inputs["noise"]),
        patterns=None,
    )
    refined = RefinedModel(
        card=one_target.model_copy(update={"n_noise": count + 1}),
        base=base,
        ratio=lambda inputs: _bounded_back(_log_ratio(0.5, inputs["targets"])),
        candidates=count,
        losses=[],
    )
    x = np.repeat(
        kaon_model.reference()[list(card.condition_names)].to_numpy()[:1], n, 0
    )
    noise = rng.normal(size=(n, count + 1)).astype("f4")
    y = refined.generate(x, noise)[:, 0]
    assert y.mean() == pytest.approx(0.5, abs=0.06)
    assert y.std() == pytest.approx(1.0, abs=0.05)
    w = refined.density_ratio(x, base.generate(x, noise[:, :1]))
    assert w.mean() == pytest.approx(1, abs=0.05)
    assert np.average(noise[:, 0], weights=w) == pytest.approx(0.5, abs=0.08)


def _bounded_back(log_r: np.ndarray) -> np.ndarray:
    """Return what `log_ratio` makes log r of."""
    return LOG_BOUND * np.arctanh(np.clip(log_r / LOG_BOUND, -0.999, 0.999))


class _Array(np.ndarray):
    """What a network returns: something with a method `numpy`."""

    def __new__(cls, values: np.ndarray) -> "_Array":
        return np.asarray(values).view(cls)

    def numpy(self) -> np.ndarray:
        return np.asarray(self)


@pytest.fixture(scope="module")
def refined(kaon_model, kaon_dataset) -> RefinedModel:
    return refine(kaon_model, kaon_dataset, candidates=4, ratio_steps=300)


def test_a_refined_generator_is_closer_to_the_data(
    refined: RefinedModel, kaon_dataset
) -> None:
    part = kaon_dataset.part("test")
    x, w = part.conditions, part.weights
    real = with_differences(x, part.targets)

    def distance(generator) -> float:
        found = [
            energy_distance(
                real,
                with_differences(x, sample_targets(generator, x, seed=seed)),
                w,
                w,
                seed=1,
            )
            for seed in range(4)
        ]
        return float(np.mean(found))

    # Real against real it is 0.0075.
    assert distance(refined) < 0.85 * distance(refined.base)


def test_a_refined_bundle_is_a_bundle(
    refined: RefinedModel, kaon_dataset, tmp_path: Path
) -> None:
    bundle = open_bundle(export_bundle(refined, tmp_path / "refined.onnx"))
    assert bundle.card.settings["candidates"] == 4
    found = check_parity(refined, bundle, rows=10_000)
    assert found.differing <= 1
    y = sample_targets(bundle, kaon_dataset.part("test").conditions[:2000], seed=1)
    k, bt = (bundle.card.target_names.index(f"RichDLL{h}") for h in ("k", "bt"))
    tied = y[:, k] == y[:, bt]
    assert tied.any()
    assert np.abs(y[:, k] - y[:, bt])[~tied].min() > 1e-6


def test_command_line(
    run: Run,
    refined: RefinedModel,
    kaon_dataset,
    tmp_path: Path,
) -> None:
    model, data, out = (tmp_path / name for name in ("model", "data", "refined.onnx"))
    refined.base.save(model)
    kaon_dataset.save(data)
    result = run(
        "refine", model, data, "-o", out, "--candidates", 2, "--ratio-steps", 3
    )
    assert result.code == 0, result.err
    assert "gain on rows that were not trained on" in result.out
    assert open_bundle(out).card.settings["candidates"] == 2
    assert run("refine", model, data, "-o", out).code == 1


def test_wrong_choices_are_named(kaon_model, kaon_dataset) -> None:
    with pytest.raises(ValueError, match="candidates is 1, expected at least 2"):
        refine(kaon_model, kaon_dataset, candidates=1)
    other = dataclasses.replace(kaon_dataset, info={"hash": "other"})
    with pytest.raises(TrainingError, match="expected the given one, other"):
        refine(kaon_model, other)
