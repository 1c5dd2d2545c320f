"""Members: trained apart, exported together, their spread a variation of the map."""

import numpy as np
import pytest
from command_line import Run
from command_line import one_line as _one_line

pytest.importorskip("tensorflow")

from pidgan.bundle.card import sample_targets
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.training.members import SEED_STEP, member_paths, train_members
from pidgan.training.model import open_model

SET = ("--set", "width=16", "--set", "blocks=1", "--set", "samples=2")


def test_members_from_training_to_systematics(
    run: Run,
    kaon_dataset,
    tmp_path,
) -> None:
    data, models, bundles = (tmp_path / name for name in ("data", "models", "bundles"))
    kaon_dataset.save(data)
    command = ("train", data, "-o", models, "--family", "energy", *SET, "--steps", 20)
    assert "2 members" in run(*command, "--members", 2).out
    _one_line(run(*command, "--members", 2), "models", "exists")
    _one_line(
        run("validate", models, data, "-o", tmp_path / "r"),
        "models/member_1",
        "a member is",
    )

    assert [path.name for path in member_paths(models)] == ["member_1", "member_2"]
    first, second = (open_model(path) for path in member_paths(models))
    assert (first.card.seed, second.card.seed) == (1, 1 + SEED_STEP)
    assert first.card.steps == second.card.steps == 20
    x = kaon_dataset.part("test").conditions[:500]
    y = [sample_targets(model, x, seed=1) for model in (first, second)]
    assert np.abs(y[0] - y[1]).max() > 0

    more = train_members(kaon_dataset, models, members=2, family="energy", resume=True)
    assert [model.card for model in more] == [first.card, second.card]

    for other, message in (
        (("--steps", 40), "member_1 belongs to another training: steps was 20, now 40"),
        (("--steps", 20, "--seed", 2), "seed was 1, now 2"),
        (("--set", "width=32"), "width was 16, now 32"),
    ):
        more_of = ("train", data, "-o", models, "--family", "energy", *other)
        _one_line(run(*more_of, "--members", 3, "--resume"), message)

    assert run("export", models, "-o", bundles).code == 0
    assert [path.name for path in member_paths(bundles)] == [
        "member_1.onnx",
        "member_2.onnx",
    ]
    as_c = run("export", models, "--format", "c", "-o", tmp_path / "k.c")
    assert as_c.code == 2

    cut = ("--cut", "RichDLLk > 0", "-o", tmp_path / "map.json")
    result = run("systematics", bundles, *cut)
    assert result.code == 0, result.err
    found = EfficiencyMap.open(tmp_path / "map.json")
    shift = found.variations["training_1"]
    assert np.isfinite(shift).all()
    assert np.abs(shift).max() > 1e-4
    assert "training_2" not in found.variations
