"""Correctors: the map, its formula, the bundle, the verbs, and what else takes one."""

import dataclasses
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import Run
from scipy.stats import spearmanr
from toy_generator import make_card, make_sample, toy_onnx, with_self_test

pytest.importorskip("tensorflow")

import pidgan
from pidgan.bundle.card import SIMULATED, sample_targets
from pidgan.errors import BundleError, NtupleError, TrainingError
from pidgan.files.tables import find_sources, read_columns, write_trees
from pidgan.sample.building import build_dataset
from pidgan.sample.dataset import Dataset
from pidgan.training.correction import fit_transforms
from pidgan.training.correction_map import changed_pattern
from pidgan.training.export import check_parity
from pidgan.training.targets.tracks_forward import see

SETTINGS = {"width": 12, "blocks": 1, "bins": 6, "batch_size": 256}
CUT = "DLLk > 1"
INPUTS = ["K_P", "K_ETA", "K_DLLk", "K_DLLp"]


def draw(n: int, *, seed: int, simulated: bool) -> dict[str, np.ndarray]:
    """Tracks with ties, an atom and sentinels, which differ in data and simulation."""
    rng = np.random.default_rng(seed)
    p = np.minimum(3e3 + rng.gamma(2.0, 1e4, n), 9.9e4)
    eta = rng.uniform(1.6, 4.9, n)
    hidden = rng.standard_normal(n)
    scale, shift = (1.0, 0.0) if simulated else (1.4, 0.5)
    k = 3.0 - 3e-5 * p + shift + scale * (rng.standard_normal(n) + hidden) / 1.4
    other = k - 1 + rng.standard_normal(n)
    tied = rng.random(n) < np.where(p < 2e4, 0.3, 0.05) * (1.0 if simulated else 0.6)
    zero = rng.random(n) < (0.02 if simulated else 0.05)
    lost = rng.random(n) < 0.01
    other = np.where(tied, k, other)
    k, other = (np.where(zero, 0.0, v) for v in (k, other))
    k, other = (np.where(lost, -999.0, v) for v in (k, other))
    event = hidden + rng.standard_normal(n)
    found = {"P": p, "ETA": eta, "DLLk": k, "DLLp": other, "event": event}
    return {name: values.astype(np.float32) for name, values in found.items()}


def definition() -> Any:
    targets = [
        {"name": "DLLk", "range": [-200, 200], "sentinels": [-999.0]},
        {"name": "DLLp", "range": [-200, 200], "sentinels": [-999.0]},
    ]
    plain = make_sample(targets=targets)
    update = {
        kind: [
            {**v.model_dump(exclude_defaults=True), "branch": f"K_{v.name}"}
            for v in getattr(plain, kind)
        ]
        for kind in ("conditions", "targets")
    }
    return make_sample(**update)


def branches(n: int, **given: Any) -> dict[str, np.ndarray]:
    return {f"K_{name}": values for name, values in draw(n, **given).items()}


@pytest.fixture(scope="module")
def datasets() -> dict[str, Dataset]:
    rows = {
        name: pd.DataFrame(branches(6000, seed=k, simulated=bool(k)))
        for k, name in enumerate(("data", "simulation"))
    }
    return {n: build_dataset(definition(), r, progress=False) for n, r in rows.items()}


@pytest.fixture(scope="module")
def corrector(datasets: dict[str, Dataset]) -> pidgan.Corrector:
    return pidgan.train_corrector(
        datasets["data"],
        datasets["simulation"],
        steps=40,
        settings=SETTINGS,
        progress=False,
    )


@pytest.fixture(scope="module")
def bundle(
    corrector: pidgan.Corrector, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("corrector") / "k.onnx"
    return pidgan.export_bundle(corrector, path, progress=False)


@pytest.fixture(scope="module")
def ntuple(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ntuple") / "mc.root"
    columns = branches(3000, seed=9, simulated=True)
    columns["K_DLLk"][:3] = np.nan, 190.0, -999.0  # the last alone is in no pattern
    columns["K_DLLp"][2] = 0.7
    write_trees(path, {"DecayTree": columns | {"run": np.arange(3000) % 7}})
    return path


def columns_of(path: Path, *names: str) -> np.ndarray:
    (source,) = find_sources([path])
    return read_columns(source, list(names)).to_numpy()


# The map


def test_patterns_change_as_little_as_they_can() -> None:
    rng = np.random.default_rng(1)
    n, p, q = 200_000, np.array([0.5, 0.3, 0.2, 0.0]), np.array([0.35, 0.3, 0.25, 0.1])
    k = rng.choice(4, n, p=p)
    codes, noise = np.eye(4)[k], rng.standard_normal((n, 1))
    everywhere = [np.tile(v, (n, 1)) for v in (p, q)]
    new = changed_pattern(codes, *everywhere, noise).argmax(axis=1)
    shares = np.bincount(new, minlength=4) / n
    assert np.allclose(shares, q, atol=4e-3)
    assert (new != k).mean() == pytest.approx(np.abs(p - q).sum() / 2, abs=4e-3)
    assert (new[k == 1] == 1).all()
    assert (new[k == 2] == 2).all()


def test_formula_is_the_transform(datasets: dict[str, Dataset]) -> None:
    found = fit_transforms(datasets["data"], datasets["simulation"])
    transform: Any = found.targets
    y = datasets["simulation"].targets
    pattern, expected = transform.forward(y)
    seen = see(transform, y, [(-999.0,), (-999.0,)])
    fits = seen.codes.sum(axis=1) > 0.5
    assert fits.mean() > 0.99
    assert np.array_equal(seen.codes.argmax(axis=1)[fits], pattern[fits])
    np.testing.assert_allclose(seen.y[fits], expected[fits], atol=2e-4)
    back = transform.inverse(seen.y, seen.codes, datasets["simulation"].conditions)
    inside = fits & (np.abs(seen.y) < 2.5).all(axis=1)
    np.testing.assert_allclose(back[inside], y[inside], atol=2e-3)
    alone = np.array([[-999.0, 0.7]], dtype=np.float32)
    assert see(transform, alone, [(-999.0,), (-999.0,)]).codes.sum() == 0


def test_simulation_like_data_is_left_as_it_is(
    corrector: pidgan.Corrector, datasets: dict[str, Dataset]
) -> None:
    same = dataclasses.replace(corrector, simulation=corrector.data)
    part = datasets["data"].part("test")
    x = np.hstack([part.conditions, part.targets])
    y = sample_targets(same, x, seed=3)
    far = np.abs(y - part.targets) > 2e-3 * np.maximum(1, np.abs(part.targets))
    assert far.any(axis=1).mean() < 0.01
    on_atom = np.isin(part.targets, (0.0, -999.0))
    assert np.array_equal(y[on_atom], part.targets[on_atom])


def test_ties_and_atoms_are_exact_and_ranks_are_kept(
    corrector: pidgan.Corrector,
) -> None:
    columns = draw(20_000, seed=21, simulated=True)
    x = np.stack([columns[n] for n in ("P", "ETA", "DLLk", "DLLp")], axis=1)
    y = sample_targets(corrector, x, seed=1)
    assert np.isfinite(y).all()
    was_tied, is_tied = (v[:, 0] == v[:, 1] for v in (x[:, 2:], y))
    distance = np.abs(y[:, 0] - y[:, 1])
    assert distance[~is_tied].min() > 1e-6
    # A pattern that is kept keeps the order of the values at like conditions.
    both = ~was_tied & ~is_tied & (np.abs(columns["P"] - 2e4) < 2e3)
    assert spearmanr(x[both, 2], y[both, 0]).statistic > 0.97


# The model and the bundle


def test_saved_corrector_is_the_same(
    corrector: pidgan.Corrector, tmp_path: Path
) -> None:
    corrector.save(tmp_path / "model")
    opened = pidgan.open_model(tmp_path / "model")
    assert isinstance(opened, pidgan.Corrector)
    rows = corrector.held_out[list(corrector.card.input_names)].to_numpy()[-500:]
    first, second = (sample_targets(m, rows, seed=2) for m in (corrector, opened))
    assert np.array_equal(first, second, equal_nan=True)
    assert "simulation likelihood" in corrector.history
    (tmp_path / "model" / "data.npz").write_bytes(b"PK")
    with pytest.raises(TrainingError, match="damaged"):
        pidgan.open_model(tmp_path / "model")


@pytest.mark.skipif("PIDGAN_TOYS" not in os.environ, reason="trains once more")
def test_the_same_seed_gives_the_same_corrector(
    corrector: pidgan.Corrector, datasets: dict[str, Dataset]
) -> None:
    again = pidgan.train_corrector(
        datasets["data"],
        datasets["simulation"],
        steps=40,
        settings=SETTINGS,
        progress=False,
    )
    for name, values in corrector.data.arrays().items():
        assert np.array_equal(values, again.data.arrays()[name])


def test_bundle_is_the_model(corrector: pidgan.Corrector, bundle: Path) -> None:
    opened = pidgan.open_bundle(bundle)
    assert opened.card.schema_version == 7
    assert opened.card.ports == {"conditions": 2, SIMULATED: 2, "noise": 3}
    found = check_parity(corrector, opened)
    assert found.differing <= 1
    assert "corrector" in opened.text()
    frame = opened.reference()
    assert frame is not None
    assert set(frame[SIMULATED]) == {0, 1}


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a C compiler")
def test_c_file_passes_its_self_test(bundle: Path, tmp_path: Path) -> None:
    source = pidgan.export_c(bundle, tmp_path / "kcorr.c")
    words = ["gcc", "-std=c99", "-O0", "-DPIDGAN_SELF_TEST", source, "-o"]
    subprocess.run([*words, tmp_path / "test", "-lm"], check=True)
    done = subprocess.run([tmp_path / "test"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# Ntuples


def test_chunks_threads_and_frames_give_the_same(bundle: Path, ntuple: Path) -> None:
    names = ("K_DLLk_corr", "K_DLLp_corr", "K_pidgan_status_corr")
    found = []
    for k, chunk in enumerate((None, 333)):
        out = ntuple.with_name(f"out{k}.root")
        pidgan.correct({"K": bundle}, ntuple, out, chunk=chunk, progress=False)
        found.append(columns_of(out, *names))
    frame = read_columns(find_sources([ntuple])[0], INPUTS)
    made = pidgan.correct({"K": bundle}, frame, progress=False)
    found.append(made[list(names)].to_numpy())
    assert np.array_equal(found[0], found[1], equal_nan=True)
    assert np.array_equal(found[0], found[2].astype(found[0].dtype), equal_nan=True)
    values, status = found[0][:, :2], found[0][:, 2].astype(int)
    # Not a number; beyond the trained range; a sentinel where none belongs.
    assert [status[0] & 2, status[1] & 1, status[2] & 2] == [2, 1, 2]
    assert np.isnan(values[[0, 2]]).all()
    assert np.isfinite(values[3:]).all()


def test_dry_run_names_the_simulated_branches(
    bundle: Path, ntuple: Path, run: Run
) -> None:
    out = ntuple.with_name("none.root")
    done = run("correct", "--track", f"K={bundle}", ntuple, "-o", out, "--dry-run")
    assert "DLLk = K_DLLk" in done.out
    assert "K_DLLk_corr" in done.out
    assert not out.exists()


def test_corrected_values_replace_simulated_ones(
    bundle: Path, ntuple: Path, run: Run
) -> None:
    out, beside = (ntuple.with_name(n) for n in ("replaced.root", "beside.root"))
    words = ["--track", f"K={bundle}", ntuple, "-o"]
    done = run("correct", *words, out, "--mode", "replace", "--suffix", "")
    assert "with corrected values" in done.out
    assert "generated" not in done.out
    run("correct", *words, beside)
    expected = columns_of(beside, "K_DLLk_corr")
    assert np.array_equal(columns_of(out, "K_DLLk"), expected, equal_nan=True)


def test_keys_make_it_independent_of_the_order(bundle: Path, ntuple: Path) -> None:
    frame = read_columns(find_sources([ntuple])[0], INPUTS)
    frame["event"] = np.arange(len(frame))
    given: dict[str, Any] = {"key": ["event"], "progress": False}
    first = pidgan.correct({"K": bundle}, frame, **given)
    second = pidgan.correct({"K": bundle}, frame[::-1], **given)[::-1]
    assert np.array_equal(first["K_DLLk_corr"], second["K_DLLk_corr"], equal_nan=True)


def test_generators_and_correctors_do_not_stand_for_each_other(
    bundle: Path, ntuple: Path, tmp_path: Path
) -> None:
    generator = tmp_path / "g.onnx"
    generator.write_bytes(toy_onnx(with_self_test(make_card())))
    with pytest.raises(NtupleError, match=r"is a corrector.*use `pidgan correct`"):
        pidgan.apply({"K": bundle}, ntuple, tmp_path / "a.root", progress=False)
    with pytest.raises(NtupleError, match=r"is a generator.*use `pidgan apply`"):
        pidgan.correct({"K": generator}, ntuple, tmp_path / "a.root", progress=False)
    with pytest.raises(BundleError, match="a corrector, expected generators"):
        pidgan.collect([bundle], tmp_path / "c.toml")


def test_missing_simulated_branch_is_named(bundle: Path, ntuple: Path) -> None:
    frame = read_columns(find_sources([ntuple])[0], ["K_P", "K_ETA", "K_DLLk"])
    with pytest.raises(NtupleError, match="no column for condition DLLp of K"):
        pidgan.correct({"K": bundle}, frame, progress=False)


# Judging


@pytest.mark.filterwarnings("ignore:cut .* fewer than 20")
def test_map_of_the_corrected_simulation_serves_its_ntuples(
    bundle: Path, ntuple: Path, run: Run
) -> None:
    path, out = ntuple.with_name("map.json"), ntuple.with_name("for_map.root")
    done = run("systematics", bundle, "--cut", CUT, "--binning", "P=4", "-o", path)
    assert done.code == 0, done.err
    run("correct", "--track", f"K={bundle}", ntuple, "-o", out)
    done = run("efficiency", out, "--map", f"K={path}", "--json")
    assert done.code == 0, done.err
    (one,) = json.loads(done.out)["results"]
    real = draw(100_000, seed=33, simulated=False)["DLLk"] > 1
    assert abs(one["value"] - real.mean()) < 4 * one["total"] < 0.15
    done = run("efficiency", ntuple, "--map", f"K={path}", "--json")
    assert done.code == 1
    assert "no proof" in done.err


def test_table_and_validation_take_a_corrector(
    bundle: Path, datasets: dict[str, Dataset]
) -> None:
    found = pidgan.closure_table(bundle, cuts=CUT, binning={"P": 2})
    assert np.isfinite(found.difference).all()


# Bad input


def cases() -> Iterator[tuple[dict[str, Any], str]]:
    targets = [v.model_dump(exclude_defaults=True) for v in definition().targets]
    yield {"species": "pi+"}, r"has species 'pi\+', expected 'K\+'"
    yield {"targets": targets[::-1]}, "has the targets DLLp, DLLk, expected DLLk, DLLp"
    other = [{**t, "name": f"{t['name']}x"} for t in targets]
    yield (
        {"targets": other, "cuts": []},
        "has none of the targets 'DLLk'.*closest: 'DLLkx'",
    )
    plain = [{k: v for k, v in t.items() if k != "sentinels"} for t in targets]
    yield {"targets": plain}, "DLLk has sentinels .* in the simulation"


@pytest.mark.parametrize(("change", "problem"), list(cases()))
def test_samples_that_do_not_fit_are_refused(
    datasets: dict[str, Dataset], change: dict[str, Any], problem: str
) -> None:
    sample = make_sample(
        **{
            "targets": definition().model_dump(exclude_defaults=True, by_alias=True)[
                "targets"
            ],
            **change,
        }
    )
    other = dataclasses.replace(datasets["simulation"], sample=sample)
    with pytest.raises(TrainingError, match=problem):
        pidgan.train_corrector(datasets["data"], other, steps=1, progress=False)


def test_a_dataset_is_not_its_own_simulation(datasets: dict[str, Dataset]) -> None:
    data = datasets["data"]
    with pytest.raises(TrainingError, match="the same dataset"):
        pidgan.train_corrector(data, data, steps=1, progress=False)


def test_reference_is_needed_for_a_map(bundle: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.onnx"
    shutil.copy(bundle, alone)
    with pytest.raises(pidgan.MapError, match="has no reference file beside it"):
        pidgan.run_systematics(alone, cuts=CUT, progress=False)
