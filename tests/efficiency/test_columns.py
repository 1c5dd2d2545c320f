"""Columns have a value for the rows that the map serves, NaN and a count for others."""

import json
import re
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from command_line import Run
from toy_generator import ToyGenerator, make_card
from toy_map import CUTS, DISCREPANCY, EDGES, GENERATED, make_map

from pidgan.application.apply import apply
from pidgan.application.generators import generator_hash
from pidgan.application.record import read_lines
from pidgan.efficiency.columns import write_efficiency_columns
from pidgan.efficiency.pid_efficiency import pid_efficiency
from pidgan.efficiency.usable_rows import has_targets, is_species
from pidgan.errors import PidganWarning
from pidgan.files.tables import write_trees

N = 1500
CUT = "DLLk > 0"
KAON, PION = (ToyGenerator(card=make_card(species=s)) for s in ("K+", "pi+"))


def map_of(generator: ToyGenerator, **changes: Any) -> Any:
    card = generator.card
    own = {"species": card.species, "pdgid": 321 if card.species == "K+" else 211}
    metadata = make_map().metadata | own
    metadata["bundle_sha256"] = generator_hash(generator)
    return make_map(metadata=metadata, **changes)


def events(seed: int = 1) -> dict[str, np.ndarray]:
    """A kaon and a pion hypothesis each, with kaons of both signs and pions."""
    rng = np.random.default_rng(seed)
    columns = {}
    for track in ("K", "pi"):
        columns[f"{track}_P"] = rng.uniform(3.1e3, 9.9e4, N).astype(np.float32)
        columns[f"{track}_ETA"] = rng.uniform(2, 4.9, N).astype(np.float32)
        columns[f"{track}_TRUEID"] = rng.choice([321, -321, 211, -211], N)
    return columns


def applied(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    source = path.with_name(f"in-{path.name}")
    write_trees(source, {"T": columns})
    tracks = {"K": KAON} | ({"pi": PION} if "pi_P" in columns else {})
    apply(tracks, source, path, **options)
    return path


def read(path: Path, name: str) -> Any:
    with uproot.open(path) as file:
        return file[f"T/{name}"].array(library="np")


def expected(columns: dict[str, Any], generator: ToyGenerator, track: str) -> Any:
    """The efficiency of the map, NaN where the track is of another species."""
    place = np.searchsorted(EDGES, columns[f"{track}_P"], side="right") - 1
    own = 321 if generator is KAON else 211
    nominal = (GENERATED + DISCREPANCY)[0][place]
    return np.where(np.abs(columns[f"{track}_TRUEID"]) == own, nominal, np.nan)


@pytest.mark.parametrize("chunk", [200_000, 77])
def test_another_species_has_no_efficiency(tmp_path: Path, chunk: int) -> None:
    """True pions do not get the efficiency of kaons; kaons of both signs do."""
    columns = events()
    file = applied(tmp_path / "a.root", columns)
    maps = {"K": map_of(KAON), "pi": map_of(PION)}
    found = write_efficiency_columns(
        maps,
        file,
        tmp_path / "eff.root",
        cuts=CUT,
        species_from="TRUEID",
        chunk=chunk,
    )
    assert list(found) == [tmp_path / "eff.root"]
    kaon, pion = expected(columns, KAON, "K"), expected(columns, PION, "pi")
    for track, values in (("K_", kaon), ("pi_", pion), ("", kaon * pion)):
        eff, err = (read(found.paths[0], f"{track}PIDCalib{n}") for n in ("Eff", "Err"))
        np.testing.assert_allclose(eff, values)
        np.testing.assert_array_equal(np.isnan(err), np.isnan(values))
    n_pions = np.count_nonzero(np.isnan(kaon))
    assert n_pions > 0.4 * N
    assert found.counts["K"]["other_species"] == n_pions
    assert found.counts["K"]["rows"] == N
    n_both = np.count_nonzero(~np.isnan(kaon * pion))
    assert found.counts["PIDCalibEff"] == {"rows": n_both, "unphysical": 0}
    assert f"K: rows: {N}, other_species: {n_pions}" in found.text()
    # The rows with a value are those whose efficiency is quoted.
    used = pid_efficiency(maps, file, cuts=CUT, species_from="TRUEID")
    assert used[0].n_rows == n_both
    (line,) = read_lines(found.paths[0])
    assert line["counts"] == found.counts
    assert line["request"]["species_from"] == "TRUEID"
    # Without truth, every track is what its map is for.
    every = write_efficiency_columns(maps, file, tmp_path / "all.root", cuts=CUT)
    assert not np.isnan(read(every.paths[0], "PIDCalibEff")).any()
    assert every.counts["K"]["other_species"] == 0


@pytest.mark.parametrize("elsewhere", ["nan", "keep"])
def test_rows_that_were_not_generated_have_no_efficiency(
    tmp_path: Path, elsewhere: str
) -> None:
    """Of another species than the bundle's, or not selected, by the status of apply."""
    columns = {k: v for k, v in events().items() if k.startswith("K_")}
    columns["K_DLLk"] = columns["K_DLLp"] = np.full(N, 9.0, dtype=np.float32)
    columns["K_P"][:7] = np.nan
    file = applied(
        tmp_path / "a.root",
        columns,
        mode="replace",
        where="K_P > 20000",
        elsewhere=elsewhere,
        species_from="TRUEID",
    )
    found = write_efficiency_columns(
        {"K": map_of(KAON)}, file, tmp_path / "eff.root", cuts=CUT
    )
    is_kaon = np.abs(columns["K_TRUEID"]) == 321
    is_made = is_kaon & (columns["K_P"] > 2e4)
    values = read(found.paths[0], "PIDCalibEff")
    np.testing.assert_array_equal(~np.isnan(values), is_made)
    assert found.counts["K"]["no_targets"] == np.count_nonzero(is_kaon & ~is_made)
    with pytest.warns(PidganWarning, match="have no generated targets for K"):
        used = pid_efficiency(
            {"K": map_of(KAON)}, file, cuts=CUT, species_from="TRUEID"
        )
    assert used[0].n_rows == np.count_nonzero(is_made)
    # Columns under another suffix say nothing of these.
    again = write_efficiency_columns(
        {"K": map_of(KAON)},
        file,
        tmp_path / "other.root",
        cuts=CUT,
        suffix="_other",
        species_from="TRUEID",
    )
    assert again.counts["K"]["other_species"] == np.count_nonzero(~is_kaon)
    assert again.counts["K"]["no_targets"] == 0
    assert again.counts["K"]["no_condition"] == np.count_nonzero(is_kaon[:7])


def test_unphysical_values_are_counted_and_not_clipped(tmp_path: Path) -> None:
    columns = {k: v for k, v in events().items() if k.startswith("K_")}
    file = applied(tmp_path / "a.root", columns)
    shifted = np.array([[0.12, 0.02, -0.7], [0.0, 0.0, 0.0]])
    own = map_of(KAON, discrepancy=shifted)
    place = np.searchsorted(EDGES, columns["K_P"], side="right") - 1
    nominal = (GENERATED + shifted)[0][place]
    n_wrong = np.count_nonzero((nominal < 0) | (nominal > 1))
    assert 100 < n_wrong < N
    message = f"{n_wrong} of {N} values of K_PIDCalibEff lie outside [0, 1] and are not"
    with pytest.warns(PidganWarning, match=re.escape(message)):
        found = write_efficiency_columns(
            {"K": own}, file, tmp_path / "eff.root", cuts=CUT, chunk=100
        )
    np.testing.assert_allclose(read(found.paths[0], "K_PIDCalibEff"), nominal)
    assert found.counts["K_PIDCalibEff"] == {"rows": N, "unphysical": n_wrong}
    assert found.counts["PIDCalibEff"]["unphysical"] == n_wrong


def test_rows_outside_the_map_are_counted_by_condition(tmp_path: Path) -> None:
    columns = {k: v for k, v in events().items() if k.startswith("K_")}
    file = applied(tmp_path / "a.root", columns)
    own = map_of(KAON, binning={"P": (3e3, 1e4, 3e4, 5e4)})
    outside = np.count_nonzero(columns["K_P"] > 5e4)
    message = rf"{outside} of {N} rows of K lie outside .* have NaN \(P: {outside}\)"
    with pytest.warns(PidganWarning, match=message):
        found = write_efficiency_columns(
            {"K": own}, file, tmp_path / "eff.root", cuts=CUT
        )
    assert found.counts["K"]["outside_map"] == outside
    assert found.counts["K"]["outside_map, P"] == outside
    assert np.isnan(read(found.paths[0], "PIDCalibEff")).sum() == outside


def test_tracks_of_collections(tmp_path: Path) -> None:
    flat = {k: v for k, v in events().items() if k.startswith("K_")}
    counts = np.random.default_rng(1).multinomial(N, np.full(400, 1 / 400))
    nested = {name: ak.unflatten(values, counts) for name, values in flat.items()}
    file = applied(tmp_path / "a.root", nested)
    found = write_efficiency_columns(
        {"K": map_of(KAON)},
        file,
        tmp_path / "eff.root",
        cuts=CUT,
        species_from="TRUEID",
        chunk=33,
    )
    with uproot.open(found.paths[0]) as tree:
        values = tree["T/K_PIDCalibEff"].array()
    assert ak.num(values).tolist() == counts.tolist()
    np.testing.assert_allclose(ak.flatten(values), expected(flat, KAON, "K"))


def test_the_command_line_counts_them(tmp_path: Path, run: Run) -> None:
    columns = {k: v for k, v in events().items() if k.startswith("K_")}
    file, (map_file, *_) = (
        applied(tmp_path / "a.root", columns),
        map_of(KAON).save(tmp_path / "map.json"),
    )
    words = ("efficiency", file, "--map", f"K={map_file}", "--species-from", "TRUEID")
    result = run(*words, "--columns", tmp_path / "eff.root", "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)["columns"]
    n_pions = np.count_nonzero(np.abs(columns["K_TRUEID"]) == 211)
    assert found["K"]["other_species"] == n_pions
    assert f"other_species: {n_pions}" in result.err
    assert sum(name.endswith("PIDCalibEff") for name in found) == 2 * len(CUTS)
    values = read(tmp_path / "eff.root", "K_DLLk_gt_0_PIDCalibEff")
    np.testing.assert_allclose(values, expected(columns, KAON, "K"))


def test_species_and_status_of_a_row() -> None:
    ids = np.array([321, -321, 211, 0], dtype=np.int32)
    assert is_species(ids, 321).tolist() == [True, True, False, False]
    assert is_species(ids, -321).tolist() == [True, True, False, False]
    assert is_species(ids, 321, is_signed=True).tolist() == [True, False, False, False]
    status = np.array([0, 1, 2, 4, 8, 16, 32, 64, 1 | 2], dtype=np.int8)
    expected = [True, True, False, False, True, False, True, True, False]
    assert has_targets(status).tolist() == expected
