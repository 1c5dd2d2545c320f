"""What `apply` was told is not asked for again, and not contradicted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_generator import P_RANGE, ToyGenerator, make_card
from toy_map import make_map

from pidgan.application.apply import apply
from pidgan.application.conditions import Conditions
from pidgan.application.generators import generator_hash
from pidgan.application.quantile_map import QuantileMap
from pidgan.efficiency.columns import write_efficiency_columns
from pidgan.efficiency.pid_efficiency import pid_efficiency
from pidgan.errors import MapError
from pidgan.files.tables import write_trees

GENERATOR = ToyGenerator(card=make_card())
METADATA = {**make_map().metadata, "bundle_sha256": generator_hash(GENERATOR)}
MAPS = {"K": make_map(metadata=METADATA)}
HALF = QuantileMap(simulation=P_RANGE, data=(P_RANGE[0], 0.5 * P_RANGE[1]))


def applied(folder: Path, name: str, **options: Any) -> Path:
    rng = np.random.default_rng(1)
    source = folder / "in.root"
    if not source.exists():
        columns = {
            "K_MOMENTUM": rng.uniform(8, 60, 800),
            "K_ETA": rng.uniform(1.6, 4.9, 800),
            "K_TRUEID": rng.choice([321, -321, 211], 800),
            "K_OTHERID": np.full(800, 321),
        }
        write_trees(source, {"DecayTree": columns})
    output = folder / f"{name}.root"
    apply({"K": GENERATOR}, source, output, **options)
    return output


def conditions(**changes: Any) -> Conditions:
    return Conditions(branches={"K.P": "K_MOMENTUM"}, units={"P": "GeV"}, **changes)


@pytest.mark.parametrize(
    "more", [{}, {"scales": {"P": 0.9}}, {"quantile_maps": {"P": HALF}}]
)
def test_options_come_from_the_record(tmp_path: Path, more: dict[str, Any]) -> None:
    own = conditions(**more)
    path = applied(
        tmp_path, "out", conditions=own, species_from="TRUEID", suffix="_gen"
    )
    found = pid_efficiency(MAPS, path, cuts="DLLk > 5")
    given = pid_efficiency(
        MAPS,
        path,
        cuts="DLLk > 5",
        conditions=own,
        species_from="TRUEID",
        suffix="_gen",
    )
    assert found.to_json() == given.to_json()
    assert found[0].n_rows < 600
    assert found[0].n_invalid == 0
    write_efficiency_columns(MAPS, path, tmp_path / "eff.root", cuts="DLLk > 5")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"conditions": Conditions(units={"P": "MeV"})},
            r"P = K_MOMENTUM \[GeV\], but",
        ),
        (
            {"conditions": Conditions(units={"K.P": "MeV"})},
            r"P = K_MOMENTUM \[GeV\], but",
        ),
        ({"conditions": Conditions(branches={"P": "K_ETA"})}, "K_MOMENTUM"),
        ({"conditions": Conditions(scales={"P": 1.1})}, "times 1.1"),
        ({"conditions": Conditions(quantile_maps={"P": HALF})}, "quantile map"),
        ({"species_from": "OTHERID"}, "with --species-from TRUEID; got .*OTHERID"),
    ],
)
def test_contradictions_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = applied(tmp_path, "out", conditions=conditions(), species_from="TRUEID")
    with pytest.raises(MapError, match=message):
        pid_efficiency(MAPS, path, cuts="DLLk > 5", **changes)


def test_two_suffixes_are_told_apart(tmp_path: Path) -> None:
    first = applied(tmp_path, "first", conditions=conditions(), suffix="_a")
    second = tmp_path / "second.root"
    scaled = conditions(scales={"P": 0.5})
    apply({"K": GENERATOR}, first, second, conditions=scaled, suffix="_b", seed=2)
    a, b = (
        pid_efficiency(MAPS, second, cuts="DLLk > 5", suffix=suffix)[0]
        for suffix in ("_a", "_b")
    )
    assert b.value > a.value + 0.05
    with pytest.raises(MapError, match="several suffixes, _a, _b; give one"):
        pid_efficiency(MAPS, second, cuts="DLLk > 5")
