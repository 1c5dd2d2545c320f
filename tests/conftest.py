"""Small data, a shortly trained model and its bundle, made once for all tests."""

import os
from pathlib import Path

# Before NumPy: every process of the tests has a core, and its threads would compete.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from command_line import run  # noqa: F401

from pidgan.files.tables import write_trees
from pidgan.files.xrootd import load_client
from pidgan.sample.building import build_dataset
from pidgan.sample.dataset import Dataset
from pidgan.simulation import ANALYSIS_TREE, simulate_analysis, simulate_calibration

# Test modules load TensorFlow in any order, and some the client of root:// by its name.
load_client()

CALIBRATION_TRACKS = 20_000
ANALYSIS_ENTRIES = 3_000
TRAINING_STEPS = 60


@pytest.fixture(scope="session")
def calibration_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calibration") / "kaon.root"
    write_trees(path, simulate_calibration("dstar_k", CALIBRATION_TRACKS, seed=7))
    return path


@pytest.fixture(scope="session")
def analysis_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("analysis") / "d2kpi.root"
    write_trees(path, {ANALYSIS_TREE: simulate_analysis(ANALYSIS_ENTRIES, seed=8)})
    return path


@pytest.fixture(scope="session")
def kaon_dataset(calibration_file: Path) -> Dataset:
    return build_dataset("sim_dstar_k", [calibration_file], seed=1)


@pytest.fixture(scope="session")
def kaon_model(kaon_dataset: Dataset):
    pytest.importorskip("tensorflow")
    from pidgan.training.loop import train

    return train(kaon_dataset, steps=TRAINING_STEPS, seed=3, settings={"xla": False})


@pytest.fixture(scope="session")
def kaon_bundle(kaon_model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pidgan.training.export import export_bundle

    return export_bundle(kaon_model, tmp_path_factory.mktemp("bundle") / "kaon.onnx")
