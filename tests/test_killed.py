"""A run that is killed before any operation on files leaves the old or the new state.

Each output of the package is written over an older one and into a new place, killed
before every operation in turn, read, and written again. Models and bundles are in
`tests/training/test_killed_trainings.py`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import uproot
from killing import Output, kill_everywhere
from toy_generator import make_card, toy_onnx, with_self_test
from toy_map import make_map

from pidgan.application.apply import apply
from pidgan.application.quantile_map import QuantileMap
from pidgan.bundle.bundle import open_bundle
from pidgan.bundle.c_file import export_c
from pidgan.efficiency.columns import write_efficiency_columns
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.table import efficiency_table
from pidgan.efficiency.table_files import save_tables
from pidgan.files.tables import find_sources, read_columns, write_trees
from pidgan.files.writing import writing_folder
from pidgan.sample.building import build_dataset
from pidgan.sample.dataset import Dataset

DEFINITION = """
schema = 1
title = "Toy kaons"
detector = "toy"
species = "K+"
source = "this test"
weight_branch = "sw"
conditions = [{name = "P", branch = "K_P", unit = "MeV", range = [3e3, 200e3]}]
targets = [{name = "DLL", branch = "K_DLL", range = [-150, 150]}]
"""


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small inputs: two bundles, an ntuple and two calibration files."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "own.toml").write_text(DEFINITION)
    rng = np.random.default_rng(1)
    n = 200
    for which in range(2):
        card = with_self_test(make_card(seed=1 + which))
        (folder / f"{which}.onnx").write_bytes(toy_onnx(card))
        rows = {"K_P": rng.uniform(5e3, 9e4, n), "K_DLL": rng.normal(0, 9, n)}
        rows["sw"] = rng.choice([1.2, -0.3], n)
        write_trees(folder / f"calib{which}.root", {"T": rows})
        make_map(seed=which).save(folder / f"map{which}.json")
    tracks = {"K_P": rng.uniform(5e3, 9e4, n), "K_ETA": rng.uniform(2, 4.5, n)}
    write_trees(folder / "mc.root", {"T": tracks})
    return folder


def _columns(path: Path, names: list[str]) -> Any:
    if not path.exists():
        return None
    (source,) = find_sources(path)
    return read_columns(source, names).to_numpy().tolist()


def _text(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def simulated(inputs: Path) -> Output:
    def write(folder: Path, which: int, overwrite: bool) -> None:
        trees = {"T": {"x": np.arange(5.0) + which}}
        write_trees(folder / "a.root", trees, overwrite=overwrite)

    return Output(write, lambda folder: _columns(folder / "a.root", ["x"]))


def prepared(inputs: Path) -> Output:
    def write(folder: Path, which: int, overwrite: bool) -> None:
        dataset = build_dataset(inputs / "own.toml", inputs / f"calib{which}.root")
        dataset.save(folder / "ds", overwrite=overwrite)

    def read(folder: Path) -> Any:
        if not (folder / "ds").exists():
            return None
        dataset = Dataset.open(folder / "ds")
        return dataset.targets.tolist(), dataset.weights.tolist(), dataset.info["hash"]

    return Output(write, read)


def applied(inputs: Path) -> Output:
    def write(folder: Path, which: int, overwrite: bool) -> None:
        tracks = {"K": inputs / "0.onnx"}
        output, seed = folder / "out.root", 1 + which
        apply(tracks, inputs / "mc.root", output, seed=seed, overwrite=overwrite)
        manifest = json.loads((folder / "out.root.json").read_text())
        assert manifest["request"]["seed"] == seed

    return Output(write, lambda folder: _columns(folder / "out.root", ["K_DLLk"]))


def columns(inputs: Path) -> Output:
    def write(folder: Path, which: int, overwrite: bool) -> None:
        maps = {"K": inputs / f"map{which}.json"}
        options = {"cuts": ["K_DLLk > 0"], "overwrite": overwrite, "trust": True}
        write_efficiency_columns(
            maps, inputs / "mc.root", folder / "eff.root", **options
        )

    names = ["PIDCalibEff", "PIDCalibErr"]
    return Output(write, lambda folder: _columns(folder / "eff.root", names))


def mapped(inputs: Path) -> Output:
    def write(folder: Path, which: int, overwrite: bool) -> None:
        make_map(seed=which).save(folder / "map.json", overwrite=overwrite)

    def read(folder: Path) -> Any:
        if not (folder / "map.json").exists():
            return None
        found = EfficiencyMap.open(folder / "map.json")
        return found.nominal.tolist(), found.error.tolist()

    return Output(write, read)


def tabulated(suffix: str) -> Callable[[Path], Output]:
    def make(inputs: Path) -> Output:
        def write(folder: Path, which: int, overwrite: bool) -> None:
            rows = {"P": np.linspace(1, 9, 80), "DLL": np.arange(80) % (5 + which) - 2}
            bins = {"P": (0.0, 5.0, 10.0)}
            table = efficiency_table(pd.DataFrame(rows), ["DLL > 0"], binning=bins)
            tables = {"efficiency": table}
            path = folder / f"table{suffix}"
            save_tables(path, table.frame(), tables, overwrite=overwrite)

        def read(folder: Path) -> Any:
            path = folder / f"table{suffix}"
            if not path.exists():
                return None
            if suffix == ".root":
                with uproot.open(path) as file:
                    return file["efficiency_1"].values().tolist()
            kind = pd.read_csv if suffix == ".csv" else pd.read_parquet
            return kind(path)["efficiency"].tolist()

        return Output(write, read)

    return make


def quantiles(inputs: Path) -> Output:
    def write(folder: Path, which: int, overwrite: bool) -> None:
        found = QuantileMap(simulation=(0.0, 1.0), data=(0.0, 2.0 + which))
        found.save(folder / "q.json", overwrite=overwrite)

    def read(folder: Path) -> Any:
        path = folder / "q.json"
        return QuantileMap.open(path).data if path.exists() else None

    return Output(write, read)


def c_file(inputs: Path) -> Output:
    def write(folder: Path, which: int, overwrite: bool) -> None:
        bundle = open_bundle(inputs / f"{which}.onnx")
        export_c(bundle, folder / "kaon.c", overwrite=overwrite)

    return Output(write, lambda folder: _text(folder / "kaon.c"))


def paged(inputs: Path) -> Output:
    """A report: the page says everything, and figures beside it repeat a part."""
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    from pidgan.report.report import Section, write_page

    def write(folder: Path, which: int, overwrite: bool) -> None:
        beside: Any = {"report.json": f"{which}", "report.png": f"{which}".encode()}
        sections = [Section(title="One", text=f"page {which}")]
        write_page(
            folder / "report", "Page", sections, beside=beside, overwrite=overwrite
        )

    def read(folder: Path) -> Any:
        text = _text(folder / "report" / "report.html")
        if text is None:
            return None
        which = text.partition("page ")[2][0]
        beside = {_text(folder / "report" / f"report.{end}") for end in ("json", "png")}
        assert beside <= {which, None}
        return which

    return Output(write, read)


def demonstrated(inputs: Path) -> Output:
    """The folder of a demo, of which the mark is written last."""

    def write(folder: Path, which: int, overwrite: bool) -> None:
        with writing_folder(
            folder / "demo", mark="demo.json", overwrite=overwrite
        ) as work:
            (work / "data").mkdir()
            (work / "data" / "a").write_text(f"{which}")
            (work / "demo.json").write_text(f"{which}")

    def read(folder: Path) -> Any:
        both = [_text(folder / "demo" / name) for name in ("data/a", "demo.json")]
        assert both[0] == both[1]
        return both[0]

    return Output(write, read)


KINDS = {
    "simulate": simulated,
    "prepare": prepared,
    "apply": applied,
    "efficiency --columns": columns,
    "systematics": mapped,
    "quantile-map": quantiles,
    "export --c": c_file,
    **{f"table {end}": tabulated(end) for end in (".csv", ".parquet", ".root")},
    "validate": paged,
    "demo": demonstrated,
}


@pytest.mark.filterwarnings("ignore:.*NOT PROVEN")  # of ntuples of the simulation
@pytest.mark.parametrize("overwrite", [False, True], ids=["new", "overwrite"])
@pytest.mark.parametrize("kind", KINDS)
def test_killed_before_any_operation(
    kind: str, overwrite: bool, inputs: Path, tmp_path: Path
) -> None:
    output = KINDS[kind](inputs)
    assert kill_everywhere(output, tmp_path, overwrite=overwrite) >= 2
