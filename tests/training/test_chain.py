"""Chains: trained link by link, exported as one function of conditions and noise."""

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import Run
from command_line import one_line as _one_line

pytest.importorskip("tensorflow")

import pidgan
from pidgan.bundle.c_file import export_c
from pidgan.bundle.card import sample_targets
from pidgan.errors import PidganError, PidganWarning, TrainingError
from pidgan.sample.dataset import Dataset
from pidgan.sample.definition import Sample
from pidgan.training.chain import Chain, chain_of, link_shares, of_link
from pidgan.training.conditions import fit_conditions
from pidgan.training.export import check_parity
from pidgan.training.families import Energy
from pidgan.training.loop import train
from pidgan.training.model import open_model
from pidgan.training.record import Progress
from pidgan.training.separate_links import join_links
from pidgan.training.setup import choose_family, set_up

N = 6000
STEPS = 360
DEFINITION: dict[str, Any] = {
    "schema": 1,
    "name": "probnn",
    "title": "A chain of three",
    "detector": "toy",
    "species": "K+",
    "source": "none",
    "unweighted": True,
    "conditions": [
        {"name": "P", "range": (3, 100), "transform": "log"},
        {"name": "ETA", "range": (1, 6)},
    ],
    "targets": [
        {"name": "DLLK", "range": (-150, 150), "sentinels": [-999]},
        {"name": "nHits", "range": (0, 50), "integer": True},
        {"name": "isMuon", "categories": [0, 1]},
        {"name": "ProbNN", "range": (0, 1), "sentinels": [-2]},
    ],
    "links": [
        {"name": "rich", "targets": ["DLLK", "nHits"]},
        {"name": "muon", "targets": ["isMuon"]},
        {"name": "probnn", "targets": ["ProbNN"]},
    ],
    "cuts": ["isMuon == 1 & DLLK > 0"],
}
TWO = [
    {"name": "first", "targets": ["DLLK", "nHits", "isMuon"]},
    {"name": "second", "targets": ["ProbNN"]},
]


def simulated(n: int, seed: int) -> pd.DataFrame:
    """ProbNN is close to a function of DLLK, and its sentinel is that of DLLK."""
    rng = np.random.default_rng(seed)
    p, eta = rng.uniform(3, 100, n), rng.uniform(1, 6, n)
    dll = 10 - 0.1 * p + rng.standard_t(4, n) * 6
    muon = rng.random(n) < 1 / (1 + np.exp(-dll / 4))
    prob = 1 / (1 + np.exp(-dll / 5 - 0.3 * rng.normal(size=n)))
    missing = rng.random(n) < 0.1
    return pd.DataFrame(
        {
            "P": p,
            "ETA": eta,
            "DLLK": np.where(missing, -999, np.clip(dll, -140, 140)),
            "nHits": rng.poisson(12, n).clip(0, 40),
            "isMuon": muon,
            "ProbNN": np.where(missing, -2, prob),
        }
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("chain") / "rows.parquet"
    simulated(N, 1).to_parquet(path)
    return pidgan.build_dataset(Sample.model_validate(DEFINITION), path)


@pytest.fixture(scope="module")
def pair(dataset: Dataset) -> Dataset:
    """The same rows as a chain of two links."""
    sample = Sample.model_validate(DEFINITION | {"links": TWO})
    return dataclasses.replace(dataset, sample=sample)


@pytest.fixture(scope="module")
def untrained(dataset: Dataset) -> Chain:
    models = []
    for k in range(3):
        part = of_link(dataset, k)
        settings = choose_family("distilled", None, {}, part.sample)
        setup = set_up(part, settings, seed=1 + k)
        models.append(setup.model(settings, steps=0, history={"step": []}))
    held_out = dataset.frame("test")
    return chain_of(dataset.sample, models, info=dataset.info, held_out=held_out)


@pytest.fixture(scope="module")
def trained(pair: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "model"
    settings = {"xla": False, "teacher_width": 32, "teacher_blocks": 1}
    model = train(pair, directory=folder, steps=STEPS, settings=settings, seed=3)
    model.save(folder)
    return folder


def noise_of(chain: Chain, n: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, chain.card.n_noise)).astype(np.float32)


def test_each_link_is_its_own_model(untrained: Chain, dataset: Dataset) -> None:
    part = dataset.part("test")
    x, z = part.conditions, noise_of(untrained, len(part.conditions))
    made = untrained.generate(x, z)
    known, start = x, 0
    for link in untrained.links:
        names = link.card.condition_names
        assert names == (*dataset.sample.condition_names, *names[2:])
        n = link.card.n_noise
        alone = link.generate(known, z[:, start : start + n])
        known, start = np.hstack([known, alone]), start + n
    np.testing.assert_array_equal(made, known[:, x.shape[1] :])
    assert start == untrained.card.n_noise
    # With real earlier targets, a link is a model as any other.
    last = untrained.links[-1]
    real = of_link(dataset, 2).part("test")
    alone = last.generate(real.conditions, z[:, -last.card.n_noise :])
    assert alone.shape == (len(x), 1)
    assert np.isfinite(alone).all()


def test_one_bundle_and_one_c_function(untrained: Chain, tmp_path: Path) -> None:
    path = pidgan.export_bundle(untrained, tmp_path / "chain.onnx")
    bundle = pidgan.open_bundle(path)
    assert bundle.card.target_names == ("DLLK", "nHits", "isMuon", "ProbNN")
    parity = check_parity(untrained, bundle)
    assert parity.differing <= 1e-4 * parity.rows
    x = untrained.held_out[["P", "ETA"]]
    y = bundle.generate(x, seed=1)
    assert set(y["isMuon"]) == {0.0, 1.0}
    assert (y["nHits"] == np.rint(y["nHits"])).all()
    assert {-999.0} == set(y["DLLK"][y["DLLK"] < -150])
    assert {-2.0} == set(y["ProbNN"][y["ProbNN"] < 0])
    assert "link          muon: isMuon; distilled, 0 steps, seed 2" in bundle.text()
    compiler = shutil.which("cc")
    if compiler is not None:
        source = export_c(bundle, tmp_path / "chain.c")
        program = tmp_path / "chain"
        flags = ["-std=c99", "-O1", "-DPIDGAN_SELF_TEST", "-o", str(program)]
        subprocess.run([compiler, *flags, str(source), "-lm"], check=True)
        done = subprocess.run([str(program)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_saved_chain_is_the_same(untrained: Chain, tmp_path: Path) -> None:
    untrained.save(tmp_path / "model")
    again = open_model(tmp_path / "model")
    x = untrained.held_out[["P", "ETA"]].to_numpy(np.float32)[:500]
    z = noise_of(untrained, len(x))
    np.testing.assert_array_equal(again.generate(x, z), untrained.generate(x, z))
    assert again.card == untrained.card
    with pytest.raises(PidganError, match="exists"):
        untrained.save(tmp_path / "model")
    (tmp_path / "model" / "link_2.npz").write_bytes(b"PK")
    with pytest.raises(TrainingError, match="is damaged"):
        open_model(tmp_path / "model")


def test_training_reproduces_what_links_have_in_common(
    trained: Path, pair: Dataset
) -> None:
    chain = open_model(trained)
    assert isinstance(chain, Chain)
    real = pair.frame("test")
    x = real[["P", "ETA"]].to_numpy()
    y = sample_targets(chain, x, seed=5)
    made = pd.DataFrame(y, columns=list(pair.sample.target_names))
    # Sentinels of two links come together, and the boolean follows the likelihood.
    assert ((made["DLLK"] == -999) == (made["ProbNN"] == -2)).mean() > 0.99
    for frame in (real, made):
        frame["passes"] = (frame["isMuon"] == 1) & (frame["DLLK"] > 0)
    error = np.sqrt(0.5 / len(real))
    assert made["passes"].mean() == pytest.approx(real["passes"].mean(), abs=5 * error)
    ranks = [
        frame.loc[frame["DLLK"] > -999, ["DLLK", "ProbNN"]].corr("spearman").iloc[0, 1]
        for frame in (real, made)
    ]
    assert ranks[0] > 0.9
    assert ranks[1] > 0.85
    shares = link_shares(pair.sample)
    steps = [link.steps for link in chain.card.links]
    assert steps == [round(STEPS * share) for share in shares]
    assert chain.card.steps == sum(steps)
    assert [link.seed for link in chain.card.links] == [3, 13]
    lengths = {len(values) for values in chain.history.values()}
    assert lengths == {len(chain.history["step"])}


def test_an_interrupted_training_is_continued(pair: Dataset, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "family": Energy(width=8, blocks=1, samples=2, xla=False),
        "steps": 40,
        "seed": 3,
    }
    seen: list[str] = []

    def stop(progress: Progress) -> None:
        seen.append(progress.phase.split(":")[0])
        if progress.phase.startswith("link 2") and progress.step > 2:
            raise KeyboardInterrupt

    x, folder = pair.part("test").conditions[:300], tmp_path / "model"
    whole = train(pair, **options)
    with pytest.raises(KeyboardInterrupt):
        train(pair, directory=folder, progress=stop, **options)
    assert list(dict.fromkeys(seen)) == ["link 1 of 2, first", "link 2 of 2, second"]
    with pytest.raises(TrainingError, match="train with --resume to finish it"):
        open_model(folder)
    again = options | {"directory": folder, "resume": True}
    with pytest.raises(TrainingError, match="a training with 40 steps, now 70 steps"):
        train(pair, **(again | {"steps": 70}))
    resumed = train(pair, **(again | {"steps": None}))
    np.testing.assert_array_equal(
        sample_targets(resumed, x, seed=1), sample_targets(whole, x, seed=1)
    )
    path = folder / "chain.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"steps": 61}))
    with pytest.raises(TrainingError, match=r"chain\.json is damaged"):
        train(pair, **(again | {"steps": None}))


def test_verbs_on_a_chain(run: Run, trained: Path, pair: Dataset) -> None:
    folder = trained.parent
    pair.save(folder / "data")
    assert run("export", trained, "-o", folder / "c.onnx").code == 0
    inspected = run("inspect", folder / "c.onnx")
    assert "link          first: DLLK, nHits, isMuon; distilled, " in inspected.out
    refined = run("refine", trained, folder / "data", "-o", folder / "r.onnx")
    _one_line(refined, "is a chain")


def test_conditions_by_quantiles() -> None:
    rng = np.random.default_rng(1)
    heavy = rng.standard_t(2, 5000).astype(np.float32)
    heavy[:500], heavy[500:1000] = -999, 0
    flag = (rng.random(5000) < 0.3).astype(np.float32)
    count = rng.poisson(20, 5000).astype(np.float32)
    x = np.stack([flag, heavy, count, np.full(5000, 7, np.float32)], axis=1)
    transform = fit_conditions(
        x, ["quantiles"] * 4, sentinels=[(), (-999, -1000), (), ()]
    )
    columns = transform.forward(x)
    assert columns.shape == (5000, 1 + 3 + 1 + 1)
    np.testing.assert_array_equal(columns[:, 0], flag)
    np.testing.assert_array_equal(columns[:, 1], heavy == -999)
    np.testing.assert_array_equal(columns[:, 2], heavy == 0)
    score = columns[1000:, 3]
    order = np.argsort(heavy[1000:])
    assert (np.diff(score[order]) >= 0).all()
    assert np.abs(score).max() <= 3
    assert score.mean() == pytest.approx(0, abs=0.1)
    assert score.std() == pytest.approx(1, abs=0.1)
    assert (columns[:1000, 3] == 0).all()
    # Beyond the rows of the training it is that of the last of these.
    far = x[:2].copy()
    far[:, 1] = (-1e30, 1e30)
    np.testing.assert_array_equal(transform.forward(far)[:, 3], [-3, 3])
    assert not transform.is_own.any()
    assert transform.dimension == 0
    again = type(transform).from_arrays(transform.to_arrays())
    np.testing.assert_array_equal(again.forward(x), columns)
    before = dataclasses.replace(transform)
    assert set(fit_conditions(x[:, :3], ["linear"] * 3).to_arrays()) == {
        f"condition_{name}" for name in ("source", "code", "centre", "scale")
    }
    assert before.n_columns == 6


def test_links_of_different_samples_are_joined(
    untrained: Chain, tmp_path: Path
) -> None:
    joined = join_links(untrained.links)
    x = untrained.held_out[["P", "ETA"]].to_numpy(np.float32)[:200]
    z = noise_of(untrained, len(x))
    np.testing.assert_array_equal(joined.generate(x, z), untrained.generate(x, z))
    names = [link.name for link in joined.card.links]
    assert names == ["1 probnn", "2 probnn", "3 probnn"]
    first, muon, _ = untrained.links
    held_out = untrained.held_out.drop(columns=["isMuon", "ProbNN"])
    apart = dataclasses.replace(first, held_out=held_out)
    with pytest.warns(PidganWarning, match="no rows have all targets"):
        pidgan.export_bundle(join_links([apart, muon]), tmp_path / "two.onnx")
    assert pidgan.open_bundle(tmp_path / "two.onnx").reference() is None

    def changed(where: int, **update: Any) -> Any:
        conditions = list(muon.card.conditions)
        conditions[where] = conditions[where].model_copy(update=update)
        card = muon.card.model_copy(update={"conditions": tuple(conditions)})
        return dataclasses.replace(muon, card=card)

    pion = muon.card.model_copy(update={"species": "pi+"})
    for wrong, message in (
        ([first], "expected two or more links, got 1"),
        ([first, first], "the target 'DLLK', which is a condition or an earlier"),
        ([muon, first], "the target 'DLLK', which is a condition or an earlier"),
        ([first, dataclasses.replace(muon, card=pion)], "species 'pi.', expected 'K."),
        ([first, changed(2, name="DLLk")], "the condition 'DLLk', .*closest: 'DLLK'"),
        ([first, changed(0, unit="GeV")], "'P' of link 'probnn' has unit 'GeV', but"),
        ([first, changed(2, sentinels=())], "does not know the sentinels -999"),
        ([first, changed(2, range=(500.0, 600.0))], "was trained in 500 to 600, but"),
    ):
        with pytest.raises(TrainingError, match=message):
            join_links(wrong)
    with pytest.warns(PidganWarning, match="'DLLK' of link 'probnn' was trained in -3"):
        join_links([first, changed(2, range=(-3.0, 3.0))])
