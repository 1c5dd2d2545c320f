"""Application to collections of tracks, selections, and known differences to data."""

import json
from pathlib import Path
from typing import Any, Literal

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot
from toy_generator import ToyGenerator, location, make_card, make_sample

from pidgan.application.apply import apply
from pidgan.application.conditions import Conditions
from pidgan.application.quantile_map import QuantileMap, make_quantile_map
from pidgan.bundle.card import CardVariable
from pidgan.bundle.noise import entry_keys, keyed_normal, position_keys
from pidgan.errors import CutError, NtupleError
from pidgan.files.tables import write_trees

ENTRIES = 1500
Format = Literal["ttree", "rntuple", "parquet"]
FORMATS = ["ttree", "rntuple", "parquet"]


def kaon(**changes: Any) -> ToyGenerator:
    return ToyGenerator(card=make_card(**changes))


def collection(seed: int = 1, *, length: int | None = None) -> dict[str, Any]:
    """Events with tracks `T_*`, of variable number or `length`, and of the event."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 5, ENTRIES).astype(np.int32)
    if length is not None:
        counts = np.full(ENTRIES, length, np.int32)
    total = int(counts.sum())

    def nest(values: np.ndarray) -> Any:
        if length is not None:
            return values.reshape(ENTRIES, length)
        return ak.unflatten(values, counts)

    ids = rng.choice([321, -321, 211, 0], total).astype(np.int32)
    mothers = rng.choice([421, 321, 0], total).astype(np.int32)
    return {
        "runNumber": rng.integers(1, 9, ENTRIES).astype(np.uint32),
        "eventNumber": np.arange(ENTRIES, dtype=np.uint64) * 3 + 1,
        "nTrack": counts,
        "T_P": nest(rng.uniform(5e3, 9e4, total)),
        "T_ETA": nest(rng.uniform(2, 4.5, total).astype(np.float32)),
        "T_TRUEID": nest(ids),
        "T_MOTHER": nest(mothers),
        "T_DLLk": nest(np.full(total, 77.0)),
        "T_DLLp": nest(np.full(total, 78.0, np.float32)),
        "B_ETA": rng.uniform(2, 4.5, ENTRIES),
    }


def write(directory: Path, data: dict[str, Any], kind: str, name: str = "a") -> Path:
    """Write branches; those of variable length share the counter `nTrack`."""
    if kind == "parquet":
        path = directory / f"{name}.parquet"
        write_trees(path, {"": data})
        return path
    path = directory / f"{name}.root"
    with uproot.recreate(path) as file:
        if kind == "rntuple":
            file.mkrntuple("T", data)
            return path
        types = {
            branch: np.dtype((values.dtype, values.shape[1:]))
            if isinstance(values, np.ndarray)
            else ak.type(values).content
            for branch, values in data.items()
        }
        tree = file.mktree("T", types, counter_name=lambda name: "nTrack")
        tree.extend(data)
    return path


def read(path: Path, name: str) -> Any:
    if path.suffix == ".parquet":
        return ak.from_arrow(pq.read_table(path, columns=[name]))[name]
    with uproot.open({path: "T"}) as tree:
        return tree[name].array()


def flat(path: Path, name: str) -> np.ndarray:
    values = read(path, name)
    return ak.to_numpy(ak.flatten(values, axis=None))


def expected(data: dict[str, Any], seed: int = 1) -> np.ndarray:
    """Targets of all tracks by hand."""
    p, eta = (ak.to_numpy(ak.flatten(ak.Array(data[n]))) for n in ("T_P", "T_ETA"))
    keys = entry_keys(seed=seed, track="T", start=0, stop=ENTRIES)
    keys = position_keys(keys, data["nTrack"])
    x = np.column_stack([p, eta]).astype(np.float32)
    return kaon().generate(x, keyed_normal(keys, n_noise=3))


@pytest.mark.parametrize("mode", ["append", "replace", "friend"])
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("length", [None, 3])
def test_every_track_of_a_collection_gets_targets(
    tmp_path: Path, kind: str, mode: Any, length: int | None
) -> None:
    data = collection(length=length)
    path = write(tmp_path, data, kind)
    before = path.read_bytes()
    out = tmp_path / f"b{path.suffix}"
    suffix = "_gen" if mode == "append" else ""
    summary = apply({"T": kaon()}, path, out, mode=mode, suffix=suffix, chunk=400)
    assert path.read_bytes() == before
    np.testing.assert_array_equal(
        np.column_stack([flat(out, f"T_DLL{h}{suffix}") for h in "kp"]),
        expected(data).astype(np.float32),
    )
    assert ak.num(read(out, f"T_DLLk{suffix}")).tolist() == data["nTrack"].tolist()
    status = read(out, f"T_pidgan_status{suffix}")
    assert ak.num(status).tolist() == data["nTrack"].tolist()
    assert not ak.any(status)
    assert summary.counts["T"]["generated"] == data["nTrack"].sum()
    if mode != "friend":
        for name in ("T_P", "T_ETA", "B_ETA", "eventNumber", "nTrack"):
            assert read(out, name).tolist() == read(path, name).tolist()
    if mode == "append":
        assert ak.all(read(out, "T_DLLk") == 77.0)


def test_new_branches_share_the_counter(tmp_path: Path) -> None:
    path = write(tmp_path, collection(), "ttree")
    for mode, suffix in (("append", "_gen"), ("replace", ""), ("friend", "")):
        out = tmp_path / f"{mode}.root"
        apply({"T": kaon()}, path, out, mode=mode, suffix=suffix)  # type: ignore[arg-type]
        with uproot.open({out: "T"}) as tree:
            counters = {
                b.name: b.count_branch.name
                for b in tree.branches
                if b.count_branch is not None
            }
            assert set(counters.values()) == {"nTrack"}
            assert f"T_DLLk{suffix}" in counters
            assert f"T_pidgan_status{suffix}" in counters
            assert tree["nTrack"].typename == "int32_t"
            # A replacement has the type of what it replaces.
            if mode == "replace":
                assert tree["T_DLLk"].typename == "double[]"
                assert tree["T_DLLp"].typename == "float[]"


@pytest.mark.parametrize("key", [(), ("runNumber", "eventNumber")])
@pytest.mark.parametrize("kind", FORMATS)
def test_neither_chunks_nor_threads_matter(
    tmp_path: Path, kind: str, key: tuple[str, ...]
) -> None:
    path = write(tmp_path, collection(), kind)
    outputs = []
    for chunk, threads in ((10**6, 1), (97, 1), (333, 3)):
        outputs.append(tmp_path / f"b{chunk}{path.suffix}")
        options: dict[str, Any] = {"mode": "replace", "key": key}
        apply({"T": kaon()}, path, outputs[-1], chunk=chunk, threads=threads, **options)
    first, *others = (flat(output, "T_DLLk") for output in outputs)
    for other in others:
        np.testing.assert_array_equal(first, other)


def test_with_a_key_neither_entries_nor_tracks_are_numbered(tmp_path: Path) -> None:
    data = collection()
    order = np.random.default_rng(2).permutation(ENTRIES)
    moved = {name: values[order] for name, values in data.items()}
    for name, values in moved.items():
        if isinstance(values, ak.Array):
            moved[name] = values[:, ::-1]
    key = ("runNumber", "eventNumber")
    outputs = []
    for name, content in (("a", data), ("m", moved)):
        path = write(tmp_path, content, "ttree", name)
        outputs.append(tmp_path / f"{name}_out.root")
        apply({"T": kaon()}, path, outputs[-1], mode="friend", key=key)
    whole, other = (read(path, "T_DLLk") for path in outputs)
    assert ak.array_equal(whole[order][:, ::-1], other)


def test_what_belongs_to_the_event_is_a_condition_of_each_track(tmp_path: Path) -> None:
    data = collection()
    path = write(tmp_path, data, "ttree")
    out = tmp_path / "b.root"
    apply(
        {"T": kaon()},
        path,
        out,
        mode="replace",
        conditions=Conditions(branches={"ETA": "B_ETA"}),
    )
    repeated = np.repeat(data["B_ETA"], data["nTrack"])
    x = np.column_stack([flat(path, "T_P"), repeated])
    keys = position_keys(
        entry_keys(seed=1, track="T", start=0, stop=ENTRIES), data["nTrack"]
    )
    noise = keyed_normal(keys, n_noise=3)
    generated = kaon().generate(x.astype(np.float32), noise)[:, 0]
    np.testing.assert_allclose(flat(out, "T_DLLk"), generated, atol=1e-5)


def test_vectors_are_collections(tmp_path: Path) -> None:
    # `vector<float>` of RNTuples and of Parquet are read above; this one is of ROOT.
    path = Path(__file__).parents[1] / "root_files" / "vectors.root"
    card = make_card(
        conditions=(
            CardVariable(name="P", unit="1", range=(-1e9, 1e9)),
            CardVariable(name="ETA", unit="1", range=(-1e9, 1e9)),
        )
    )
    branches = {"P": "v_float", "ETA": "v_double"}
    with uproot.open({path: "ntupler/tree"}) as tree:
        counts = ak.num(tree["v_float"].array())
        assert ak.all(counts == ak.num(tree["v_double"].array()))
    friend = tmp_path / "f.root"
    apply(
        {"v": ToyGenerator(card=card)},
        f"{path}:ntupler/tree",
        friend,
        mode="friend",
        conditions=Conditions(branches=branches),
    )
    with uproot.open({friend: "ntupler/tree"}) as tree:
        assert ak.all(ak.num(tree["v_DLLk"].array()) == counts)
        assert tree["v_DLLk"].count_branch.name == "nv_double"


def test_collections_that_do_not_fit_are_named(tmp_path: Path) -> None:
    data = collection()
    data["T_P"] = data["T_P"][::-1]
    with uproot.recreate(tmp_path / "a.root") as file:
        types = {"T_P": "var * float64", "T_ETA": "var * float64"}
        file.mktree("T", types).extend({name: data[name] for name in types})
    with pytest.raises(
        NtupleError, match=r"a.root:T, T: 'T_ETA' holds \d tracks and 'T_P'"
    ):
        apply({"T": kaon()}, tmp_path / "a.root", tmp_path / "b.root")
    path = write(tmp_path, collection() | {"T_P": np.ones((ENTRIES, 2))}, "ttree", "c")
    with pytest.raises(NtupleError, match=r"different numbers .*'T_P' \(float64\[2\]"):
        apply({"T": kaon()}, path, tmp_path / "b.root")
    flat_old = collection() | {"T_DLLk": np.ones(ENTRIES)}
    path = write(tmp_path, flat_old, "ttree", "d")
    with pytest.raises(NtupleError, match=r"'T_DLLk' cannot be replaced: .*float32"):
        apply({"T": kaon()}, path, tmp_path / "b.root", mode="replace")
    assert not (tmp_path / "b.root").exists()


def test_what_selects_and_keys_is_of_the_track_or_of_the_entry(tmp_path: Path) -> None:
    data = collection()
    flat_track = {"K_P": np.full(ENTRIES, 2e4), "K_ETA": np.full(ENTRIES, 3.0)}
    path = write(tmp_path, data | flat_track, "ttree")
    for options in ({"where": "T_P > 0"}, {"key": ("T_P",)}):
        with pytest.raises(NtupleError, match=r"K: 'T_P' is of type float64\[\], exp"):
            apply({"K": kaon()}, path, tmp_path / "b.root", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "b.root").exists()


def test_branches_without_numbers_are_named(tmp_path: Path) -> None:
    data = collection() | {"T_name": ak.Array(["x"] * ENTRIES)}
    path = write(tmp_path, data, "parquet")
    with pytest.raises(
        NtupleError, match=r"'T_name', needed for T, is of type .*string"
    ):
        apply({"T": kaon()}, path, tmp_path / "b.parquet", key=("T_name",))


def test_a_key_with_a_null_is_refused(tmp_path: Path) -> None:
    event = pa.array([*range(2000), None])
    columns = {"T_P": np.full(2001, 2e4), "T_ETA": np.full(2001, 3.0), "event": event}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    arguments: Any = ({"T": kaon()}, tmp_path / "a.parquet", tmp_path / "b.parquet")
    with pytest.raises(NtupleError, match="T: key branch 'event' holds a null"):
        apply(*arguments, key=("event",))
    apply(*arguments)
    assert pq.read_table(tmp_path / "b.parquet")["event"].null_count == 1


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("mode", ["replace", "friend"])
def test_a_selection_keeps_the_old_values_or_nan(
    tmp_path: Path, kind: str, mode: Any
) -> None:
    data = collection()
    path = write(tmp_path, data, kind)
    keep, nan = (tmp_path / f"{name}{path.suffix}" for name in ("keep", "nan"))
    where = "{track}_P > 30000 & runNumber < 5"
    options: dict[str, Any] = {"mode": mode, "where": where, "chunk": 400}
    apply({"T": kaon()}, path, nan, **options)
    summary = apply({"T": kaon()}, path, keep, elsewhere="keep", **options)
    run = np.repeat(data["runNumber"], data["nTrack"])
    selected = (flat(path, "T_P") > 30000) & (run < 5)
    assert 0.1 < selected.mean() < 0.5
    whole = expected(data)
    for i, (name, old) in enumerate((("T_DLLk", 77.0), ("T_DLLp", 78.0))):
        generated = whole[:, i].astype(np.float32)
        np.testing.assert_array_equal(
            flat(keep, name), np.where(selected, generated, old)
        )
        np.testing.assert_array_equal(
            flat(nan, name), np.where(selected, generated, np.nan)
        )
    status = flat(keep, "T_pidgan_status")
    np.testing.assert_array_equal(status, np.where(selected, 0, 16))
    assert summary.counts["T"]["not_selected"] == np.count_nonzero(~selected)
    assert summary.counts["T"]["generated"] == np.count_nonzero(selected)


def test_what_is_kept_stays_bit_by_bit(tmp_path: Path) -> None:
    old = np.random.default_rng(1).normal(size=ENTRIES)
    data = {"T_P": np.full(ENTRIES, 2e4), "T_ETA": np.full(ENTRIES, 3.0)}
    data |= {"T_DLLk": old, "T_DLLp": old.astype(np.float32), "pass": old > 0.5}
    path = write(tmp_path, data, "ttree")
    options: dict[str, Any] = {"where": "old > 0.5", "elsewhere": "keep"}
    with pytest.raises(CutError, match="unknown variable 'old'"):
        apply({"T": kaon()}, path, tmp_path / "b.root", mode="replace", **options)
    options["where"] = "T_DLLk > 0.5"
    apply({"T": kaon()}, path, tmp_path / "b.root", mode="replace", **options)
    kept = read(tmp_path / "b.root", "T_DLLk").to_numpy()[old <= 0.5]
    assert kept.tobytes() == old[old <= 0.5].tobytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"elsewhere": "keep", "mode": "replace"}, "needs a selection, --where"),
        ({"elsewhere": "keep", "where": "T_P > 0"}, "needs values to keep: --mode rep"),
        (
            {"elsewhere": "keep", "where": "T_P > 0", "mode": "friend", "suffix": "_x"},
            "no branch 'T_DLLk_x', needed for T; closest: 'T_DLLk'",
        ),
        ({"mother_from": "MOTHER"}, "flagged only with --species-from"),
        (
            {"conditions": Conditions(scales={"p": 2.0})},
            "scale p=2.0: no such condition; expected one of ETA",
        ),
        (
            {"conditions": Conditions(scales={"P": -1.0})},
            "scale P=-1: expected a positive number",
        ),
        (
            {"conditions": Conditions(scales={"P": float("nan")})},
            "scale P=nan: expected a positive number",
        ),
    ],
)
def test_requests_that_contradict_themselves(
    tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    path = write(tmp_path, collection(), "ttree")
    with pytest.raises(NtupleError, match=message):
        apply({"T": kaon()}, path, tmp_path / "b.root", **arguments)
    assert [p.name for p in tmp_path.iterdir()] == ["a.root"]


def test_truth_is_flagged_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path, collection(), "ttree")
    out = tmp_path / "b.root"
    summary = apply(
        {"T": kaon()},
        path,
        out,
        mode="replace",
        species_from="TRUEID",
        mother_from="MOTHER",
    )
    ids, mothers = flat(path, "T_TRUEID"), flat(path, "T_MOTHER")
    is_kaon, unmatched = np.abs(ids) == 321, ids == 0
    decayed = (mothers == 321) & ~unmatched
    status = np.where(is_kaon, 0, 4) + 32 * unmatched + 64 * decayed
    np.testing.assert_array_equal(flat(out, "T_pidgan_status"), status)
    np.testing.assert_array_equal(np.isfinite(flat(out, "T_DLLk")), is_kaon)
    counts = summary.counts["T"]
    assert counts["unmatched"] == np.count_nonzero(unmatched) > 100
    assert counts["decayed_in_flight"] == np.count_nonzero(decayed) > 100
    assert json.loads((tmp_path / "b.root.json").read_text())["counts"]["T"] == counts


def shifts(tmp_path: Path, **changes: Any) -> np.ndarray:
    """Return by how much the first target changes with the conditions."""
    data = collection()
    path = tmp_path / "a.root"
    if not path.exists():
        write(tmp_path, data, "ttree")
    outputs = [tmp_path / "plain.root", tmp_path / "other.root"]
    for out, given in zip(outputs, ({}, changes), strict=True):
        apply(
            {"T": kaon()},
            path,
            out,
            mode="friend",
            overwrite=True,
            conditions=Conditions(**given),
        )
    plain, other = (flat(out, "T_DLLk").astype(np.float64) for out in outputs)
    return other - plain


def test_a_scale_changes_the_condition_and_not_the_noise(tmp_path: Path) -> None:
    for key in ((), ("eventNumber",)):
        found = shifts(tmp_path, scales={"P": 1.1})
        p, eta = (flat(tmp_path / "a.root", name) for name in ("T_P", "T_ETA"))
        before, after = (
            location(np.column_stack([factor * p, eta]))[:, 0] for factor in (1, 1.1)
        )
        np.testing.assert_allclose(found, after - before, atol=2e-5)
        assert np.abs(found).max() > 0.1, key
    request = json.loads((tmp_path / "other.root.json").read_text())
    assert request["request"]["scale"] == {"P": 1.1}
    assert request["mapping"]["T"]["P"] == "T_P [MeV] times 1.1"


def test_a_scale_of_one_track_only(tmp_path: Path) -> None:
    assert not shifts(tmp_path, scales={"T.P": 1.0}).any()
    assert shifts(tmp_path, scales={"T.P": 1.1}).any()


def test_a_quantile_map_is_put_in_and_recorded(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    simulation = rng.uniform(5e3, 9e4, 50_000)
    made = make_quantile_map(simulation, 1.1 * simulation + 500)
    made.save(tmp_path / "p.json")
    found = shifts(tmp_path, quantile_maps={"P": tmp_path / "p.json"})
    p, eta = (flat(tmp_path / "a.root", name) for name in ("T_P", "T_ETA"))
    before, after = (
        location(np.column_stack([x, eta]))[:, 0] for x in (p, 1.1 * p + 500)
    )
    np.testing.assert_allclose(found, after - before, atol=1e-3)
    manifest = json.loads((tmp_path / "other.root.json").read_text())
    recorded = manifest["request"]["quantile_map"]["P"]
    assert QuantileMap(**{n: tuple(v) for n, v in recorded.items()}) == made
    assert manifest["mapping"]["T"]["P"] == f"quantile map {made.mark} of T_P [MeV]"
    with pytest.raises(NtupleError, match="P of T has a scale and a quantile map"):
        shifts(tmp_path, quantile_maps={"P": made}, scales={"P": 2.0})


def test_whole_numbers_stay_whole_and_sentinels_stay(tmp_path: Path) -> None:
    occupancy = CardVariable(
        name="P", unit="1", range=(0, 1000), integer=True, sentinels=(-1.0,)
    )
    eta = CardVariable(name="ETA", unit="1", range=(1.5, 5))
    sample = make_sample(
        conditions=[
            {"name": "P", "range": [0, 1000]},
            {"name": "ETA", "range": [1.5, 5]},
        ]
    )
    seen = []

    class Spy(ToyGenerator):
        def generate(self, conditions: np.ndarray, noise: np.ndarray) -> np.ndarray:
            seen.append(conditions[:, 0].copy())
            return super().generate(conditions, noise)

    spy = Spy(card=make_card(conditions=(occupancy, eta), sample=sample))
    data = {"P": np.array([7, 10, -1], np.int32), "T_ETA": np.full(3, 3.0)}
    path = write(tmp_path, data, "ttree")
    apply(
        {"T": spy}, path, tmp_path / "b.root", conditions=Conditions(scales={"P": 1.15})
    )
    assert np.concatenate(seen).tolist() == [8, 12, -1]
