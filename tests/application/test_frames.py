"""Rows in memory get what the same rows in a file get, whatever holds them."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pandas as pd
import pytest
from toy_generator import make_card, toy_onnx, with_self_test

import pidgan
from pidgan.bundle.bundle import Bundle, open_bundle
from pidgan.bundle.collecting import collect
from pidgan.bundle.collection import Collection
from pidgan.errors import NtupleError, PidganWarning
from pidgan.files.tables import write_table

pytest.importorskip("onnx")

N = 1000
NEW = ["K_DLLk", "K_DLLp", "K_pidgan_status"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("bundle") / "kaon.onnx"
    path.write_bytes(toy_onnx(with_self_test(make_card())))
    return open_bundle(path)


@pytest.fixture
def frame() -> pd.DataFrame:
    """Kaons, some of them outside of the trained range or without a momentum."""
    rng = np.random.default_rng(1)
    p, eta = rng.uniform(3e3, 1e5, N), rng.uniform(1.5, 5, N)
    p[7], p[11], eta[13] = np.nan, 2e5, -np.inf
    number = 2**60 + rng.permutation(N)
    return pd.DataFrame({"eventNumber": number, "K_ETA": eta, "K_P": p})


def of_file(bundle: Bundle, rows: pd.DataFrame, folder: Path, **options: Any) -> Any:
    """Return the new columns that `apply` writes for the same rows in a file."""
    write_table(folder / "in.parquet", rows)
    pidgan.apply(
        {"K": bundle},
        folder / "in.parquet",
        folder / "out.parquet",
        overwrite=True,
        **options,
    )
    return pd.read_parquet(folder / "out.parquet")[NEW]


CONTAINERS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "DataFrame": lambda f: f,
    "reversed columns": lambda f: f[f.columns[::-1]],
    "sliced": lambda f: pd.concat([f, f])[:N],
    "dict of arrays": lambda f: {k: v.to_numpy() for k, v in f.items()},
    "dict of Series": dict,
    "dict of lists": lambda f: {k: v.tolist() for k, v in f.items()},
    "records": lambda f: f.to_records(index=False),
    "structured": lambda f: np.array(f.to_records(index=False)),
    "masked records": lambda f: np.ma.array(f.to_records(index=False)),
    "other byte order": lambda f: f.to_records(
        index=False, column_dtypes={"K_P": ">f8", "eventNumber": ">i8"}
    ),
    "awkward": lambda f: ak.zip({k: v.to_numpy() for k, v in f.items()}),
    "awkward with None": lambda f: ak.zip(
        {k: ak.nan_to_none(v.to_numpy()) if k == "K_P" else v for k, v in f.items()}
    ),
    "nullable": lambda f: f.convert_dtypes(),
    "arrow": lambda f: f.convert_dtypes(dtype_backend="pyarrow"),
    "strided": lambda f: pd.DataFrame(
        {k: np.repeat(v.to_numpy(), 2)[::2] for k, v in f.items()}
    ),
}


@pytest.mark.parametrize("make", CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.parametrize("key", [(), ("eventNumber",)])
def test_rows_get_what_a_file_gets(
    bundle: Bundle, frame: pd.DataFrame, make: Any, key: Any, tmp_path: Path
) -> None:
    expected = of_file(bundle, frame, tmp_path, key=key, seed=3)
    found = bundle.sample(make(frame), track="K", key=key, seed=3)
    pd.testing.assert_frame_equal(found, expected)
    whole = pidgan.apply({"K": bundle}, make(frame), key=key, seed=3)
    for name in NEW:
        np.testing.assert_array_equal(np.asarray(whole[name]), expected[name])


def test_the_status_says_which_rows_lack_something(
    bundle: Bundle, frame: pd.DataFrame
) -> None:
    found = bundle.sample(frame, track="K")
    assert found["K_pidgan_status"][[7, 11, 13]].tolist() == [2, 1, 2]
    assert found["K_pidgan_status"].ne(0).sum() == 3
    assert found["K_DLLk"].isna().sum() == 2


def test_index_and_prefix_are_those_of_the_rows(
    bundle: Bundle, frame: pd.DataFrame
) -> None:
    expected = bundle.sample(frame, track="K")
    labelled = frame.set_index("eventNumber")
    found = bundle.sample(labelled, track="K")
    assert found.index.equals(labelled.index)
    np.testing.assert_array_equal(found, expected)
    # A named level of the index is a column too.
    keyed = bundle.sample(labelled, track="K", key=["eventNumber"])
    np.testing.assert_array_equal(
        keyed, bundle.sample(frame, track="K", key=["eventNumber"])
    )
    plain = frame.rename(columns={"K_P": "P", "K_ETA": "ETA"})
    found = bundle.sample(plain)
    assert found.columns.tolist() == ["DLLk", "DLLp", "pidgan_status"]
    generated = bundle.generate(plain, seed=1)
    pd.testing.assert_frame_equal(found[["DLLk", "DLLp"]], generated)


def test_parts_are_the_whole(bundle: Bundle, frame: pd.DataFrame) -> None:
    whole = bundle.sample(frame, track="K")
    cuts = [0, 1, 300, 300, N]
    parts = [
        bundle.sample(frame[a:b], track="K", start=a)
        for a, b in itertools.pairwise(cuts)
    ]
    pd.testing.assert_frame_equal(pd.concat(parts), whole)
    for chunk in (1, 7, 10**6):
        found = pidgan.apply({"K": bundle}, frame[:50], chunk=chunk)
        pd.testing.assert_frame_equal(found[NEW], whole[:50])
    by_key = bundle.sample(frame, track="K", key=["eventNumber"])
    shuffled = bundle.sample(frame[::-3], track="K", key=["eventNumber"])
    pd.testing.assert_frame_equal(shuffled, by_key[::-3])


def test_series_in_a_dict_keep_their_order_whatever_their_index(
    bundle: Bundle, frame: pd.DataFrame
) -> None:
    rows = frame[::-1].assign(name=[f"row {i}" for i in frame.index[::-1]])
    found = pidgan.apply({"K": bundle}, {name: rows[name] for name in rows})
    expected = pidgan.apply({"K": bundle}, rows)
    pd.testing.assert_frame_equal(found, expected.reset_index(drop=True))


def test_a_unit_that_cannot_be_given_is_named(
    bundle: Bundle, frame: pd.DataFrame
) -> None:
    kev = frame.assign(K_P=frame["K_P"] * 1000)
    with pytest.raises(NtupleError, match=r"looks like keV.* multiply it by 0.001 f"):
        bundle.sample(kev, track="K")


def test_names_and_units_are_given_as_for_apply(
    bundle: Bundle, frame: pd.DataFrame
) -> None:
    expected = bundle.sample(frame, track="K")
    gev = frame.assign(K_P=frame["K_P"] / 1000)
    with pytest.raises(NtupleError, match=r"looks like GeV.* give units=\{'P': 'GeV'"):
        bundle.sample(gev, track="K")
    found = bundle.sample(gev, track="K", units={"P": "GeV"})
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    named = frame.rename(columns={"K_P": "momentum"})
    pd.testing.assert_frame_equal(
        bundle.sample(named, track="K", columns={"P": "momentum"}), expected
    )
    with pytest.raises(NtupleError, match=r"no column 'momentun'.*closest: 'momentum'"):
        bundle.sample(named, track="K", columns={"P": "momentun"})
    with pytest.raises(NtupleError, match=r"tried P; closest.*; give track='K'"):
        bundle.sample(frame)
    twice = bundle.sample(frame, track="K", scales={"P": 0.99})
    assert not twice["K_DLLk"].equals(expected["K_DLLk"])
    with pytest.warns(PidganWarning, match="P of K is outside the trained range"):
        bundle.sample(frame.assign(K_P=frame["K_P"] * 5), track="K")


def test_derived_conditions(bundle: Bundle, frame: pd.DataFrame) -> None:
    p, eta, phi = frame["K_P"], frame["K_ETA"], 0.3
    parts = frame.assign(
        K_PX=p / np.cosh(eta) * np.cos(phi),
        K_PY=p / np.cosh(eta) * np.sin(phi),
        K_PZ=p * np.tanh(eta),
    ).drop(columns=["K_P", "K_ETA"])
    found = bundle.sample(parts, track="K")
    expected = bundle.sample(frame, track="K")
    good = expected["K_pidgan_status"] == 0
    np.testing.assert_allclose(found[good], expected[good], rtol=1e-3, atol=1e-3)


BAD: dict[str, tuple[Callable[[pd.DataFrame], Any], str]] = {
    "missing": (lambda f: f[["K_ETA"]], "no column for condition P of K"),
    "empty": (lambda f: pd.DataFrame(), "no column for condition P of K"),
    "text": (lambda f: f.astype({"K_P": str}), "'K_P', needed for K, is of type str"),
    "object": (lambda f: f.astype({"K_P": object}), "'K_P'.* is of type object"),
    "category of text": (
        lambda f: f.assign(K_P=f["K_P"].astype(str).astype("category")),
        "'K_P'.* is of type category",
    ),
    "date": (
        lambda f: f.assign(K_P=pd.Timestamp("2026-01-01")),
        "'K_P'.* is of type datetime64",
    ),
    "complex": (lambda f: f.astype({"K_P": complex}), "'K_P'.* is of type complex"),
    "twice": (
        lambda f: pd.concat([f, f[["K_P"]]], axis=1),
        "'K_P'.* 2 columns of this name",
    ),
    "levels": (lambda f: pd.concat({"a": f}, axis=1), "have 2 levels of names"),
    "no names": (lambda f: f.set_axis(range(3), axis=1), "its columns are 0, 1, 2"),
    "lengths": (
        lambda f: {"K_P": f["K_P"].tolist(), "K_ETA": [1.0]},
        "different lengths, 'K_P' has 1000 rows and 'K_ETA' has 1",
    ),
    "numbers": (lambda f: {"K_P": 1.0, "K_ETA": 2.0}, "column 'K_P' is 1.0"),
    "names that are numbers": (lambda f: {1: [2.0]}, "1 is no name of a column"),
    "indexes": (
        lambda f: {"K_P": f["K_P"], "K_ETA": f["K_ETA"].sort_values()},
        "Series 'K_P' and 'K_ETA' have different indexes",
    ),
    "ragged list": (lambda f: {"K_P": [[1], [1, 2]]}, "column 'K_P' is"),
    "records in records": (
        lambda f: ak.Array([{"K_P": {"x": 1}, "K_ETA": 2.0}]),
        r"'K_P'.* is of type \{x: int64\}",
    ),
    "texts of awkward": (
        lambda f: ak.Array([{"K_P": "a", "K_ETA": 2.0}]),
        "'K_P'.* is of type string",
    ),
    "axes": (
        lambda f: np.array(f.to_records(index=False)).reshape(2, -1),
        "has 2 axes, expected one",
    ),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_rows_that_do_not_fit_are_refused(
    bundle: Bundle, frame: pd.DataFrame, make: Any, message: str
) -> None:
    with pytest.raises(NtupleError, match=message) as caught:
        bundle.sample(make(frame), track="K")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rows", [5, None, [1, 2], "x.root", np.ones((3, 2))])
def test_other_things_are_no_rows(bundle: Bundle, rows: Any) -> None:
    with pytest.raises(TypeError, match=r"frame is .*expected a DataFrame"):
        bundle.sample(rows)


def test_missing_values_of_keys_are_refused(
    bundle: Bundle, frame: pd.DataFrame
) -> None:
    lost = frame.astype({"eventNumber": "Int64"})
    lost.loc[5, "eventNumber"] = pd.NA
    with pytest.raises(NtupleError, match="'eventNumber' holds a null"):
        bundle.sample(lost, track="K", key=["eventNumber"])
    masked = np.ma.array(frame.to_records(index=False))
    masked["eventNumber"][5] = np.ma.masked
    with pytest.raises(NtupleError, match="'eventNumber' holds a null"):
        bundle.sample(masked, track="K", key=["eventNumber"])


def test_masked_values_are_missing(bundle: Bundle, frame: pd.DataFrame) -> None:
    columns = {k: np.ma.array(v.to_numpy()) for k, v in frame.items()}
    columns["K_P"][20] = np.ma.masked
    found = bundle.sample(columns, track="K")
    assert found["K_pidgan_status"][20] == 2
    expected = bundle.sample(frame, track="K")
    pd.testing.assert_frame_equal(found.drop(20), expected.drop(20))


def test_categories_of_numbers_are_numbers(bundle: Bundle, frame: pd.DataFrame) -> None:
    rounded = frame.assign(K_ETA=frame["K_ETA"].round(1))
    expected = bundle.sample(rounded, track="K")
    category = rounded.astype({"K_ETA": "category"})
    pd.testing.assert_frame_equal(bundle.sample(category, track="K"), expected)


def test_no_rows_give_no_rows(bundle: Bundle, frame: pd.DataFrame) -> None:
    found = bundle.sample(frame[:0], track="K")
    assert found.shape == (0, 3)
    assert found.dtypes.tolist() == bundle.sample(frame, track="K").dtypes.tolist()
    assert len(pidgan.apply({"K": bundle}, frame[:0])) == 0


def test_tracks_in_nested_arrays_have_a_row_each(
    bundle: Bundle, frame: pd.DataFrame, tmp_path: Path
) -> None:
    counts = np.array([2, 0, 3, N - 5])
    nested = {k: ak.unflatten(v.to_numpy(), counts) for k, v in frame.items()}
    rows = ak.zip(nested, depth_limit=1)
    whole = pidgan.apply({"K": bundle}, rows)
    assert ak.num(whole["K_DLLk"]).tolist() == counts.tolist()
    found = bundle.sample(rows, track="K")
    assert found.index.names == ["entry", "subentry"]
    assert found.index[:5].tolist() == [(0, 0), (0, 1), (2, 0), (2, 1), (2, 2)]
    for name in NEW:
        np.testing.assert_array_equal(found[name], ak.flatten(whole[name]))
    ak.to_parquet(rows, tmp_path / "in.parquet", extensionarray=False)
    pidgan.apply({"K": bundle}, tmp_path / "in.parquet", tmp_path / "out.parquet")
    stored = ak.from_parquet(tmp_path / "out.parquet")
    for name in NEW:
        np.testing.assert_array_equal(found[name], ak.flatten(stored[name]))
    with pytest.raises(NtupleError, match="cannot hold; give an awkward array"):
        pidgan.apply({"K": bundle}, nested)


def test_a_collection_chooses_by_columns(
    bundle: Bundle, frame: pd.DataFrame, tmp_path: Path
) -> None:
    paths = []
    for number, magnet in enumerate(("up", "down")):
        path = tmp_path / f"{magnet}.onnx"
        card = make_card(
            sample=make_card().sample.model_copy(
                update={"data_taking": {"polarity": magnet}}
            )
        )
        offset = 3.0 * number
        path.write_bytes(toy_onnx(with_self_test(card, offset=offset), offset=offset))
        paths.append(path)
    collect(paths, tmp_path / "kaons.toml")
    collection = Collection.open(tmp_path / "kaons.toml")
    rows = frame.assign(K_TRUEID=321, Polarity=np.resize([1, -1], N))
    found = collection.sample(rows, track="K")
    up, down = (open_bundle(path).sample(frame, track="K") for path in paths)
    expected = up.where(rows["Polarity"] == 1, down)
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(NtupleError, match="no bundle of the collection serves 2 of"):
        collection.sample(rows.replace({"Polarity": {1: 0}})[:4], track="K")
    lost = collection.sample(rows.assign(Polarity=0)[:4], track="K", gaps="nan")
    assert lost["K_pidgan_status"].tolist() == [4] * 4


def test_rows_in_another_order_are_no_array(
    bundle: Bundle, frame: pd.DataFrame
) -> None:
    rows = frame.rename(columns={"K_P": "P", "K_ETA": "ETA"})[["P", "ETA"]]
    z = np.random.default_rng(2).standard_normal((N, 3)).astype(np.float32)
    expected = bundle.generate(rows.to_numpy(), z)
    for same in (rows, rows.to_records(index=False), dict(rows.items())):
        np.testing.assert_array_equal(bundle.generate(same, z), expected)
    with pytest.raises(ValueError, match="has the columns ETA, P, expected P, ETA"):
        bundle.generate(rows[["ETA", "P"]], z)
    with pytest.raises(ValueError, match=r"conditions has no column 'P'.*closest: 'p'"):
        bundle.generate(rows.rename(columns={"P": "p"}), z)
    with pytest.raises(ValueError, match="columns P, ETA, x, expected P, ETA"):
        bundle.generate(rows.assign(x=1.0), z)
    with pytest.raises(ValueError, match=r"shape \(1000, 1\), expected \(n, 2\)"):
        bundle.generate(rows.to_numpy()[:, :1], z)
