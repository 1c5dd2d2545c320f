"""Rows of each bundle of a collection use the map of that bundle."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import Run
from toy_collection import rows, write_bundles, write_collection, write_rows
from toy_generator import location

import pidgan
from pidgan.application.apply import apply
from pidgan.bundle.bundle import open_bundle
from pidgan.bundle.collecting import collect
from pidgan.efficiency.pid_efficiency import PidEfficiencies, write_efficiency_columns
from pidgan.errors import MapError
from pidgan.files.tables import Source, read_columns

pytest.importorskip("onnx")

CUT = "DLLk > 3"
KEY = ("runNumber", "eventNumber")
BINS = {"P": (3000, 30_000, 100_000), "ETA": (1.5, 5.0)}
REFERENCE = 3000
ENTRIES = 4000

Key = tuple[int, int, int]


def reference(seed: int, offset: float) -> pd.DataFrame:
    """Real tracks, whose targets are larger than those of a bundle without offset."""
    rng = np.random.default_rng(seed)
    x = np.stack(
        [rng.uniform(5e3, 9e4, REFERENCE), rng.uniform(2, 4.5, REFERENCE)], axis=1
    )
    y = location(x) + offset + rng.standard_normal((REFERENCE, 2))
    names = ("P", "ETA", "DLLk", "DLLp")
    return pd.DataFrame(dict(zip(names, [*x.T, *y.T], strict=True))).assign(weight=1.0)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kaons of both charges and polarities: bundles, maps, a collection, an ntuple."""
    folder = tmp_path_factory.mktemp("maps")
    bundles = write_bundles(folder / "bundles", species=(321,), years=(2017,))
    collect([folder / "bundles"], folder / "kaons.toml")
    (folder / "maps").mkdir()
    for number, (key, path) in enumerate(bundles.items()):
        found = pidgan.run_systematics(
            open_bundle(path),
            # The generator is wrong by another amount in each bundle.
            reference(number, number + 0.1 * (number + 1)),
            cuts=[CUT, "DLLp > 3"] if number else ["DLLp > 3", CUT],
            binning=BINS,
            repeats=2,
        )
        found.save(folder / "maps" / f"{key[0]}_{key[1]}.json")
    rng = np.random.default_rng(9)
    content = rows(ENTRIES, K_TRUEID=rng.choice([321, -321, 211], ENTRIES).astype("i4"))
    content["weight"] = rng.uniform(-0.2, 1, ENTRIES)
    write_rows(folder / "a.root", content)
    apply({"K": folder / "kaons.toml"}, folder / "a.root", folder / "b.root", key=KEY)
    return folder


def test_a_bundle_without_reference_is_named(world: Path) -> None:
    bundle = next((world / "bundles").glob("*.onnx"))
    with pytest.raises(MapError, match=f"{re.escape(str(bundle))}: .*no reference"):
        pidgan.run_systematics(open_bundle(bundle), cuts=CUT, binning=BINS)


def keys_of(folder: Path) -> list[Key]:
    return [(i, p, 2017) for i in (321, -321) for p in (1, -1)]


def alone(world: Path, folder: Path, key: Key) -> tuple[PidEfficiencies, float]:
    """The efficiency of the rows of one bundle by its map, and their sum of weights."""
    content = rows(ENTRIES)
    names = [*content, "weight"]
    frame = read_columns(Source(str(world / "a.root"), "T"), names)
    mine = (frame["K_TRUEID"] == key[0]) & (frame["Polarity"] == key[1])
    skim = {name: frame[name][mine].to_numpy() for name in names}
    name = f"{'K+' if key[0] > 0 else 'K-'}_{'up' if key[1] > 0 else 'down'}_2017.onnx"
    path = write_rows(folder / f"{key[0]}_{key[1]}.root", skim)
    out = folder / f"out_{key[0]}_{key[1]}.root"
    apply({"K": world / "bundles" / name}, path, out, key=KEY)
    own = world / "maps" / f"{key[0]}_{key[1]}.json"
    found = pidgan.pid_efficiency({"K": own}, out, cuts=CUT, weights="weight")
    return found, float(skim["weight"].sum())


def test_the_whole_is_the_sum_of_independent_parts(world: Path, tmp_path: Path) -> None:
    found = pidgan.pid_efficiency(
        {"K": world / "maps"}, world / "b.root", cuts=CUT, weights="weight"
    )
    (one,) = found
    parts = [alone(world, tmp_path, key) for key in keys_of(world)]
    total = sum(w for _, w in parts)
    value = sum(w * part[0].value for part, w in parts) / total
    np.testing.assert_allclose(one.value, value, rtol=1e-12)
    assert one.n_rows == sum(part[0].n_rows for part, _ in parts)
    assert one.flags == ()
    for name in ("calibration", "transfer", "binning"):
        own = np.sqrt(sum((w * part[0].syst[name]) ** 2 for part, w in parts)) / total
        np.testing.assert_allclose(one.syst[name], own, rtol=1e-9)
    # In bins of a branch, each bin has its own maps only, and nothing is shared.
    binned = pidgan.pid_efficiency(
        {"K": world / "maps"},
        world / "b.root",
        cuts=CUT,
        weights="weight",
        binning={"Polarity": [-1.5, 0, 1.5]},
    )
    calibration = binned.covariances["calibration"]
    assert abs(calibration[0, 1]) < 1e-15
    pairs = zip(parts, keys_of(world), strict=True)
    up = [pair for pair, key in pairs if key[1] > 0]
    expected = sum(w * p[0].value for p, w in up) / sum(w for _, w in up)
    np.testing.assert_allclose(binned[1].value, expected, rtol=1e-12)
    # What two results share cancels in their ratio.
    ratio = found.estimates / found.estimates
    assert next(iter(ratio)).total < 1e-9


def test_the_truth_lies_within_the_uncertainty(world: Path) -> None:
    """The maps correct the error of each bundle, which differs."""
    from scipy.stats import norm

    frame = read_columns(
        Source(str(world / "b.root"), "T"), ["K_P", "K_ETA", "K_TRUEID", "Polarity"]
    )
    frame = frame[frame["K_TRUEID"].abs() == 321]
    offsets = {key[:2]: k + 0.1 * (k + 1) for k, key in enumerate(order(world))}
    pairs = zip(frame["K_TRUEID"], frame["Polarity"], strict=True)
    offset = np.array([offsets[pair] for pair in pairs])
    mean = location(frame[["K_P", "K_ETA"]].to_numpy())[:, 0] + offset
    truth = float(norm.sf(3, loc=mean).mean())
    (one,) = pidgan.pid_efficiency({"K": world / "maps"}, world / "b.root", cuts=CUT)
    assert abs(one.value - truth) < 3 * one.total
    assert abs(one.generated - truth) > 3 * one.total


def order(world: Path) -> list[Key]:
    """Keys in the order in which the bundles were made."""
    return [(s * 321, p, 2017) for p in (1, -1) for s in (1, -1)]


def test_maps_that_are_missing_are_named(world: Path, tmp_path: Path, run: Run) -> None:
    maps = [*sorted((world / "maps").glob("*.json"))]
    with pytest.raises(MapError, match=r"\d+ rows were generated by .*K-_down.* wh"):
        pidgan.pid_efficiency(
            {"K": [m for m in maps if m.stem != "-321_-1"]}, world / "b.root", cuts=CUT
        )
    # Maps of one charge are enough for the tracks of that charge.
    kaons = [m for m in maps if m.stem.startswith("321")]
    found = pidgan.pid_efficiency({"K": kaons}, world / "b.root", cuts=CUT)
    ids = read_columns(Source(str(world / "b.root"), "T"), ["K_TRUEID"])["K_TRUEID"]
    assert found[0].n_rows == np.count_nonzero(ids == 321)
    one = run("efficiency", world / "b.root", "--map", f"K={maps[0]}", "--cut", CUT)
    assert one.code == 1
    assert "there is no efficiency map among 1; run systematics" in one.err
    given = ("--map", f"K={world / 'maps'}", "--cut", CUT)
    both = run("efficiency", world / "b.root", *given)
    assert both.code == 0, both.err
    with pytest.raises(MapError, match="two maps are of the same bundle of K"):
        pidgan.pid_efficiency({"K": [maps[0], maps[0]]}, world / "b.root", cuts=CUT)
    with pytest.raises(MapError, match=r"no cut 'DLLk > 7'.* \(map of K., bundle"):
        pidgan.pid_efficiency({"K": maps}, world / "b.root", cuts="DLLk > 7")
    with pytest.raises(MapError, match="holds no efficiency map"):
        pidgan.pid_efficiency({"K": tmp_path}, world / "b.root", cuts=CUT)
    plain = write_rows(tmp_path / "plain.root", rows(50) | {"K_DLLk": np.ones(50)})
    with pytest.raises(MapError, match="no record says which bundle made which rows"):
        pidgan.pid_efficiency({"K": maps}, plain, cuts=CUT, trust=True)


def test_files_of_single_bundles_together(world: Path, tmp_path: Path) -> None:
    """Each file was made by a bundle of its own; no collection is needed."""
    for key in keys_of(world):
        alone(world, tmp_path, key)
    files = [str(tmp_path / f"out_{i}_{p}.root") for i, p, _ in keys_of(world)]
    given: dict[str, Any] = {"cuts": CUT, "weights": "weight"}
    (one,) = pidgan.pid_efficiency({"K": world / "maps"}, files, **given)
    (other,) = pidgan.pid_efficiency({"K": world / "maps"}, world / "b.root", **given)
    np.testing.assert_allclose(one.value, other.value, rtol=1e-12)
    np.testing.assert_allclose(one.total, other.total, rtol=1e-9)


@pytest.mark.filterwarnings("ignore:.*values of .* lie outside")
def test_columns_use_the_map_of_each_row(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "columns.root"
    write_efficiency_columns({"K": world / "maps"}, world / "b.root", out, cuts=CUT)
    names = ["K_P", "K_ETA", "K_TRUEID", "Polarity"]
    frame = read_columns(Source(str(world / "b.root"), "T"), names)
    found = read_columns(Source(str(out), "T"), ["K_PIDCalibEff", "K_PIDCalibErr"])
    assert found["K_PIDCalibEff"].notna().equals(frame["K_TRUEID"].abs() == 321)
    for key in keys_of(world):
        mine = (frame["K_TRUEID"] == key[0]) & (frame["Polarity"] == key[1])
        own = pidgan.EfficiencyMap.open(world / "maps" / f"{key[0]}_{key[1]}.json")
        number = own.cut_index(CUT)
        place = (frame["K_P"][mine] >= 30_000).to_numpy().astype(int)
        np.testing.assert_array_equal(
            found["K_PIDCalibEff"][mine], own.nominal[number][place]
        )
        np.testing.assert_allclose(
            found["K_PIDCalibErr"][mine], own.error[number][place], rtol=1e-12
        )


def test_gaps_are_rows_without_targets(world: Path, tmp_path: Path) -> None:
    content = read_columns(Source(str(world / "a.root"), "T"), [*rows(1), "weight"])
    frame = {name: content[name].to_numpy().copy() for name in content}
    frame["Polarity"][:200] = 0
    path = write_rows(tmp_path / "a.root", frame)
    out = tmp_path / "b.root"
    apply({"K": world / "kaons.toml"}, path, out, gaps="nan")
    with pytest.warns(pidgan.errors.PidganWarning, match="have no generated targets"):
        (one,) = pidgan.pid_efficiency({"K": world / "maps"}, out, cuts=CUT)
    kaons = np.abs(frame["K_TRUEID"]) == 321
    assert one.n_invalid == np.count_nonzero(kaons[:200])
    assert one.n_rows == np.count_nonzero(kaons[200:])


def test_files_of_two_collections(world: Path, tmp_path: Path) -> None:
    """Each tree says by itself which bundle made which rows."""
    up, down = (world / "bundles" / f"K+_{name}_2017.onnx" for name in ("up", "down"))
    outputs = []
    for number, (one, other) in enumerate(((up, down), (down, up))):
        path = write_collection(
            tmp_path / f"{number}.toml",
            {"run": "runNumber"},
            [(one, "run = [[0, 1999]]"), (other, "run = [[2000, 9000]]")],
        )
        outputs.append(tmp_path / f"{number}.root")
        apply({"K": path}, world / "a.root", outputs[-1])
    maps = [world / "maps" / f"321_{p}.json" for p in (1, -1)]
    (first,) = pidgan.pid_efficiency({"K": maps}, outputs[0], cuts=CUT)
    (both,) = pidgan.pid_efficiency({"K": maps}, outputs, cuts=CUT)
    assert both.n_rows == 2 * first.n_rows == 2 * ENTRIES
