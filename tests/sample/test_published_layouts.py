"""Showers in the layouts of the CaloChallenge, of CaloGAN and of Geant4's Par04."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("h5py")

import h5py

from pidgan.application.shower_file import write_showers
from pidgan.bundle.card import Card, describe_variables
from pidgan.calorimeter.geometry_file import load_geometry
from pidgan.calorimeter.observables import challenge_features
from pidgan.cli import cli
from pidgan.errors import DatasetError, NtupleError, PidganError, PidganWarning
from pidgan.sample.building import build_dataset
from pidgan.sample.dataset import Dataset
from pidgan.sample.loading import load_sample

EXAMPLES = Path(__file__).parents[2] / "examples" / "showers"
RINGS = {"kind": "cylindrical", "n_r": 4, "r_max": 40, "n_alpha": 6, "thickness": 3}

pytestmark = pytest.mark.skipif(
    not EXAMPLES.is_dir(), reason="the examples are not part of a wheel"
)


class Copies:
    """A generator whose showers share the incident energy equally, but for noise."""

    def __init__(self, dataset: Dataset) -> None:
        sample = dataset.sample
        self.card = Card(
            detector=sample.detector,
            species=sample.species,
            conditions=describe_variables(sample.conditions, dataset.conditions),
            targets=describe_variables(sample.targets, dataset.targets),
            n_noise=1,
            sample=sample,
            family="pca",
            seed=1,
            steps=0,
        )

    def generate(self, conditions: Any, noise: Any) -> Any:
        n_cells = len(self.card.targets)
        share = np.exp(0.1 * noise) / n_cells
        return (conditions[:, :1] * share * np.ones(n_cells)).astype(np.float32)

    def reference(self) -> None:
        return None


def write_challenge(path: Path, n: int, n_cells: int, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    energy = np.exp(rng.uniform(np.log(1e3), np.log(1e6), (n, 1)))
    cells = energy * rng.dirichlet(np.full(n_cells, 0.1), n)
    with h5py.File(path, "w") as file:
        file["incident_energies"], file["showers"] = energy, cells
    return cells


def define(folder: Path, **changes: Any) -> Path:
    """A definition in the manner of dataset 2, with two layers."""
    text = (EXAMPLES / "calochallenge_2.toml").read_text()
    start = text.index("[cells.geometry]")
    layers = "kind = 'cylindrical', n_r = 4, r_max = 40, n_alpha = 6, thickness = 3"
    text = text[:start] + f"[cells.geometry]\nlayers = [{{{layers}, count = 2}}]\n"
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    path = folder / "rings.toml"
    path.write_text(text)
    return path


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    write_challenge(tmp_path / "rings.hdf5", 300, 48)
    return build_dataset(define(tmp_path), [tmp_path / "rings.hdf5"], seed=1)


@pytest.mark.parametrize(
    ("name", "n_cells"), [("1_photons", 368), ("1_pions", 533), ("2", 6480)]
)
def test_files_of_the_challenge_are_read(
    name: str, n_cells: int, tmp_path: Path
) -> None:
    path = tmp_path / "showers.hdf5"
    cells = write_challenge(path, 60, n_cells)
    found = build_dataset(EXAMPLES / f"calochallenge_{name}.toml", [path], seed=1)
    assert found.targets.shape == (60, n_cells)
    assert np.allclose(np.sort(found.targets.sum(axis=1)), np.sort(cells.sum(axis=1)))


def test_the_largest_geometry_has_the_cells_of_the_challenge() -> None:
    layout = load_sample(EXAMPLES / "calochallenge_3.toml").cells.layout  # type: ignore[union-attr]
    assert layout.n_cells == 40_500
    assert layout.layers[0].fast[1] == pytest.approx(2.325)


def test_layers_of_calogan_are_one_view(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    energy = rng.uniform(1, 100, (50, 1))
    shapes = ((3, 96), (12, 12), (12, 6))
    with h5py.File(tmp_path / "eplus.hdf5", "w") as file:
        file["energy"] = energy
        for i, shape in enumerate(shapes):
            file[f"layer_{i}"] = 100.0 * (i + 1) * rng.random((50, *shape))
        stored = [file[f"layer_{i}"][:] for i in range(3)]
    found = build_dataset(EXAMPLES / "calogan.toml", [tmp_path / "eplus.hdf5"], seed=1)
    order = np.argsort(energy[:, 0])
    own = np.argsort(found.conditions[:, 0])
    assert np.allclose(found.conditions[own, 0], 1000 * energy[order, 0])
    whole = np.concatenate([one.reshape(50, -1) for one in stored], axis=1)
    assert np.allclose(found.targets[own], whole[order], rtol=1e-6)
    view = found.sample.cells.layout.views[0]  # type: ignore[union-attr]
    assert [layer.shape for layer in view.layers] == list(shapes)
    wrong = (EXAMPLES / "calogan.toml").read_text().replace('"layer_2"', '"layer_7"')
    (tmp_path / "wrong.toml").write_text(wrong)
    with pytest.raises(PidganError, match="layer_7"):
        build_dataset(tmp_path / "wrong.toml", [tmp_path / "eplus.hdf5"])


def test_showers_of_par04_are_ordered_by_layer(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    shape, path = (18, 50, 45), tmp_path / "SiW_angle_70.h5"
    with h5py.File(path, "w") as file:
        for energy, n in ((64, 3), (2, 5)):
            file[str(energy)] = (energy / 100 * rng.random((n, *shape))).astype("f4")
        stored = np.concatenate([file["2"][:], file["64"][:]])
    with pytest.warns(PidganWarning, match="theta = 1.22173"):
        found = build_dataset(EXAMPLES / "par04.toml", [path], shares=(0.4, 0.2, 0.4))
    energies, counts = np.unique(found.conditions[:, 0], return_counts=True)
    assert energies.tolist() == [2000, 64000]
    assert counts.tolist() == [5, 3]
    # The cell of ring 3, sector 7 and layer 11, of all showers.
    cell = (11 * 50 + 7) * 18 + 3
    assert np.allclose(
        np.sort(found.targets[:, cell]), np.sort(stored[:, 3, 7, 11]), rtol=1e-6
    )
    assert np.allclose(
        np.sort(found.targets.sum(axis=1)), np.sort(stored.sum(axis=(1, 2, 3)))
    )


def test_written_showers_are_read_back(dataset: Dataset, tmp_path: Path) -> None:
    made = Copies(dataset)
    path = write_showers(made, dataset, tmp_path / "out.hdf5", entries=250, seed=3)
    with h5py.File(path) as file:
        assert set(file) == {"incident_energies", "showers"}
        energy, cells = file["incident_energies"], file["showers"]
        assert (energy.shape, energy.dtype) == ((250, 1), np.float64)
        assert (cells.shape, cells.dtype) == ((250, 48), np.float64)
        conditions = dataset.part("test").conditions
        rows = np.arange(250) % len(conditions)
        assert np.array_equal(energy[:, 0], conditions[rows, 0])
        ratio = cells[:].sum(axis=1) / energy[:, 0]
        assert np.std(np.log(ratio)) == pytest.approx(0.1, rel=0.2)
        first = cells[:]
    again = build_dataset(define(tmp_path), [path], seed=1)
    assert np.allclose(
        np.sort(again.targets.sum(axis=1)), np.sort(first.sum(axis=1)), rtol=1e-6
    )
    # The same seed gives the same showers, other numbers of them the same first ones.
    fewer = write_showers(made, dataset, tmp_path / "few.hdf5", entries=20, seed=3)
    with h5py.File(fewer) as file:
        assert np.array_equal(file["showers"][:], first[:20])


def test_showers_are_exported_on_the_command_line(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pidgan.cli import exporting

    folder, bundle = tmp_path / "data", tmp_path / "model.onnx"
    dataset.save(folder)
    bundle.write_bytes(b"")
    monkeypatch.setattr(exporting, "open_given", lambda path: Copies(dataset))
    kind = ["--format", "hdf5-showers"]
    out = ["-o", str(tmp_path / "s.hdf5"), "--dataset", str(folder)]
    done = CliRunner().invoke(
        cli, ["export", "demo-kaon", *kind, *out, "--showers", "7"]
    )
    assert done.exit_code == 0, done.output
    with h5py.File(tmp_path / "s.hdf5") as file:
        assert file["showers"].shape == (7, 48)
    new = ["-o", str(tmp_path / "t.hdf5"), "--dataset", str(folder)]
    for options, message in (
        ([*kind, "-o", str(tmp_path / "t.hdf5")], "needs --dataset"),
        ([*kind, *new, "--name", "f"], "--name needs --format c"),
        ([*kind, "-o", "x.onnx", "--dataset", str(folder)], ".hdf5"),
        (["-o", "x.onnx", "--showers", "3"], "need --format hdf5-showers"),
        ([*kind, *out], "exists"),
    ):
        done = CliRunner().invoke(cli, ["export", "demo-kaon", *options])
        assert done.exit_code in (1, 2)
        assert message in f"{done.output}{done.exception}", options


def test_what_does_not_fit_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    made = Copies(dataset)
    with pytest.raises(ValueError, match=r"out\.root.*hdf5"):
        write_showers(made, dataset, tmp_path / "out.root")
    with pytest.raises(ValueError, match="entries is 0, expected"):
        write_showers(made, dataset, tmp_path / "out.hdf5", entries=0)
    path = define(tmp_path, unit=("count = 2", "count = 1"))
    write_challenge(tmp_path / "other.hdf5", 300, 24)
    other = build_dataset(path, [tmp_path / "other.hdf5"])
    with pytest.raises(DatasetError, match=r"48 cells.*24 cells"):
        write_showers(made, other, tmp_path / "out.hdf5")
    write_showers(made, dataset, tmp_path / "out.hdf5")
    with pytest.raises(NtupleError, match=r"out\.hdf5 exists"):
        write_showers(made, dataset, tmp_path / "out.hdf5")


@pytest.mark.parametrize("name", ["1_photons", "2"])
def test_features_are_those_of_the_challenge(name: str) -> None:
    layout = load_sample(EXAMPLES / f"calochallenge_{name}.toml").cells.layout  # type: ignore[union-attr]
    rng = np.random.default_rng(3)
    cells = rng.exponential(size=(20, layout.n_cells))
    cells[rng.random(cells.shape) < 0.5] = 0
    found = challenge_features(cells, layout)
    assert np.allclose(found["E_tot"], cells.sum(axis=1))
    start = 0
    for layer in layout.layers:
        e = cells[:, start : start + layer.n_cells]
        start += layer.n_cells
        edges = np.array(layer.fast)
        n_alpha, middle = layer.shape[0], (edges[1:] + edges[:-1]) / 2
        alpha = -np.pi + (np.arange(n_alpha) + 0.5) * 2 * np.pi / n_alpha
        r = np.tile(middle, n_alpha)
        axes = {"r": r}
        if n_alpha > 1:
            around = np.repeat(alpha, len(middle))
            axes |= {"etas": r * np.cos(around), "phis": r * np.sin(around)}
        for axis, at in axes.items():
            mean = (at * e).sum(axis=1) / (e.sum(axis=1) + 1e-16)
            square = (at**2 * e).sum(axis=1) / (e.sum(axis=1) + 1e-16)
            width = np.sqrt((square - mean**2).clip(min=0))
            assert np.allclose(found[f"EC_{axis}[{layer.name}]"], mean, atol=1e-9)
            assert np.allclose(found[f"width_{axis}[{layer.name}]"], width, atol=1e-3)
        assert np.allclose(found[f"E_layers[{layer.name}]"], e.sum(axis=1))
        empty = 1 - (e > 0).mean(axis=1)
        assert np.allclose(found[f"sparsity[{layer.name}]"], empty)
        assert (f"EC_etas[{layer.name}]" in found) == (n_alpha > 1)
    flat = load_geometry({"layers": [{"kind": "rectangular", "cell": [1, 1]}]})
    with pytest.raises(ValueError, match="is rectangular; the features of the Calo"):
        challenge_features(np.ones((2, 1)), flat)
