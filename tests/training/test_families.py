"""Laws of every family: repeatable, resumable, exported whole, ties exact."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import pidgan.training.loop
from pidgan.bundle.bundle import open_bundle
from pidgan.bundle.c_file import export_c
from pidgan.bundle.card import sample_targets
from pidgan.errors import PidganError
from pidgan.training.backend import tf
from pidgan.training.export import PARITY_TOLERANCE, check_parity, export_bundle
from pidgan.training.families import FAMILIES, RECIPES, make_family
from pidgan.training.families.kernel_scores import mixture_kernel
from pidgan.training.loop import train
from pidgan.training.model import open_model
from pidgan.training.networks.perceptrons import Shape
from pidgan.training.networks.updates import draw, kernel_score, minus_distance

NETWORK = {"width": 16, "blocks": 1, "batch_size": 128}
SMALL = {
    "wgan_gp": NETWORK | {"critic_width": 16, "critic_blocks": 1, "critic_updates": 1},
    "energy": NETWORK | {"samples": 2},
    "mmd": NETWORK | {"samples": 2},
    "vae": NETWORK,
    "flow": NETWORK | {"bins": 6},
    "maevskiy2019": {
        "width": 16,
        "layers": 1,
        "critic_output": 8,
        "first_critic_updates": 2,
        "critic_updates": 1,
        "batch_size": 64,
        "begin": 0.5,
    },
}
STEPS = 22
# Families whose generator writes itself to ONNX.
OWN_OPERATORS = {"vae", "flow"}
CC = shutil.which("cc")


def _train(dataset, name: str, **options):
    kind = {"recipe": name} if name in RECIPES else {"family": name}
    return train(dataset, seed=5, settings=SMALL[name], **kind, **options)


def _targets(generator, dataset) -> np.ndarray:
    return sample_targets(generator, dataset.part("test").conditions[:2000], seed=1)


@pytest.fixture(scope="module", params=SMALL)
def trained(request, kaon_dataset, tmp_path_factory):
    """A family, its model, and a checkpoint from the middle of its training."""
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    middle = folder / "middle"
    middle.mkdir()

    def keep_checkpoint(progress) -> None:
        if (folder / "checkpoint.npz").exists() and progress.step == STEPS:
            shutil.copy(folder / "checkpoint.npz", middle)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pidgan.training.loop, "CHECKPOINT_SECONDS", 0.0)
        model = _train(
            kaon_dataset,
            name,
            steps=STEPS,
            directory=folder,
            progress=keep_checkpoint,
        )
    return name, model, middle


def test_every_family_is_tested() -> None:
    assert {*SMALL, "cramer"} == {*FAMILIES, *RECIPES}


def test_resumed_trainings_end_the_same(trained, kaon_dataset) -> None:
    name, model, middle = trained
    if name == "mmd":
        pytest.skip("the class of family 'energy'")
    resumed = _train(kaon_dataset, name, directory=middle, resume=True)
    assert resumed.card.steps == STEPS
    np.testing.assert_array_equal(
        _targets(resumed, kaon_dataset), _targets(model, kaon_dataset)
    )


def test_exports_equal_keras(trained, kaon_dataset, tmp_path: Path) -> None:
    name, model, _ = trained
    bundle = open_bundle(export_bundle(model, tmp_path / f"{name}.onnx"))
    found = check_parity(model, bundle)
    assert found.differing <= 1
    assert found.largest <= PARITY_TOLERANCE
    model.save(tmp_path / name)
    np.testing.assert_array_equal(
        _targets(open_model(tmp_path / name), kaon_dataset),
        _targets(model, kaon_dataset),
    )
    if CC is not None and name in OWN_OPERATORS:
        source = export_c(bundle, tmp_path / "kaon.c")
        program = [str(tmp_path / "kaon")]
        flags = ["-std=c99", "-O0", "-DPIDGAN_SELF_TEST", "-o", *program, str(source)]
        subprocess.run([CC, *flags, "-lm"], check=True)
        subprocess.run(program, check=True, capture_output=True)


def test_ties_are_exact_unless_the_recipe_has_none(trained, kaon_dataset) -> None:
    name, model, _ = trained
    y = _targets(model, kaon_dataset)
    assert np.isfinite(y).all()
    assert (y.std(axis=0) > 0.1).all()
    k, bt = (model.card.target_names.index(f"RichDLL{h}") for h in ("k", "bt"))
    real = kaon_dataset.part("test").targets
    ties, expected = (np.mean(v[:, k] == v[:, bt]) for v in (y, real))
    if name in RECIPES:
        assert ties < 0.02 < expected
    else:
        assert 0.02 < ties < 0.9
        tied = y[:, k] == y[:, bt]
        assert np.abs(y[:, k] - y[:, bt])[~tied].min() > 1e-6


@pytest.mark.parametrize("name", SMALL)
def test_weights_depend_on_the_seed_alone(name: str) -> None:
    shape = Shape(n_conditions=2, n_patterns=0, n_targets=3)

    def variables(seed: int) -> list[np.ndarray]:
        family = make_family(name, shape=shape, settings=SMALL[name], seed=seed)
        return [v.numpy() for v in family.variables]

    for first, second in zip(variables(1), variables(1), strict=True):
        np.testing.assert_array_equal(first, second)
    assert any(
        not np.array_equal(first, other)
        for first, other in zip(variables(1), variables(2), strict=True)
    )


KERNELS = {
    "energy": minus_distance,
    "gaussian": mixture_kernel("gaussian", [0.5, 1.0]),
    "breit_wigner": mixture_kernel("breit_wigner", [0.5, 1.0]),
}


def _score(kernel, mean: float, width: float, w: np.ndarray) -> float:
    rng = np.random.default_rng(3)
    y = tf.constant(rng.normal(size=(len(w), 2)), tf.float32)
    samples = tf.constant(rng.normal(mean, width, (4, len(w), 2)), tf.float32)
    return float(kernel_score(kernel, y, samples, tf.constant(w, tf.float32)))


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_kernel_scores_are_least_for_the_truth(kernel) -> None:
    ones = np.ones(20_000)
    truth = _score(kernel, 0, 1, ones)
    assert truth < _score(kernel, 0.3, 1, ones) < _score(kernel, 1, 1, ones)
    assert truth < _score(kernel, 0, 0.7, ones)
    assert truth < _score(kernel, 0, 1.4, ones)


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_kernel_scores_are_linear_in_signed_weights(kernel) -> None:
    w = np.random.default_rng(4).normal(size=500)
    one, other = _score(kernel, 0, 1, w), _score(kernel, 0, 1, 1 - 2 * w)
    assert other + 2 * one == pytest.approx(_score(kernel, 0, 1, w * 0 + 1), rel=1e-4)


def test_the_energy_score_has_a_bound_where_weights_are_negative() -> None:
    shape = Shape(n_conditions=1, n_patterns=0, n_targets=2)
    settings = SMALL["energy"] | {"learning_rate": 2e-3}
    family = make_family("energy", shape=shape, settings=settings, seed=1)
    y = tf.random.stateless_normal((128, 2), seed=(1, 2))
    batch = {
        "x": tf.zeros((128, 1)),
        "pattern": tf.zeros((128, 0)),
        "free": tf.ones((128, 2)),
        "y": y,
        "w": -tf.ones(128),
        "positive_w": tf.ones(128),
    }
    step = tf.function(
        lambda i: family.step(batch, phase="fit", seed=tf.stack([3, i]), rate=1.0)
    )
    for i in range(300):
        step(tf.constant(i))
    generated = draw(family.generator, batch, n_noise=16, copies=2, seed=(5, 6))
    assert np.abs(generated).max() < 2 * np.abs(y).max()


def test_kernels_on_one_row() -> None:
    a, b = tf.constant([[3.0, 0.0]]), tf.constant([[0.0, 4.0]])
    gaussian, breit_wigner = (
        float(KERNELS[name](a, b)[0]) for name in ("gaussian", "breit_wigner")
    )
    assert float(minus_distance(a, b)[0]) == pytest.approx(-5)
    assert gaussian == pytest.approx((np.exp(-50) + np.exp(-12.5)) / 2, rel=1e-4)
    assert breit_wigner == pytest.approx((0.25 / 25.25 + 1 / 26) / 2, rel=1e-5)


def test_wrong_choices_are_named(kaon_dataset) -> None:
    cases = (
        ({"family": "energi"}, {}, "closest: 'energy'"),
        ({"family": "maevskiy2019"}, {}, "is a recipe"),
        ({"recipe": "maevskiy"}, {}, "closest: 'maevskiy2019'"),
        ({"family": "energy"}, {"samples": 1}, "expected at least 2"),
        ({"family": "mmd"}, {"kernel": "gausian"}, "closest: 'gaussian'"),
        ({"family": "mmd"}, {"smallest_scale": 0.0}, "above 0"),
        ({"family": "wgan_gp"}, {"critic_updates": 0}, "expected at least 1"),
        ({"recipe": "maevskiy2019"}, {"begin": 2.0}, "a share from 0 to 1"),
        ({"family": "mmd"}, {"width": "64k"}, "expected a number"),
        ({"family": "mmd"}, {"kernel": 3}, "expected a name"),
        ({"family": "vae"}, {"n_noise": 3}, "has no setting 'n_noise'"),
    )
    for kind, settings, message in cases:
        with pytest.raises(PidganError, match=message):
            train(kaon_dataset, steps=1, settings=settings, **kind)
    with pytest.raises(ValueError, match="not both"):
        train(kaon_dataset, steps=1, family="energy", recipe="maevskiy2019")
