"""The record in an output: it follows the file, and fits nothing but its content."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from toy_generator import ToyGenerator, location, make_card

from pidgan.application.apply import apply
from pidgan.application.fingerprints import Fingerprints, add_up, fingerprint
from pidgan.application.record import find_made, key_names, read_lines
from pidgan.bundle.card import Card
from pidgan.errors import NtupleError, PidganWarning
from pidgan.files.tables import Source, iterate_entries, read_columns, write_trees
from pidgan.files.trees import RECORD

N = 500


def kaon(**changes: Any) -> ToyGenerator:
    return ToyGenerator(card=make_card(**changes))


def sha(generator: ToyGenerator) -> str:
    return hashlib.sha256(generator.card.to_json().encode()).hexdigest()


def events(n: int = N, seed: int = 1) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "run": rng.integers(1, 9, n).astype(np.int32),
        **{f"{t}_P": rng.uniform(5e3, 9e4, n) for t in ("K", "pi")},
        **{f"{t}_ETA": rng.uniform(2, 4.5, n) for t in ("K", "pi")},
    }


def write(path: Path, **given: Any) -> Path:
    write_trees(path, {"T" if path.suffix == ".root" else "": events(**given)})
    return path


def source(path: Path) -> Source:
    return Source(str(path), "T" if path.suffix == ".root" else None)


@pytest.mark.parametrize("suffix", ["root", "parquet", "npz"])
@pytest.mark.parametrize("mode", ["append", "friend"])
def test_the_record_fits_the_content(tmp_path: Path, suffix: str, mode: str) -> None:
    path, output = write(tmp_path / f"a.{suffix}"), tmp_path / f"b.{suffix}"
    given: Any = {"mode": mode, "key": ("run",), "suffix": "_gen", "chunk": 77}
    apply({"K": kaon()}, path, output, seed=3, **given)
    (line,) = read_lines(output)
    manifest = json.loads(Path(f"{output}.json").read_text())
    assert line["request"] == manifest["request"]
    (made,) = find_made(source(output))["K"]
    assert made.entries == N
    assert [one["sha256"] for one in made.bundles] == [sha(kaon())]
    assert made.request["seed"] == 3
    assert key_names([made]) == ("run",)
    assert made.mapping == {"P": "K_P [MeV]", "ETA": "K_ETA"}
    assert made.branches is not None
    assert list(made.branches) == [
        "K_DLLk_gen",
        "K_DLLp_gen",
        "K_pidgan_status_gen",
    ]
    for names, file in ((made.branches, output), (made.inputs, path)):
        found = Fingerprints(names)
        for arrays in iterate_entries(source(file), list(names), chunk=123):
            found.add(arrays)
        assert found.sums == names
        assert found.entries == N


def test_a_fingerprint_adds_up_and_changes_with_a_value() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=100_000).astype(np.float32)
    values[:10] = np.nan
    parts = [{"x": fingerprint(values[:777])}, {"x": fingerprint(values[777:])}]
    assert add_up(parts) == {"x": fingerprint(values)}
    assert add_up([{"x": 1, "y": 2}, {"x": 3}]) == {"x": 4}
    assert add_up([]) == {}
    assert fingerprint(values[rng.permutation(len(values))]) == fingerprint(values)
    nested = ak.unflatten(values, rng.multinomial(100_000, np.full(9, 1 / 9)))
    assert fingerprint(nested) == fingerprint(values.reshape(-1, 4))
    assert fingerprint(values.astype(np.float64)) == fingerprint(values)
    seen = {fingerprint(values)}
    for place in range(20):
        changed = values.copy()
        changed[100 + place] = np.nextafter(changed[100 + place], np.float32(9))
        seen.add(fingerprint(changed))
    # Two changes of which one undoes the other in the sum of the values.
    swapped = values.copy()
    swapped[200] += 1
    swapped[201] -= 1
    seen.add(fingerprint(swapped))
    assert len(seen) == 22


def pairs_of(arrays: dict[str, Any], chunk: int = N) -> dict[tuple[str, str], int]:
    made = [name for name in arrays if name.startswith("y")]
    read = [name for name in arrays if name.startswith("x")]
    found = Fingerprints(arrays, [(m, r) for m in made for r in read])
    for start in range(0, N, chunk):
        found.add({name: v[start : start + chunk] for name, v in arrays.items()})
    alone = {name: fingerprint(values) for name, values in arrays.items()}
    assert found.sums == alone
    return found.pairs


def shapes() -> dict[str, dict[str, Any]]:
    """Columns of one number an entry, of two, and of any number."""
    rng = np.random.default_rng(1)
    n_tracks = rng.integers(0, 4, N)
    several = ak.unflatten(rng.normal(size=n_tracks.sum()), n_tracks)
    one = {"y1": rng.normal(size=N), "y2": rng.integers(0, 9, N).astype(np.int32)}
    two = {"y1": rng.normal(size=(N, 2)), "x1": rng.normal(size=(N, 2))}
    of_event = {"x2": rng.integers(0, 400, N).astype(np.int32)}
    return {
        "one": one | {"x1": rng.normal(size=N).astype(np.float32)} | of_event,
        "two": two | of_event,
        "any": {"y1": several, "x1": -several} | of_event,
    }


@pytest.mark.parametrize("shape", shapes())
def test_a_pair_of_columns_knows_the_rows_that_it_has_in_common(shape: str) -> None:
    columns = shapes()[shape]
    found = pairs_of(columns)
    assert found == pairs_of(columns, chunk=77)
    order = np.random.default_rng(2).permutation(N)
    assert pairs_of({name: v[order] for name, v in columns.items()}) == found
    parts = [{k: v[part] for k, v in columns.items()} for part in (order[:99],)]
    assert pairs_of(parts[0]) != found
    for name in columns:
        if shape == "any" and name != "x2":
            continue  # Entries with other numbers of tracks do not fit at all.
        moved = pairs_of(columns | {name: columns[name][order]})
        changed = {pair for pair, value in moved.items() if value != found[pair]}
        assert changed == {pair for pair in found if name in pair}
        swap = np.arange(N)
        swap[[5, 17]] = swap[[17, 5]]
        assert pairs_of(columns | {name: columns[name][swap]}) != found


def test_a_second_application_keeps_what_still_holds(tmp_path: Path) -> None:
    path = write(tmp_path / "a.root")
    first, second, third = (tmp_path / f"{n}.root" for n in ("b", "c", "d"))
    pion = kaon(species="pi+")
    apply({"K": kaon()}, path, first)
    apply({"pi": pion}, first, second)
    found = find_made(source(second))
    assert [len(found[t]) for t in ("K", "pi")] == [1, 1]
    assert found["K"] == find_made(source(first))["K"]
    other = kaon(seed=2)
    apply({"K": other}, second, third, mode="replace")
    found = find_made(source(third))
    assert [one["sha256"] for one in found["K"][0].bundles] == [sha(other)]
    assert [len(found[t]) for t in ("K", "pi")] == [1, 1]
    # The rerun finds its own lines among them.
    assert apply({"K": other}, second, third, mode="replace").skipped
    apply({"K": kaon()}, second, tmp_path / "f.root", mode="friend")
    assert list(find_made(source(tmp_path / "f.root"))) == ["K"]


def test_a_replaced_branch_has_the_fingerprint_of_its_type(tmp_path: Path) -> None:
    data = events() | {"K_DLLk": np.zeros(N, dtype=np.float64)}
    write_trees(tmp_path / "a.root", {"T": data})
    apply({"K": kaon()}, tmp_path / "a.root", tmp_path / "b.root", mode="replace")
    (made,) = find_made(source(tmp_path / "b.root"))["K"]
    frame = read_columns(source(tmp_path / "b.root"), ["K_DLLk"])
    assert frame["K_DLLk"].dtype == np.float64
    assert made.branches is not None
    assert made.branches["K_DLLk"] == fingerprint(frame["K_DLLk"].to_numpy())


def test_trees_have_lines_of_their_own(tmp_path: Path) -> None:
    trees = {"D/T": events(), "E/T": events(seed=2, n=30)}
    write_trees(tmp_path / "a.root", trees)
    files = [f"{tmp_path}/a.root:{tree}" for tree in trees]
    summary = apply({"K": kaon()}, files, tmp_path / "b.root")
    lines = read_lines(tmp_path / "b.root")
    assert [(line["tree"], line["entries"]) for line in lines] == [
        ("D/T", N),
        ("E/T", 30),
    ]
    (made,) = find_made(Source(f"{tmp_path}/b.root", "/E/T;1"))["K"]
    assert made.entries == 30
    assert summary.counts["K"]["generated"] == N + 30
    again = apply({"K": kaon()}, files, tmp_path / "b.root")
    assert again.counts == summary.counts
    assert len(again.skipped) == 1


def test_a_damaged_record_is_named_before_the_work(tmp_path: Path) -> None:
    apply({"K": kaon()}, write(tmp_path / "a.root"), tmp_path / "b.root")
    with uproot.update(tmp_path / "b.root") as file:
        del file[RECORD]
        tree = file.mktree(RECORD, {"text": np.uint8})
        tree.extend({"text": np.frombuffer(b'{"tree": "T"}\n', dtype=np.uint8)})
    with pytest.raises(NtupleError, match=r"its record, pidgan_record, is damaged"):
        apply({"pi": kaon()}, tmp_path / "b.root", tmp_path / "c.root")
    assert not (tmp_path / "c.root").exists()
    apply({"pi": kaon()}, tmp_path / "b.root", tmp_path / "c.root", mode="friend")


def old_manifest(path: Path, **changes: Any) -> None:
    """Make of an output what version 0.1 left: no record, and a manifest."""
    content = json.loads(Path(f"{path}.json").read_text())
    with uproot.update(path) as file:
        del file[RECORD]
    content |= {"schema": 2, "output": {"size": path.stat().st_size}} | changes
    del content["outside"]
    Path(f"{path}.json").write_text(json.dumps(content))


def test_a_manifest_of_version_0_1_counts_if_it_fits(tmp_path: Path) -> None:
    path, output = write(tmp_path / "a.root"), tmp_path / "b.root"
    first = apply({"K": kaon()}, path, output, suffix="_gen")
    old_manifest(output)
    (made,) = find_made(source(output))["K"]
    assert (made.entries, made.branches) == (N, None)
    assert made.has("K_DLLk_gen")
    assert not made.has("K_DLLk")
    again = apply({"K": kaon()}, path, output, suffix="_gen")
    assert again.skipped == (str(output),)
    assert again.counts == first.counts
    with output.open("ab") as file:
        file.write(b"more")
    assert find_made(source(output)) == {}
    with pytest.raises(NtupleError, match=r"b.root exists and differs in output"):
        apply({"K": kaon()}, path, output, suffix="_gen")


def test_a_manifest_does_not_stand_for_a_lost_record(tmp_path: Path) -> None:
    path, output = write(tmp_path / "a.root"), tmp_path / "b.root"
    apply({"K": kaon()}, path, output)
    old_manifest(output, schema=3)
    assert find_made(source(output)) == {}
    with pytest.raises(NtupleError, match=r"b.root exists; choose another name"):
        apply({"K": kaon()}, path, output)


# Rows without a measurement, and far outside


@dataclass(frozen=True, kw_only=True)
class LogGenerator:
    """A generator whose first step is log P, as that of most bundles."""

    card: Card

    def generate(self, conditions: np.ndarray, noise: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            y = location(conditions) + 0 * np.log(conditions[:, :1])
        y[:, 1] = 1.0  # A target that does not depend on P is no target either.
        return (y + noise[:, :1]).astype(np.float32)


def test_rows_without_targets_are_not_called_generated(tmp_path: Path) -> None:
    data = events()
    special = [-5000.0, 0.0, -0.0, -1.0, np.nan, np.inf, -np.inf, 1e-40, 1e38, 2e4]
    data["K_P"][: len(special)] = special
    write_trees(tmp_path / "a.root", {"T": data})
    summary = apply(
        {"K": LogGenerator(card=make_card())}, tmp_path / "a.root", tmp_path / "b.root"
    )
    names = ["K_DLLk", "K_DLLp", "K_pidgan_status"]
    frame = read_columns(source(tmp_path / "b.root"), names)
    missing = frame["K_DLLk"].isna().to_numpy()
    assert missing[: len(special)].tolist() == 7 * [True] + 3 * [False]
    np.testing.assert_array_equal(frame["K_DLLp"].isna(), missing)
    status = frame["K_pidgan_status"].to_numpy()
    assert (status[missing] == 2).all()
    assert status[7:10].tolist() == [1, 1, 0]
    counts = summary.counts["K"]
    assert (counts["generated"], counts["missing_condition"]) == (N - 7, 7)
    assert counts["outside_range"] == 2
    assert summary.outside["K"] == {"P": (9, N), "ETA": (0, N)}


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.04, None),
        (0.2, r"ETA of K is outside the trained range \(1.5 to 5\) or no number in 100 "
         "of 500 rows, 20.0 %"),
        (1.0, "ETA of K is outside .* in ALL 500 rows, 100 %.* do not use"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [-1.0, 9.0, np.nan])
def test_many_rows_outside_are_a_warning(
    tmp_path: Path, share: float, text: str | None, value: float
) -> None:
    data = events()
    data["K_ETA"][: int(share * N)] = value
    write_trees(tmp_path / "a.root", {"T": data})
    request: Any = ({"K": kaon()}, tmp_path / "a.root", tmp_path / "b.root")
    if text is None:
        summary = apply(*request)
    else:
        with pytest.warns(PidganWarning, match=text):
            summary = apply(*request)
        with pytest.warns(PidganWarning, match=text):
            assert apply(*request).outside == summary.outside
    assert summary.outside["K"] == {"P": (0, N), "ETA": (int(share * N), N)}
    assert f"ETA outside the trained range: {int(share * N)} of 500" in summary.text()
    manifest = json.loads((tmp_path / "b.root.json").read_text())
    assert manifest["outside"]["K"]["ETA"] == [int(share * N), N]
    (line,) = read_lines(tmp_path / "b.root")
    assert line["tracks"]["K"]["outside"] == manifest["outside"]["K"]
