import hashlib
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pidgan.bundle.bundle import open_bundle
from pidgan.bundle.bundle_file import BLOCK_ROWS, seal
from pidgan.bundle.card import CardVariable, sample_targets
from pidgan.bundle.noise import entry_keys, keyed_normal
from pidgan.errors import BundleError, PidganWarning
from pidgan.files.tables import write_table

pytest.importorskip("onnx")

from toy_generator import (
    ToyGenerator,
    make_card,
    resealed,
    toy_onnx,
    unsealed,
    with_self_test,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "kaon.onnx"
    path.write_bytes(toy_onnx(with_self_test(make_card())))
    return path


def draws(n: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = np.stack([rng.uniform(3e3, 1e5, n), rng.uniform(1.5, 5, n)], axis=1)
    return x.astype(np.float32), rng.standard_normal((n, 3)).astype(np.float32)


def test_bundle_gives_the_targets_of_its_generator(path: Path) -> None:
    bundle = open_bundle(path)
    x, z = draws(5000)
    expected = ToyGenerator(card=bundle.card).generate(x, z)
    np.testing.assert_allclose(bundle.generate(x, z), expected, rtol=1e-5, atol=1e-5)
    assert bundle.generate(x, z).dtype == np.float32
    assert bundle.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert bundle.path == path


def test_table_of_conditions_gives_a_table_of_targets(path: Path) -> None:
    bundle = open_bundle(path)
    x, _ = draws(50)
    names = list(bundle.card.condition_names)
    frame = pd.DataFrame(x, columns=names, index=np.arange(50) + 7)
    found = bundle.generate(frame[names[::-1]].assign(other=1), seed=4)
    assert list(found) == list(bundle.card.target_names)
    assert found.index.equals(frame.index)
    np.testing.assert_array_equal(found, sample_targets(bundle, x, seed=4))
    with pytest.raises(ValueError, match=f"has no condition '{names[1]}'"):
        bundle.generate(frame[names[:1]])
    with pytest.raises(TypeError, match="ndarray, expected a table"):
        bundle.generate(x)  # type: ignore[call-overload]


def test_rows_of_a_large_graph_come_in_small_blocks(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = open_bundle(path)
    assert bundle.block_rows == BLOCK_ROWS
    x, z = draws(300)
    expected = bundle.generate(x, z)
    values = bundle.graph.values.values()  # noqa: PD011
    numbers = sum(value.size for value in values if value.per_row)
    monkeypatch.setattr("pidgan.bundle.bundle_file.BLOCK_NUMBERS", 70 * numbers)
    bundle = open_bundle(path)
    assert bundle.block_rows == 70
    np.testing.assert_allclose(bundle.generate(x, z), expected, rtol=1e-6)


def test_a_self_test_takes_seconds(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = open_bundle(path)
    cost = bundle.graph.operations
    monkeypatch.setattr("pidgan.bundle.bundle_file.BLOCK_OPERATIONS", 128 * cost)
    assert open_bundle(path).block_rows == 128  # 256 rows, two blocks
    monkeypatch.setattr("pidgan.bundle.bundle_file.TEST_BLOCKS", 1)
    with pytest.raises(BundleError, match=r"self-test needs .* for 256 rows, expected"):
        open_bundle(path)
    open_bundle(path, verify=False)


@pytest.mark.parametrize("threads", [1, 3])
def test_keys_make_the_noise_of_their_rows(path: Path, threads: int) -> None:
    x, _ = draws(5 * BLOCK_ROWS // 2)
    x[[7, BLOCK_ROWS]] = np.nan
    bundle = open_bundle(path, threads=threads)
    keys = entry_keys(seed=4, track="K", start=10, stop=10 + len(x))
    expected = bundle.generate(x, keyed_normal(keys, n_noise=bundle.card.n_noise))
    got = sample_targets(bundle, x, seed=4, track="K", start=10)
    np.testing.assert_array_equal(got, expected)
    assert np.isnan(got).all(axis=1).sum() == 2


def test_keys_must_be_one_for_each_row(path: Path) -> None:
    keys = np.zeros(2, dtype=np.uint64)
    with pytest.raises(ValueError, match=r"keys have shape \(2,\), expected \(3,\)"):
        open_bundle(path).generate_keyed(draws(3)[0], keys)


@pytest.mark.parametrize("threads", [1, 2])
def test_result_depends_neither_on_the_split_nor_on_threads(
    path: Path, threads: int
) -> None:
    x, z = draws(2 * BLOCK_ROWS + 17)
    whole = open_bundle(path, threads=1).generate(x, z)
    bundle = open_bundle(path, threads=threads)
    cuts = [0, 1, 700, BLOCK_ROWS, 2 * BLOCK_ROWS + 3, len(x)]
    parts = [bundle.generate(x[a:b], z[a:b]) for a, b in itertools.pairwise(cuts)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(bundle.generate(x, z), whole)


def test_no_rows(path: Path) -> None:
    assert open_bundle(path).generate(*draws(0)).shape == (0, 2)


def test_missing_condition_gives_nan_in_that_row_only(path: Path) -> None:
    bundle = open_bundle(path)
    x, z = draws(10)
    whole = bundle.generate(x, z)
    x[2, 1], x[7, 0] = np.nan, -np.inf
    y = bundle.generate(x, z)
    missing = np.isnan(y).all(axis=1)
    assert np.flatnonzero(missing).tolist() == [2, 7]
    np.testing.assert_array_equal(y[~missing], whole[~missing])


def test_targets_that_overflow_are_announced(path: Path) -> None:
    bundle = open_bundle(path)
    x, z = draws(3)
    z[1] = np.inf
    with pytest.warns(PidganWarning, match="1 of 3 rows have targets that are not"):
        bundle.generate(x, z)


@pytest.mark.parametrize(
    ("x_shape", "z_shape", "message"),
    [
        ((3, 3), (3, 3), r"conditions has shape \(3, 3\), expected \(n, 2\)"),
        ((3, 2), (3, 2), r"noise has shape \(3, 2\), expected \(n, 3\)"),
        ((3, 2), (4, 3), "3 rows of conditions but 4 of noise"),
    ],
)
def test_wrong_shape(
    path: Path, x_shape: tuple[int, int], z_shape: tuple[int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        open_bundle(path).generate(
            np.ones(x_shape, np.float32), np.ones(z_shape, np.float32)
        )


def test_rows_that_the_network_cannot_take_are_nan(kaon_bundle: Path) -> None:
    bundle = open_bundle(kaon_bundle)
    frame = bundle.reference()
    assert frame is not None
    x = frame[list(bundle.card.condition_names)].to_numpy(np.float32)[:300].copy()
    z = np.zeros((300, bundle.card.n_noise), np.float32)
    whole = bundle.generate(x, z)
    x[[7, 250], 0] = -np.float32(1e38), np.float32(3e38)
    with pytest.warns(PidganWarning, match="of 300 rows have targets that are not"):
        y = bundle.generate(x, z)
    rest = np.setdiff1d(np.arange(300), [7, 250])
    np.testing.assert_array_equal(y[rest], whole[rest])


def refused(path: Path, data: bytes, message: str, *, verify: bool = True) -> None:
    path.write_bytes(data)
    with pytest.raises(BundleError, match=message) as info:
        open_bundle(path, verify=verify)
    assert str(info.value).startswith(str(path))
    assert "\n" not in str(info.value)


def test_missing_file_names_its_neighbours(path: Path) -> None:
    with pytest.raises(BundleError, match=r"no such file.*closest: 'kaon.onnx'"):
        open_bundle(path.with_name("kaons.onnx"))
    with pytest.raises(BundleError, match="a folder of bundles, expected a bundle"):
        open_bundle(path.parent)


@pytest.mark.parametrize("data", [b"", b"root\x00\x01", b"{}", bytes(range(256))])
def test_other_files_are_refused(path: Path, data: bytes) -> None:
    refused(path, data, "expected a bundle")


@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_truncated_bundle_is_refused(path: Path, share: float) -> None:
    data = path.read_bytes()
    refused(path, data[: int(share * len(data))], "damaged or not an ONNX|no graph")


def test_oversized_file_is_refused_unread(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pidgan.bundle.bundle_file.MAX_BYTES", 1000)
    with pytest.raises(BundleError, match="expected at most 0 MiB"):
        open_bundle(path)


def test_onnx_of_others_is_refused(path: Path) -> None:
    refused(path, toy_onnx(None), r"not a pidgan bundle.*'pidgan_card' \(got: none\)")


def test_newer_card_is_refused(path: Path) -> None:
    text = make_card().to_json().replace('schema_version": 6', 'schema_version": 9')
    refused(path, toy_onnx(make_card(), card_text=text), "reads up to 7")


def test_custom_operator_is_refused(path: Path) -> None:
    data = toy_onnx(make_card(), custom_operator=True)
    refused(path, data, "operators of com.microsoft, expected only the ONNX standard")


def test_external_data_is_refused(path: Path) -> None:
    refused(path, toy_onnx(make_card(), external=True), "data in another file")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": "y"}, r"outputs are \['y'\], expected \['targets'\]"),
        ({"shapes": {"noise": [5, 3]}}, r"noise has shape \(5, 3\)"),
        ({"shapes": {"noise": ["n", 4]}}, r"cannot load|noise has shape"),
    ],
)
def test_ports_that_contradict_the_card(
    path: Path, changes: dict, message: str
) -> None:  # type: ignore[type-arg]
    refused(path, toy_onnx(with_self_test(make_card()), **changes), message)


def test_card_of_another_graph_is_refused(path: Path) -> None:
    refused(path, toy_onnx(make_card(n_noise=8)), r"expected \(n, 8\) by the card")
    target = (CardVariable(name="y", unit="1", range=(0, 1)),)
    refused(path, toy_onnx(make_card(targets=target)), r"expected \(n, 1\)")


def test_graph_that_onnxruntime_refuses(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of a graph that is rearranged, onnxruntime gets no byte of the file.
    monkeypatch.setattr("pidgan.bundle.session.channels_at_once", lambda: None)
    data = path.read_bytes()
    assert data.startswith(b"\x08\x08"), "version of the ONNX format"
    refused(path, b"\x08\x7f" + data[2:], "cannot load the graph")


def changed_weight(data: bytes) -> bytes:
    changed = bytearray(data)
    weight = data.find(np.array([-5e-5, 2e-5], dtype=np.float32).tobytes())
    assert weight > 0
    changed[weight + 2] ^= 0x10
    return bytes(changed)


def test_changed_numbers_are_damage(path: Path) -> None:
    refused(path, changed_weight(path.read_bytes()), "damaged: the checksum of its")
    data = path.read_bytes().replace(b'"seed": 1', b'"seed": 2')
    refused(path, data, "damaged: the checksum of its graph and card")


def test_self_test_finds_changed_numbers(path: Path) -> None:
    data = resealed(changed_weight(path.read_bytes()))
    refused(path, data, "self-test failed in .* rows; row 0, DLLk: got")
    assert open_bundle(path, verify=False).card.species == "K+"


def test_checksum_is_needed_from_schema_2_on(path: Path) -> None:
    card = with_self_test(make_card())
    refused(path, unsealed(toy_onnx(card)), "has no checksum, expected 'pidgan_sha256'")
    first = card.model_copy(update={"schema_version": 1})
    path.write_bytes(unsealed(toy_onnx(first)))
    assert open_bundle(path).card.schema_version == 1
    with pytest.raises(ValueError, match="without a checksum"):
        seal(toy_onnx(card))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "card is not JSON"),
        ('{"a": ' * 40 + "1" + "}" * 40, "nested deeper than 32"),
        ('{"a": "\\u001b[2J"}', "control character"),
        ('{"a": "\\ud800"}', "control character"),
        ('{"a": 1e999}', "inf is not finite"),
        ('{"a": NaN}', "nan is not finite"),
        ('"' + "a" * 2**24 + '"', "expected at most 16777216"),
    ],
)
def test_hostile_card_is_refused(path: Path, text: str, message: str) -> None:
    refused(path, toy_onnx(make_card(), card_text=text), message)


def test_self_test_excuses_one_row_at_an_edge(path: Path) -> None:
    card = with_self_test(make_card(), n=64)
    assert card.self_test is not None
    card.self_test["targets"][5][0] += 1
    path.write_bytes(toy_onnx(card))
    open_bundle(path)
    card.self_test["targets"][6][0] += 1
    refused(path, toy_onnx(card), "self-test failed in 2 of 64 rows")


@pytest.mark.parametrize(
    "test",
    [
        {},
        {"conditions": [[1, 2]], "noise": [[1, 2, 3]], "targets": [[1]]},
        {"conditions": [[1, 2]], "noise": [[1, 2, 3]] * 2, "targets": [[1, 2]]},
        {"conditions": [[1, 2]], "noise": [[1, 2, 3]], "targets": [[1, None]]},
        {"conditions": [], "noise": [], "targets": []},
    ],
)
def test_damaged_self_test(path: Path, test: dict) -> None:  # type: ignore[type-arg]
    refused(path, toy_onnx(make_card(self_test=test)), "the self-test is damaged")


def test_bundle_without_self_test(path: Path) -> None:
    refused(path, toy_onnx(make_card()), "the card has no self-test")
    open_bundle(path, verify=False)


def test_threads_must_be_positive(path: Path) -> None:
    with pytest.raises(ValueError, match="threads is 0"):
        open_bundle(path, threads=0)


def reference_frame() -> pd.DataFrame:
    x, z = draws(20)
    y = ToyGenerator(card=make_card()).generate(x, z)
    names = ("P", "ETA", "DLLk", "DLLp")
    frame = pd.DataFrame(dict(zip(names, np.hstack([x, y]).T, strict=True)))
    frame["weight"] = 1.0
    frame["weight_signal"] = 0.9
    return frame


def test_reference_is_read_and_checked(path: Path) -> None:
    assert open_bundle(path).reference() is None
    file = path.with_name("kaon.reference.parquet")
    write_table(file, reference_frame())
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    entry = {"file": file.name, "sha256": sha256, "rows": 20}
    path.write_bytes(toy_onnx(with_self_test(make_card(reference=entry))))
    read = open_bundle(path).reference()
    assert read is not None
    pd.testing.assert_frame_equal(read, reference_frame())

    write_table(file, reference_frame().head(10), overwrite=True)
    with pytest.raises(
        BundleError, match=r"reference.parquet is damaged or belongs to another file"
    ):
        open_bundle(path).reference()
    file.unlink()
    assert open_bundle(path).reference() is None


def test_reference_without_a_column(path: Path) -> None:
    file = path.with_name("kaon.reference.parquet")
    write_table(file, reference_frame().drop(columns="weight"))
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    entry = {"file": file.name, "sha256": sha256, "rows": 20}
    path.write_bytes(toy_onnx(with_self_test(make_card(reference=entry))))
    with pytest.raises(BundleError, match="no column 'weight'"):
        open_bundle(path).reference()
