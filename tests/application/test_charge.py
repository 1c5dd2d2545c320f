"""The charge of a track as a condition: a branch, or the sign of a PDG id."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_generator import ToyGenerator, make_card

from pidgan.application.apply import apply
from pidgan.application.conditions import Conditions
from pidgan.bundle.card import CardVariable
from pidgan.errors import NtupleError
from pidgan.files.tables import read_columns, write_trees
from pidgan.files.trees import Source
from pidgan.sample.loading import load_sample

N = 60
PATTERNS = load_sample("run3_dstar_k").conditions[-1].patterns
CHARGE = CardVariable(
    name="CHARGE", unit="1", range=(-1, 1), categories=(-1, 1), patterns=PATTERNS
)


class Charged(ToyGenerator):
    """A generator whose first target is the charge that it is given."""

    def generate(self, conditions: np.ndarray, noise: np.ndarray) -> np.ndarray:
        found = super().generate(conditions, noise)
        return np.column_stack([conditions[:, 2], found[:, 1]]).astype(np.float32)


def generator() -> ToyGenerator:
    card = make_card()
    return Charged(card=make_card(conditions=(*card.conditions, CHARGE)))


def applied(folder: Path, branches: dict[str, Any], **given: Any) -> Any:
    rng = np.random.default_rng(1)
    tracks = {"K_P": rng.uniform(5e3, 9e4, N), "K_ETA": rng.uniform(2, 4, N)}
    write_trees(folder / "a.root", {"T": tracks | branches}, overwrite=True)
    paths = folder / "a.root", folder / "b.root"
    summary = apply({"K": generator()}, *paths, overwrite=True, **given)
    output = Source(str(folder / "b.root"), "T")
    return summary, read_columns(output, ["K_DLLk"])["K_DLLk"]


@pytest.mark.parametrize(
    ("branch", "values", "found"),
    [
        ("K_CHARGE", (-1, 1), "K_CHARGE"),
        ("K_trackcharge", (-1, 1), "K_trackcharge"),
        ("K_Q", (-1, 1), "K_Q"),
        ("K_charge", (-1, 1), "K_charge"),
        ("K_ID", (-321, 321), "charge_from_pdg_id(K_ID)"),
        ("K_ID", (13, -13), "charge_from_pdg_id(K_ID)"),
        ("K_ID", (11, 211), "charge_from_pdg_id(K_ID)"),
    ],
)
def test_the_charge_is_found(
    tmp_path: Path, branch: str, values: tuple[int, int], found: str
) -> None:
    chosen = np.arange(N) % 3 > 0
    stored = np.where(chosen, values[1], values[0]).astype(np.int32)
    summary, charges = applied(tmp_path, {branch: stored})
    assert summary.mapping["K"]["CHARGE"] == found
    np.testing.assert_array_equal(charges, np.where(chosen, 1, -1))


def test_an_id_without_charge_is_missing(tmp_path: Path) -> None:
    ids = np.where(np.arange(N) < 4, 0, 321).astype(np.int32)
    with pytest.warns(match="CHARGE of K is outside"):
        summary, charges = applied(tmp_path, {"K_ID": ids})
    assert summary.counts["K"]["missing_condition"] == 4
    assert np.isnan(charges[:4]).all()


def test_a_number_of_an_event_is_no_pdg_id(tmp_path: Path) -> None:
    with pytest.raises(NtupleError, match="no branch for condition CHARGE of K"):
        applied(tmp_path, {"ID": np.full(N, 321, np.int32)})
    named = Conditions(branches={"ID": "ID"})
    summary, _ = applied(tmp_path, {"ID": np.full(N, 321, np.int32)}, conditions=named)
    assert summary.mapping["K"]["CHARGE"] == "charge_from_pdg_id(ID)"
