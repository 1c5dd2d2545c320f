"""sWeights of another file: each row gets its own, or an error says which do not."""

import importlib.util
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import Run, one_line

from pidgan.errors import DatasetError, NtupleError, PidganWarning, SampleError
from pidgan.files.tables import find_sources, write_table, write_trees
from pidgan.sample.building import build_dataset
from pidgan.sample.dataset import Dataset
from pidgan.sample.definition import Sample
from pidgan.sample.weight_file import WeightFile
from pidgan.sample.weight_pairs import weight_path

TREE = "DstToD0Pi_D0ToKPi/DecayTree"
NAME = "00199935_00000001_1.pid_tuple"
RANKS = {"file": "{stem}_sweights.root", "order": ["Dst_M - D_M", "D_M"]}
KEYS = {"file": "{stem}_sweights.root", "match": ["RUNNUMBER", "EVENTNUMBER"]}
ROWS = {"file": "{stem}_sweights.root", "match": "entry"}

Columns = dict[str, Any]


def definition(sweights: Mapping[str, Any], **more: Any) -> Sample:
    return Sample.model_validate(
        {
            "schema": 1,
            "name": "own",
            "title": "Kaons of a toy",
            "detector": "toy",
            "species": "K+",
            "source": "this test",
            "sweights": sweights,
            "conditions": [{"name": "P", "range": [1e3, 2e5]}],
            "targets": [
                {"name": "row", "range": [-1, 1e7]},
                {"name": "DLLk", "range": [-500, 500]},
            ],
            **more,
        }
    )


def tuple_rows(n: int = 1000, *, seed: int = 1, first: int = 0) -> Columns:
    """Return a tuple in which `row` numbers the rows, in single precision."""
    rng = np.random.default_rng(seed)
    mass = rng.normal(1864, 9, n).astype(np.float32)
    return {
        "row": np.arange(first, first + n, dtype=np.float64),
        "P": rng.uniform(5e3, 1e5, n),
        "DLLk": rng.normal(5, 10, n).astype(np.float32),
        "D_M": mass,
        "Dst_M": mass + rng.normal(145.4, 1, n).astype(np.float32),
        "RUNNUMBER": rng.integers(290_000, 290_009, n).astype(np.uint32),
        "EVENTNUMBER": (2**60 + rng.permutation(n)).astype(np.uint64),
    }


def weights_of(columns: Columns) -> Any:
    """Return weights as a fit gives them: of the masses, and NaN outside."""
    delta = (columns["Dst_M"] - columns["D_M"]).astype(np.float64) - 145.4
    return np.where(np.abs(delta) < 1.2, 1.1 - 1.3 * delta**2, np.nan)


def weight_rows(columns: Columns, *, seed: int = 2) -> Columns:
    """Return the weights of a tuple in another order, with ranks and keys."""
    masses = pd.DataFrame(
        {"delta": columns["Dst_M"] - columns["D_M"], "mass": columns["D_M"]}
    )
    by_rank = masses.sort_values(["delta", "mass"]).index.to_numpy()
    n = len(by_rank)
    moved = np.random.default_rng(seed).permutation(n)
    rows = by_rank[moved]  # of the tuple, by row of the file with the weights
    return {
        "order_index": np.arange(n)[moved],
        "sweight": weights_of(columns)[rows],
        "RUNNUMBER": columns["RUNNUMBER"][rows],
        "EVENTNUMBER": columns["EVENTNUMBER"][rows],
    }


def write(folder: Path, columns: Columns, weights: Columns) -> Path:
    path = folder / f"{NAME}.root"
    write_trees(path, {TREE: columns}, overwrite=True)
    other = folder / f"{NAME}_sweights.root"
    write_trees(other, {TREE: weights}, overwrite=True)
    return path


def assert_own_weights(dataset: Dataset, expected: Any) -> None:
    rows = dataset.targets[:, 0].astype(int)
    np.testing.assert_array_equal(rows, np.flatnonzero(~np.isnan(expected)))
    np.testing.assert_array_equal(dataset.weights, expected[rows])


@pytest.mark.parametrize("sweights", [RANKS, KEYS], ids=["ranks", "keys"])
def test_each_row_gets_its_weight(tmp_path: Path, sweights: Mapping[str, Any]) -> None:
    columns = tuple_rows()
    path = write(tmp_path, columns, weight_rows(columns))
    dataset = build_dataset(definition(sweights), path)
    expected = weights_of(columns)
    assert_own_weights(dataset, expected)
    (file,) = dataset.info["files"]
    assert file["sweights"] == f"{tmp_path / NAME}_sweights.root:{TREE}"
    n = int(np.isnan(expected).sum())
    assert dataset.info["dropped"] == {"no sWeight": n}
    assert f"dropped {n}: no sWeight" in dataset.text()
    assert "weights: sweight of {stem}_sweights.root, matched by" in dataset.text()
    saved = Dataset.open(dataset.save(tmp_path / "dataset"))
    assert saved.sample == dataset.sample
    assert saved.info["files"] == [file]


def test_row_by_row(tmp_path: Path) -> None:
    columns = tuple_rows()
    expected = weights_of(columns)
    path = write(tmp_path, columns, {"sweight": expected.astype(np.float32)})
    dataset = build_dataset(definition(ROWS), path)
    np.testing.assert_array_equal(
        dataset.weights, expected[~np.isnan(expected)].astype(np.float32)
    )


def test_trees_files_and_formats(tmp_path: Path) -> None:
    """Two trees of many baskets, and a Parquet file, each sorted by itself."""
    import uproot

    parts = [tuple_rows(700, seed=s, first=700 * s) for s in range(3)]
    trees = ("Plus/DecayTree", "Minus/DecayTree")
    with (
        uproot.recreate(tmp_path / "b1.x.root") as file,
        uproot.recreate(tmp_path / "b1.x_sweights.root") as other,
    ):
        for tree, part in zip(trees, parts[:2], strict=True):
            for new, columns in ((file, part), (other, weight_rows(part))):
                new.mktree(tree, {name: a.dtype for name, a in columns.items()})
                for first in range(0, 700, 150):
                    new[tree].extend(
                        {name: a[first : first + 150] for name, a in columns.items()}
                    )
    write_table(tmp_path / "b2.parquet", pd.DataFrame(parts[2]))
    write_trees(tmp_path / "b2_sweights.root", {"sw": weight_rows(parts[2])})
    expected = np.concatenate([weights_of(part) for part in parts])
    sample = definition(RANKS, trees=trees)
    # The files with the weights, which the pattern finds too, are no tuples.
    patterns = [tmp_path / "b1*.root", tmp_path / "*.parquet"]
    dataset = build_dataset(sample, patterns)
    assert_own_weights(dataset, expected)
    moved = tmp_path / "weights"
    moved.mkdir()
    for weights in tmp_path.glob("*_sweights.root"):
        weights.rename(moved / weights.name)
    again = build_dataset(sample, patterns, sweights_from=moved)
    assert again.info["hash"] == dataset.info["hash"]
    with pytest.raises(
        NtupleError, match=r"b1.x_sweights.root does not exist.*from names"
    ):
        build_dataset(sample, patterns)
    with pytest.raises(NtupleError, match=r"sweights_from: .* is no such folder"):
        build_dataset(sample, patterns, sweights_from=tmp_path / "none")
    with pytest.raises(NtupleError, match="is a file, expected a folder"):
        build_dataset(
            sample, patterns, sweights_from=patterns[0].with_name("b1.x.root")
        )


def test_an_empty_tree_has_no_weights(tmp_path: Path) -> None:
    columns = tuple_rows()
    tables = (columns, weight_rows(columns))
    for table, name in zip(tables, (NAME, f"{NAME}_sweights"), strict=True):
        empty = {key: array[:0] for key, array in table.items()}
        write_trees(
            tmp_path / f"{name}.root", {"a/T": empty, "b/T": table, "c/T": empty}
        )
    for how in (RANKS, KEYS):
        sample = definition(how, trees=["a/T", "b/T", "c/T"])
        dataset = build_dataset(sample, tmp_path / f"{NAME}.root")
        assert_own_weights(dataset, weights_of(columns))
        assert [file["rows"] for file in dataset.info["files"]] == [0, 1000, 0]
        with pytest.raises(DatasetError, match="no rows left"):
            build_dataset(definition(how, trees=["a/T"]), tmp_path / f"{NAME}.root")


def test_selection_after_the_match(tmp_path: Path) -> None:
    columns = tuple_rows()
    path = write(tmp_path, columns, weight_rows(columns))
    expected = np.where(columns["DLLk"] > 5, weights_of(columns), np.nan)
    dataset = build_dataset(definition(RANKS, selection="DLLk > 5"), path)
    assert_own_weights(dataset, expected)
    assert set(dataset.info["dropped"]) == {"selection", "no sWeight"}


def test_keys_of_selected_rows_only(tmp_path: Path) -> None:
    """A fit of selected rows needs no weights for the others."""
    columns = tuple_rows()
    weights = weight_rows(columns)
    kept = np.isin(weights["EVENTNUMBER"], columns["EVENTNUMBER"][columns["P"] > 5e4])
    less = {name: array[kept] for name, array in weights.items()}
    path = write(tmp_path, columns, less)
    dataset = build_dataset(definition(KEYS, selection="P > 5e4"), path)
    expected = np.where(columns["P"] > 5e4, weights_of(columns), np.nan)
    assert_own_weights(dataset, expected)
    first = int(np.flatnonzero(columns["P"] <= 5e4)[0])
    with pytest.raises(SampleError, match=rf"lacks the keys of \d+ rows \({first}, "):
        build_dataset(definition(KEYS), path)


def test_one_file_of_keys_for_many_tuples(tmp_path: Path) -> None:
    columns = tuple_rows(900)
    for k in range(3):
        part = {name: a[300 * k : 300 * (k + 1)] for name, a in columns.items()}
        write_trees(tmp_path / f"t{k}.root", {TREE: part})
    write_trees(tmp_path / "all.root", {"sw": weight_rows(columns)})
    sample = definition(KEYS | {"file": "all.root"})
    dataset = build_dataset(sample, tmp_path / "*.root")
    assert_own_weights(dataset, weights_of(columns))
    with pytest.warns(PidganWarning, match="no row of the tuple has the keys of 300 r"):
        build_dataset(sample, [tmp_path / "t0.root", tmp_path / "t1.root"])
    write_trees(tmp_path / "t3.root", {TREE: part})
    with pytest.raises(SampleError, match=r"t3.root.*: 300 rows \(0, 1, 2, ...\) with"):
        build_dataset(sample, tmp_path / "t*.root")
    with pytest.raises(SampleError, match="would both have the weights"):
        build_dataset(definition(RANKS | {"file": "all.root"}), tmp_path / "t*.root")


def test_keys_of_other_types(tmp_path: Path) -> None:
    columns = tuple_rows()
    columns["EVENTNUMBER"] = columns["EVENTNUMBER"] - np.uint64(2**60)
    weights = weight_rows(columns)
    expected = weights_of(columns)
    for name in ("RUNNUMBER", "EVENTNUMBER"):
        weights[name] = weights[name].astype(np.float64)
    path = write(tmp_path, columns, weights)
    assert_own_weights(build_dataset(definition(KEYS), path), expected)
    whole = weight_rows(columns)
    columns["EVENTNUMBER"] = columns["EVENTNUMBER"].astype(np.float64)
    assert_own_weights(
        build_dataset(definition(KEYS), write(tmp_path, columns, whole)), expected
    )
    columns["EVENTNUMBER"][3] = 0.5
    path = write(tmp_path, columns, whole)
    with pytest.raises(SampleError, match=r"no whole number in row 3 \(0.5\)"):
        build_dataset(definition(KEYS), path)


def test_ties_with_equal_weights_are_harmless(tmp_path: Path) -> None:
    columns = tuple_rows()
    for name in ("D_M", "Dst_M"):
        columns[name] = np.round(columns[name]).astype(np.float32)
    path = write(tmp_path, columns, weight_rows(columns))
    dataset = build_dataset(definition(RANKS), path)
    assert_own_weights(dataset, weights_of(columns))
    ties = dataset.info["files"][0]["ties"]
    assert ties > 900
    assert f"ties: {ties} rows equal another one" in dataset.text()


def test_ties_with_different_weights(tmp_path: Path) -> None:
    columns = tuple_rows()
    for name in ("D_M", "Dst_M"):
        columns[name][[20, 700]] = columns[name][[10, 500]]
    weights = weight_rows(columns)
    rank = np.flatnonzero(weights["EVENTNUMBER"] == columns["EVENTNUMBER"][20])
    assert not np.isnan(weights["sweight"][rank])
    weights["sweight"][rank] += 0.5
    path = write(tmp_path, columns, weights)
    with pytest.raises(
        SampleError, match=r"different weights in 1 pairs: rows 10 and 20"
    ):
        build_dataset(definition(RANKS), path)
    dataset = build_dataset(definition(RANKS | {"ties": "file"}), path)
    expected = weights_of(columns)
    expected[20] += 0.5
    assert_own_weights(dataset, expected)


def test_nan_comes_last_as_in_pandas(tmp_path: Path) -> None:
    columns = tuple_rows()
    columns["D_M"][[3, 900]] = np.nan
    columns["Dst_M"][[5, 7]] = np.nan
    path = write(tmp_path, columns, weight_rows(columns))
    message = r"'Dst_M - D_M', by which .* NaN in 4 rows \(3, 5, 7, ...\)"
    with pytest.raises(SampleError, match=message + "; ties = 'file'"):
        build_dataset(definition(RANKS), path)
    sample = definition(RANKS | {"ties": "file"})
    with pytest.warns(PidganWarning, match="they come last") as caught:
        dataset = build_dataset(sample, path)
    assert len(caught) == 2
    assert_own_weights(dataset, weights_of(columns))


def _spoil(name: str, row: int, value: Any) -> Any:
    def spoil(columns: Columns, weights: Columns) -> None:
        table = columns if name in ("D_M", "Dst_M") else weights
        table[name] = table[name].astype(np.result_type(table[name], type(value)))
        table[name][row] = value

    return spoil


def _shorten(columns: Columns, weights: Columns) -> None:
    weights |= {name: array[:-3] for name, array in weights.items()}


def _rename(columns: Columns, weights: Columns) -> None:
    weights["index"] = weights.pop("order_index")


def _repeat(columns: Columns, weights: Columns) -> None:
    weights["order_index"][weights["order_index"] == 7] = 8


def _drop_branch(columns: Columns, weights: Columns) -> None:
    weights["sWeight"] = weights.pop("sweight")


def _drop_order(columns: Columns, weights: Columns) -> None:
    columns["Dstar_M"] = columns.pop("Dst_M")


def _lists(columns: Columns, weights: Columns) -> None:
    weights["sweight"] = np.stack([weights["sweight"]] * 2, axis=1)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_shorten, r"tuple.root:.* has 1000 rows, and .* weights for 997: expected as"),
        (_repeat, r"repeats ranks in 2 rows \(\d+ \(8\), .*lacks the rank 7; expected"),
        (
            _spoil("order_index", 4, 1000),
            r"out of range in row 4 \(1000\); .* 0 to 999",
        ),
        (_spoil("order_index", 5, -1), r"out of range in row 5 \(-1\)"),
        (_spoil("order_index", 5, 1.5), r"no whole number in row 5 \(1.5\)"),
        (_spoil("order_index", 5, np.nan), r"no whole number in row 5 \(nan\)"),
        (_spoil("D_M", 6, np.nan), r"'Dst_M - D_M', by which .* is NaN in row 6"),
        (_rename, "no branch 'order_index'; closest: 'index'; PIDCalib2 takes"),
        (_drop_branch, "no branch 'sweight'; closest: 'sWeight'"),
        (_drop_order, "tuple.root:.* has no branch 'Dst_M'; closest: 'Dstar_M'"),
        (_lists, r"'sweight' is of type .* expected one number per entry"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_does_not_belong_together(
    tmp_path: Path, spoil: Any, message: str
) -> None:
    columns = tuple_rows()
    weights = weight_rows(columns)
    spoil(columns, weights)
    path = write(tmp_path, columns, weights)
    with pytest.raises((SampleError, NtupleError), match=message) as caught:
        build_dataset(definition(RANKS), path)
    assert "\n" not in str(caught.value)


def test_infinite_order_variables_are_sorted(tmp_path: Path) -> None:
    columns = tuple_rows()
    columns["Dst_M"][5] = np.inf
    path = write(tmp_path, columns, weight_rows(columns))
    assert_own_weights(build_dataset(definition(RANKS), path), weights_of(columns))


def test_ranks_that_begin_elsewhere(tmp_path: Path) -> None:
    columns = tuple_rows()
    weights = weight_rows(columns)
    weights["order_index"] += 1
    path = write(tmp_path, columns, weights)
    with pytest.warns(PidganWarning, match="from 1 to 1000, expected 0 to 999; only"):
        dataset = build_dataset(definition(RANKS), path)
    assert_own_weights(dataset, weights_of(columns))


@pytest.mark.parametrize(
    ("side", "message"),
    [
        (
            0,
            r"tuple.root:.*: 2 rows \(3, 4\) with keys that another row has too, RUNNU",
        ),
        (1, r"sweights.root:.*: 2 rows \(3, 4\) with keys that another row has too, R"),
    ],
)
def test_repeated_keys(tmp_path: Path, side: int, message: str) -> None:
    tables = tuple_rows(), weight_rows(tuple_rows())
    for name in ("RUNNUMBER", "EVENTNUMBER"):
        tables[side][name][4] = tables[side][name][3]
    with pytest.raises(SampleError, match=message):
        build_dataset(definition(KEYS), write(tmp_path, *tables))


def test_keys_of_another_tuple(tmp_path: Path) -> None:
    columns = tuple_rows()
    less = {name: array[:-2] for name, array in columns.items()}
    path = write(tmp_path, less, weight_rows(columns))
    with pytest.raises(SampleError, match="no row of the tuple has the keys of 2 rows"):
        build_dataset(definition(KEYS), path)


def test_wrong_trees(tmp_path: Path) -> None:
    columns = tuple_rows()
    path = tmp_path / f"{NAME}.root"
    write_trees(path, {TREE: columns})
    weights = weight_rows(columns)
    other = tmp_path / f"{NAME}_sweights.root"
    write_trees(other, {"a/DecayTree": weights, "b/DecayTree": weights})
    with pytest.raises(SampleError, match="has the trees 'a/DecayTree', 'b/DecayTree'"):
        build_dataset(definition(RANKS), path)
    with pytest.raises(SampleError, match="no tree 'c/DecayTree'; its trees"):
        build_dataset(definition(RANKS | {"tree": "c/DecayTree"}), path)
    named = definition(RANKS | {"tree": "b/DecayTree"})
    assert_own_weights(build_dataset(named, path), weights_of(columns))
    write_trees(other, {"b/DecayTree": weights}, overwrite=True)
    assert_own_weights(build_dataset(definition(RANKS), path), weights_of(columns))
    with pytest.raises(SampleError, match="has a branch 'order_index', so its rows"):
        build_dataset(definition(ROWS), path)
    other.write_bytes(b"nothing")
    with pytest.raises(NtupleError, match="is not a ROOT file"):
        build_dataset(definition(RANKS), path)


def test_no_weight_at_all(tmp_path: Path) -> None:
    columns = tuple_rows()
    weights = weight_rows(columns)
    weights["sweight"][:] = np.nan
    path = write(tmp_path, columns, weights)
    with pytest.raises(
        DatasetError, match="no rows left; dropped for no sWeight: 1000"
    ):
        build_dataset(definition(RANKS), path)
    weights["sweight"][:] = -1
    with pytest.raises(DatasetError, match=r"the sum of 'sweight of .* is -1000"):
        build_dataset(definition(RANKS), write(tmp_path, columns, weights))


def test_a_place_without_sweights(tmp_path: Path) -> None:
    sample = definition(RANKS).model_copy(update={"sweights": None, "unweighted": True})
    path = write(tmp_path, tuple_rows(), weight_rows(tuple_rows()))
    with pytest.raises(SampleError, match="'own' has no 'sweights' in other files"):
        build_dataset(sample, path, sweights_from=tmp_path)


@pytest.mark.parametrize(
    ("path", "place", "expected"),
    [
        ("a/b.c.root", None, "a/b.c_w.root"),
        ("b.root", None, "b_w.root"),
        ("a/b.root", "x/y", "x/y/b_w.root"),
        ("root://h//a/b.c.root", None, "root://h//a/b.c_w.root"),
        ("root://h//a/b.root?k=1/2", None, "root://h//a/b_w.root?k=1/2"),
        ("root://h//a/b.root?k=1", "https://g/w/?t=2", "https://g/w/b_w.root?t=2"),
        ("root://h//a/b.root?k=1", "w", "w/b_w.root"),
        ("a/b.parquet", "root://h//w", "root://h//w/b_w.root"),
    ],
)
def test_names_of_files(path: str, place: str | None, expected: str) -> None:
    weights = WeightFile.model_validate({"file": "{stem}_w.root", "match": "entry"})
    assert weight_path(path, weights, place) == expected


def test_companions_are_left_out(tmp_path: Path) -> None:
    for name in ("a", "a_w", "b", "c_w"):
        write_trees(tmp_path / f"{name}.root", {"t": {"x": np.ones(2)}})
    found = find_sources(
        tmp_path / "*.root", companion=lambda path: path.replace(".root", "_w.root")
    )
    assert [Path(source.path).stem for source in found] == ["a", "b", "c_w"]


def test_prepare_and_sweights_from(tmp_path: Path, run: Run) -> None:
    columns = tuple_rows()
    path = write(tmp_path, columns, weight_rows(columns))
    (tmp_path / "w").mkdir()
    for weights in tmp_path.glob("*_sweights.root"):
        weights.rename(tmp_path / "w" / weights.name)
    toml = tmp_path / "own.toml"
    sample = definition(RANKS)
    lines = ['schema = 1\ntitle = "t"\ndetector = "d"\nspecies = "K+"\nsource = "s"']
    lines += [
        'sweights = {file = "{stem}_sweights.root", order = ["Dst_M - D_M", "D_M"]}',
        *(
            f"[[{kind}]]\nname = '{v.name}'\nrange = {list(v.range)}"
            for kind, found in (
                ("conditions", sample.conditions),
                ("targets", sample.targets),
            )
            for v in found
        ),
    ]
    toml.write_text("\n".join(lines), encoding="utf-8")
    words = ("prepare", toml, path, "-o", tmp_path / "dataset", "--sweights-from")
    done = run(*words, tmp_path / "w")
    assert done.code == 0, done.err
    assert re.fullmatch(r"pidgan: prepare: 1,000 rows, [\d.]+ s\n", done.err)
    assert "matched by order_index in the order of Dst_M - D_M, D_M" in done.out
    assert_own_weights(Dataset.open(tmp_path / "dataset"), weights_of(columns))
    one_line(run(*words, tmp_path / "none", "--overwrite"), "no such folder")


REAL = "tests/test_data/sweights_2023/00199935_00000001_1.pid_tuple_sweights.root"


@pytest.fixture(scope="module")
def real_weights() -> Path:
    """The file of sWeights that PIDCalib2 ships with its tests."""
    spec = importlib.util.find_spec("pidcalib2")
    folder = Path(spec.origin).parent if spec and spec.origin else Path("none")
    if not (folder / REAL).is_file():
        pytest.skip("pidcalib2 is not installed")
    return folder / REAL


def theirs(path: Path, weights: Path, order: list[str]) -> Any:
    """Return the weights by row as PIDCalib2 itself reads them."""
    utils = pytest.importorskip("pidcalib2.utils")
    context = {
        "calib_sample": {"sweight_dir": f"{weights.parent}/"},
        "tree_paths": [TREE],
        "branch_names": {name: name for name in ["row", *order]},
        "inverse_branch_names": {},
        "sweight_branch": "probe_sWeight",
        "particle_label": "K",
        "ordering_variables": order,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its pandas is an older one
        frame = utils._read_calibration_file(str(path), context)
    return frame.set_index("row")["sWeight"].sort_index()


@pytest.mark.parametrize("kind", ["ranks", "order_index", "rows"])
def test_the_file_of_pidcalib2(tmp_path: Path, real_weights: Path, kind: str) -> None:
    """A tuple of as many rows, with permuted order variables, gets the same weights."""
    import uproot

    with uproot.open(real_weights) as file:
        index, sweight = file[TREE].arrays(
            ["index", "sweight"], how=tuple, library="np"
        )
    columns = tuple_rows(len(index), seed=5)
    path, order = tmp_path / f"{NAME}.root", ["Dst_M - D_M", "D_M", "P"]
    write_trees(path, {TREE: columns})
    weights = real_weights
    if kind == "order_index":
        moved = np.random.default_rng(3).permutation(len(index))
        weights = tmp_path / real_weights.name
        moved_rows = {"order_index": index[moved], "sweight": sweight[moved]}
        write_trees(weights, {TREE: moved_rows})
    by_kind: dict[str, dict[str, Any]] = {
        "ranks": {"match": "index", "order": order},
        "order_index": {"order": order},
        "rows": {"match": "entry"},
    }
    sample = definition({"file": RANKS["file"]} | by_kind[kind])
    dataset = build_dataset(sample, path, sweights_from=weights.parent)
    expected = sweight
    if kind != "rows":
        frame = pd.DataFrame(
            {
                "delta": columns["Dst_M"] - columns["D_M"],
                "mass": columns["D_M"],
                "p": columns["P"],
            }
        )
        by_rank = frame.sort_values(["delta", "mass", "p"]).index.to_numpy()
        expected = np.empty(len(index))
        expected[by_rank] = sweight[np.argsort(index)]
    assert_own_weights(dataset, expected)
    assert dataset.info["dropped"] == {"no sWeight": int(np.isnan(sweight).sum())}
    if kind != "ranks":  # PIDCalib2 takes no other branch than "order_index"
        series = theirs(path, weights, order)
        rows = dataset.targets[:, 0].astype(int)
        np.testing.assert_array_equal(series.index, rows)
        np.testing.assert_array_equal(series.to_numpy(), dataset.weights)
