"""A collection gives each row what its own bundle alone would give it."""

import json
import shutil
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
from command_line import Run
from toy_collection import (
    ENTRIES,
    rows,
    write_bundle,
    write_bundles,
    write_collection,
    write_rows,
)

from pidgan.application.apply import apply
from pidgan.application.record import read_lines
from pidgan.bundle.collecting import collect
from pidgan.bundle.collection import Collection
from pidgan.bundle.session import Session
from pidgan.errors import BundleError, NtupleError, PidganWarning
from pidgan.files.tables import Source, read_columns

pytest.importorskip("onnx")

TARGETS = ["K_DLLk", "K_DLLp", "K_pidgan_status"]
Key = tuple[int, int, int]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[Key, Path]:
    return write_bundles(tmp_path_factory.mktemp("many") / "bundles")


@pytest.fixture(scope="module")
def kaons(tmp_path_factory: pytest.TempPathFactory) -> dict[Key, Path]:
    folder = tmp_path_factory.mktemp("kaons") / "bundles"
    return write_bundles(folder, species=(321,), years=(2017,))


@pytest.fixture(scope="module")
def many(bundles: dict[Key, Path]) -> Path:
    folder = next(iter(bundles.values())).parent
    collect([folder], folder.parent / "collection.toml")
    return folder.parent / "collection.toml"


@pytest.fixture
def ntuple(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "a.root", rows())


def read(path: Path, names: list[str] = TARGETS) -> Any:
    tree = "T" if path.suffix == ".root" else None
    return read_columns(Source(str(path), tree), names)


def alone(bundles: dict[Key, Path], ntuple: Path, out: Path, **options: Any) -> Any:
    """Each bundle applied to all rows, of which its own are taken."""
    names = ["K_TRUEID", "Polarity", "year"]
    keys = read(ntuple, names).to_numpy()
    found = read(ntuple, names)
    expected: Any = None
    for key, bundle in bundles.items():
        apply({"K": bundle}, ntuple, out, overwrite=True, **options)
        whole = read(out)
        expected = whole.copy() if expected is None else expected
        mine = (keys == key).all(axis=1)
        expected[mine] = whole[mine]
    assert len(found) == len(expected)
    return expected


def test_24_bundles_are_each_applied_to_their_rows(
    bundles: dict[Key, Path], many: Path, ntuple: Path, tmp_path: Path
) -> None:
    assert len(bundles) == 24
    out = tmp_path / "b.root"
    expected = alone(bundles, ntuple, tmp_path / "one.root")
    for given, options in (
        (many, {}),
        (Collection.open(many), {"chunk": 1700, "threads": 3}),
    ):
        summary = apply({"K": given}, ntuple, out, overwrite=True, **options)  # type: ignore[arg-type]
        assert read(out).equals(expected)
        assert summary.counts["K"]["generated"] == ENTRIES
        assert len(summary.bundles["K"]) == 24


def test_with_a_key_too(
    bundles: dict[Key, Path], many: Path, ntuple: Path, tmp_path: Path
) -> None:
    key = ("runNumber", "eventNumber")
    expected = alone(bundles, ntuple, tmp_path / "one.root", key=key)
    apply({"K": many}, ntuple, tmp_path / "b.root", key=key)
    assert read(tmp_path / "b.root").equals(expected)


def test_workers_and_reruns(many: Path, tmp_path: Path) -> None:
    paths = [write_rows(tmp_path / f"in{i}.root", rows(700, seed=i)) for i in range(3)]
    apply({"K": many}, paths, tmp_path / "one", workers=1)
    apply({"K": many}, paths, tmp_path / "two", workers=2)
    for path in paths:
        both = [read(tmp_path / folder / path.name) for folder in ("one", "two")]
        assert both[0].equals(both[1])
    again = apply({"K": many}, paths, tmp_path / "two")
    assert len(again.skipped) == 3
    assert again.counts["K"]["generated"] == 2100
    # Other rules with the same bundles are another request.
    text = many.read_text()
    other = many.with_name("other.toml")
    other.write_text(text.replace("2017", "1999").replace("2018", "2017"))
    other.write_text(other.read_text().replace("_1999.onnx", "_2017.onnx"))
    with pytest.raises((NtupleError, BundleError)):
        apply({"K": other}, paths, tmp_path / "two")


def test_the_record_says_which_bundle_served_which_rows(
    bundles: dict[Key, Path], many: Path, ntuple: Path, tmp_path: Path
) -> None:
    apply({"K": many}, ntuple, tmp_path / "b.root")
    (line,) = read_lines(tmp_path / "b.root")
    own = line["tracks"]["K"]
    assert own["choose"] == {
        "species": "K_TRUEID",
        "polarity": "Polarity",
        "year": "year",
    }
    assert sum(one["rows"] for one in own["bundles"]) == ENTRIES
    assert len({one["sha256"] for one in own["bundles"]}) == 24
    keys = read(ntuple, ["K_TRUEID", "Polarity", "year"]).to_numpy()
    for one in own["bundles"]:
        key = tuple(one["when"][n][0][0] for n in ("species", "polarity", "year"))
        assert bundles[key].name == Path(one["path"]).name  # type: ignore[index]
        assert one["rows"] == np.count_nonzero((keys == key).all(axis=1))


def test_gaps_are_named_before_anything_is_written(many: Path, tmp_path: Path) -> None:
    year = np.where(np.arange(ENTRIES) < 90, 2016, rows()["year"]).astype(np.int32)
    path = write_rows(tmp_path / "a.root", rows(year=year))
    good = write_rows(tmp_path / "0.root", rows())
    out = tmp_path / "out"
    match = (
        r"K: no bundle .* serves 90 of 12000 rows: \d+ rows with species = .*2016 .*a.r"
    )
    with pytest.raises(NtupleError, match=match):
        apply({"K": many}, [good, path], out)
    assert not out.exists()
    summary = apply({"K": many}, [good, path], out, gaps="nan")
    assert summary.counts["K"]["no_bundle"] == 90
    frame = read(out / "a.root")
    assert frame["K_DLLk"][:90].isna().all()
    assert (frame["K_pidgan_status"][:90] == 4).all()
    assert frame["K_DLLk"][90:].notna().all()
    # Tracks that are not selected need no bundle.
    summary = apply(
        {"K": many}, path, tmp_path / "c.root", where="year > 2016", mode="friend"
    )
    assert summary.counts["K"]["not_selected"] == 90
    text = many.read_text().replace("schema = 1", 'schema = 1\ngaps = "nan"')
    allowed = many.with_name("allowed.toml")
    allowed.write_text(text)
    apply({"K": allowed}, path, tmp_path / "d.root")
    with pytest.raises(NtupleError, match="no bundle"):
        apply({"K": allowed}, path, tmp_path / "e.root", gaps="error")


def test_other_species_get_nan_as_before(many: Path, tmp_path: Path) -> None:
    ids = rows()["K_TRUEID"]
    ids[:10], ids[10:30] = 0, 13
    path = write_rows(tmp_path / "a.root", rows(K_TRUEID=ids))
    summary = apply({"K": many}, path, tmp_path / "b.root")
    status = read(tmp_path / "b.root")["K_pidgan_status"]
    assert (status[:10] == 4 | 32).all()
    assert (status[10:30] == 4).all()
    assert summary.counts["K"]["generated"] == ENTRIES - 30
    other = rows(K_ID=rows()["K_TRUEID"])
    del other["K_TRUEID"]
    path = write_rows(tmp_path / "c.root", other)
    with pytest.raises(NtupleError, match=r"no branch 'K_TRUEID', needed for K; clos"):
        apply({"K": many}, path, tmp_path / "d.root")
    apply({"K": many}, path, tmp_path / "d.root", species_from="ID")


def test_an_antiparticle_without_a_bundle_is_a_warning(
    kaons: dict[Key, Path], ntuple: Path, tmp_path: Path
) -> None:
    bundle = kaons[321, 1, 2017]
    path = write_collection(
        tmp_path / "one.toml",
        {"species": "{track}_TRUEID"},
        [(bundle, 'species = "K+"')],
    )
    with pytest.warns(
        PidganWarning, match=r'rows are "K-", which no bundle .* species'
    ):
        apply({"K": path}, ntuple, tmp_path / "b.root")
    both = tmp_path / "both.toml"
    both.write_text(path.read_text().replace('"K+"', '["K+", "K-"]'))
    apply({"K": both}, ntuple, tmp_path / "c.root")
    n = np.count_nonzero(np.abs(rows()["K_TRUEID"]) == 321)
    assert read(tmp_path / "c.root")["K_DLLk"].notna().sum() == n


def test_ranges_of_runs(kaons: dict[Key, Path], ntuple: Path, tmp_path: Path) -> None:
    first, second, *_ = kaons.values()
    path = write_collection(
        tmp_path / "runs.toml",
        {"run": "runNumber"},
        [
            (first, "run = [[1000, 1499], 1777]"),
            (second, "run = [[1500, 1776], [1778, 2999]]"),
        ],
    )
    apply({"K": path}, ntuple, tmp_path / "b.root")
    run = rows()["runNumber"]
    is_first = (run < 1500) | (run == 1777)
    found = read(tmp_path / "b.root")["K_DLLk"]
    for bundle, mine in ((first, is_first), (second, ~is_first)):
        apply({"K": bundle}, ntuple, tmp_path / "one.root", overwrite=True)
        assert found[mine].equals(read(tmp_path / "one.root")["K_DLLk"][mine])


@pytest.mark.parametrize("branch", ["Polarity", "{track}_MAG"])
def test_arrays_of_tracks(kaons: dict[Key, Path], tmp_path: Path, branch: str) -> None:
    """Columns of the event or of each track choose for each track."""
    rng = np.random.default_rng(3)
    counts = rng.integers(0, 4, 500)
    total = int(counts.sum())

    def nest(values: Any) -> Any:
        return ak.unflatten(values, counts)

    event = rng.choice([1, -1], 500).astype(np.int32)
    # An entry without tracks needs no bundle.
    event[counts == 0] = 7
    own = rng.choice([1, -1], total).astype(np.int32)
    content = {
        "K_P": nest(rng.uniform(5e3, 9e4, total)),
        "K_ETA": nest(rng.uniform(2, 4.5, total)),
        "K_MAG": nest(own),
        "Polarity": event,
    }
    path = tmp_path / "a.parquet"
    write_rows(path, content)
    up, down = kaons[321, 1, 2017], kaons[321, -1, 2017]
    collection = write_collection(
        tmp_path / "c.toml",
        {"polarity": branch},
        [(up, "polarity = 1"), (down, "polarity = -1")],
    )
    apply({"K": collection}, path, tmp_path / "b.parquet")
    import pyarrow.parquet as pq

    def flat(file: Path) -> np.ndarray:
        column = ak.from_arrow(pq.read_table(file, columns=["K_DLLk"]))["K_DLLk"]
        return ak.to_numpy(ak.flatten(column, axis=None))

    sign = own if "MAG" in branch else np.repeat(event, counts)
    found = flat(tmp_path / "b.parquet")
    for bundle, mine in ((up, sign == 1), (down, sign == -1)):
        apply({"K": bundle}, path, tmp_path / "one.parquet", overwrite=True)
        np.testing.assert_array_equal(found[mine], flat(tmp_path / "one.parquet")[mine])


def test_a_tree_needs_the_conditions_of_its_bundles_only(tmp_path: Path) -> None:
    """Run 2 has another counter of tracks than Run 3."""
    years, counters = (2018, 2024), ("nTracks", "nLong")
    bundles = [
        write_bundle(tmp_path / f"{year}.onnx", species="K+", offset=0, second=counter)
        for year, counter in zip(years, counters, strict=True)
    ]
    when = [f"year = {year}" for year in years]
    collection = write_collection(
        tmp_path / "c.toml", {"year": "year"}, [*zip(bundles, when, strict=True)]
    )
    for year, counter, bundle in zip(years, counters, bundles, strict=True):
        content = rows(100, year=np.full(100, year, np.int32))
        content[f"K_{counter}"] = content.pop("K_ETA")
        path = write_rows(tmp_path / f"{year}.root", content)
        apply({"K": collection}, path, tmp_path / "many.root", overwrite=True)
        apply({"K": bundle}, path, tmp_path / "one.root", overwrite=True)
        assert read(tmp_path / "many.root").equals(read(tmp_path / "one.root"))
    apply({"K": collection}, [tmp_path / "20*.root"], tmp_path / "both")
    content["year"][:5] = 2018
    path = write_rows(tmp_path / "mixed.root", content)
    with pytest.raises(NtupleError, match="no branch for condition nTracks of K"):
        apply({"K": collection}, path, tmp_path / "d.root")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"year": np.full(ENTRIES, np.nan)}, r"rows with .*year = nan"),
        (
            {"year": np.full(ENTRIES, 2017.5)},
            r"'year' chooses .* holds 2017.5, expected whole",
        ),
        (
            {"K_TRUEID": np.full(ENTRIES, np.inf)},
            r"'K_TRUEID' chooses .* holds inf, expected whole",
        ),
        (
            {"Polarity": ["MagUp"] * ENTRIES},
            r"branch 'Polarity', needed for K, is of type",
        ),
        ({"Polarity": None}, r"has no branch 'Polarity', needed for K"),
    ],
)
def test_columns_that_cannot_choose(
    many: Path, tmp_path: Path, changes: dict[str, Any], match: str
) -> None:
    content = {n: v for n, v in rows(**changes).items() if v is not None}
    path = write_rows(tmp_path / "a.parquet", content)
    with pytest.raises(NtupleError, match=match):
        apply({"K": many}, path, tmp_path / "b.parquet")
    assert not (tmp_path / "b.parquet").exists()


def change(path: Path, old: str, new: str) -> Path:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        (
            'species = "K-"',
            'species = "K+"',
            r"both serve species = \"K\+\", polarity = ",
        ),
        (
            "polarity = 1",
            "polarty = 1",
            r"when has the column 'polarty', .*; closest: 'polarity'",
        ),
        ("polarity = 1", "polarity = 1.5", r"polarity is 1.5, expected a whole number"),
        (
            "polarity = 1",
            "polarity = [[2, 1]]",
            r"range \[2, 1\], expected first <= last",
        ),
        ("polarity = 1", "polarity = true", r"polarity is True, expected a whole"),
        ("polarity = 1", "polarity = []", r"polarity is an empty list"),
        ('species = "K-"', 'species = "Kminus"', r"'Kminus' is not the PDG name"),
        (
            'species = "K-"',
            'species = "pi-"',
            r"is for K-, but serves species = \"pi-\"",
        ),
        ("sha256 =", "sha265 =", r"unknown key bundle .*sha265; closest: 'sha256'"),
        ("schema = 1", "schema = 2", r"schema is 2"),
        ("schema = 1", "schema = 1\ngapps = 1", r"unknown key gapps; closest: 'gaps'"),
        (
            "schema = 1",
            "schema = 1\ngaps = 1",
            r"gaps is 1: input should be 'error' or",
        ),
        ('polarity = "Polarity"', 'polarity = ""', r"polarity is ''"),
        ("[choose]", '[choose]\nblock = "B"', r"choose has 'block', which no bundle"),
        (
            "K+_up_2017.onnx",
            "K+_up_2071.onnx",
            r"no such file.*; closest: 'K\+_up_2017",
        ),
        ("[[bundles]]", "[bundles]", r"not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused(
    kaons: dict[Key, Path], ntuple: Path, tmp_path: Path, old: str, new: str, match: str
) -> None:
    folder = shutil.copytree(next(iter(kaons.values())).parent, tmp_path / "bundles")
    path = tmp_path / "collection.toml"
    collect([folder], path)
    apply({"K": path}, ntuple, tmp_path / "good.root", gaps="nan")
    change(path, old, new)
    with pytest.raises(BundleError, match=match) as found:
        apply({"K": path}, ntuple, tmp_path / "b.root")
    assert "\n" not in str(found.value)
    assert str(path) in str(found.value)


def test_a_bundle_that_changed_is_refused(
    kaons: dict[Key, Path], ntuple: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(next(iter(kaons.values())).parent, tmp_path / "bundles")
    path = tmp_path / "collection.toml"
    collect([folder], path)
    shutil.copy(folder / "K-_up_2017.onnx", folder / "K+_up_2017.onnx")
    with pytest.raises(BundleError, match=r"K\+_up_2017.onnx has sha256 .*, expected"):
        apply({"K": path}, ntuple, tmp_path / "b.root")
    data = (folder / "K-_up_2017.onnx").read_bytes()
    (folder / "K+_up_2017.onnx").write_bytes(data[:-500])
    with pytest.raises(BundleError, match=r"K\+_up_2017.onnx: damaged"):
        apply({"K": path}, ntuple, tmp_path / "b.root")


def test_a_bundle_for_another_period_than_its_card_is_a_warning(
    kaons: dict[Key, Path], tmp_path: Path
) -> None:
    up, down = kaons[321, 1, 2017], kaons[321, -1, 2017]
    path = write_collection(
        tmp_path / "c.toml",
        {"polarity": "Polarity"},
        [(up, "polarity = -1"), (down, "polarity = 1")],
    )
    with pytest.warns(PidganWarning, match=r"serves polarity = .*1, but its card says"):
        Collection.open(path).open_bundles()


def test_collect_says_what_it_assumes(
    kaons: dict[Key, Path], tmp_path: Path, run: Run
) -> None:
    folder = next(iter(kaons.values())).parent
    path = tmp_path / "deep" / "c.toml"
    found = run(
        "collect", folder, "-o", path, "--choose", "polarity=Mag", "--title", 'A "B"'
    )
    assert found.code == 0, found.err
    assert "polarity: Mag" in found.out
    assert "branches are assumed" in found.err
    opened = Collection.open(path)
    assert opened.content.choose == {"species": "{track}_TRUEID", "polarity": "Mag"}
    assert opened.content.title == 'A "B"'
    assert len(opened.open_bundles()) == 4
    assert json.loads(run("inspect", path, "--json").out)["choose"]["polarity"] == "Mag"
    assert run("inspect", path, "--verify").code == 0
    words = ["collect", folder, "-o", path]
    assert "exists" in run(*words).err
    # All are of 2017: the year chooses only if it is named.
    words.append("--overwrite")
    run(*words, "--choose", "year=YEAR")
    assert Collection.open(path).content.choose["year"] == "YEAR"
    assert (
        "closest: 'year'"
        in run(
            "collect", folder, "-o", path, "--overwrite", "--choose", "yaer=YEAR"
        ).err
    )


def test_collect_refuses_two_bundles_for_the_same_rows(
    kaons: dict[Key, Path], tmp_path: Path
) -> None:
    bundle = kaons[321, 1, 2017]
    copy = shutil.copy(bundle, tmp_path / "again.onnx")
    with pytest.raises(
        BundleError, match=r"K\+_up_2017.onnx .*again.onnx .* both serve"
    ):
        collect([*kaons.values(), copy], tmp_path / "c.toml")
    with pytest.raises(BundleError, match=r"a.onnx: no such file"):
        collect([tmp_path / "a.onnx"], tmp_path / "c.toml")
    with pytest.raises(BundleError, match=r"ends in .toml"):
        collect([bundle], tmp_path / "c.onnx")


def test_a_bundle_without_a_charge_serves_both(tmp_path: Path) -> None:
    kaon = write_bundle(tmp_path / "kaon.onnx", species="K+", offset=0)
    pion = write_bundle(tmp_path / "pion.onnx", species="pi+", offset=1)
    other = write_bundle(tmp_path / "other.onnx", species="K-", offset=2)
    both = collect([kaon, pion], tmp_path / "a.toml")
    assert 'species = ["K+", "K-"]' in (tmp_path / "a.toml").read_text()
    assert list(both.content.choose) == ["species"]
    collect([kaon, pion, other], tmp_path / "b.toml")
    text = (tmp_path / "b.toml").read_text()
    assert 'when = {species = "K+"}' in text
    assert 'when = {species = ["pi+", "pi-"]}' in text
    # A single bundle for both charges needs no column.
    assert not collect([kaon], tmp_path / "c.toml").content.choose


def test_only_bundles_with_rows_are_started(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are checked, and those that serve rows run their self-tests before work."""
    started: list[str] = []
    start = Session._start
    monkeypatch.setattr(
        Session,
        "_start",
        lambda session: (started.append(session._path.name), start(session))[1],
    )
    one = rows(500, year=np.full(500, 2017, np.int32))
    one["K_TRUEID"][:] = 321
    path = write_rows(tmp_path / "a.root", one)
    apply({"K": many}, path, tmp_path / "b.root", dry_run=True)
    assert sorted(started) == ["K+_down_2017.onnx", "K+_up_2017.onnx"]


def test_what_all_bundles_agree_in_is_a_comment(
    kaons: dict[Key, Path], tmp_path: Path
) -> None:
    comment = "# All bundles are for year = 2017, which is not looked at."
    collect(list(kaons.values()), tmp_path / "a.toml")
    assert comment in (tmp_path / "a.toml").read_text()
    collect(list(kaons.values()), tmp_path / "b.toml", choose={"year": "year"})
    assert "not looked at" not in (tmp_path / "b.toml").read_text()
