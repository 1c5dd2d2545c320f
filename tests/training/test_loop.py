"""Training: repeatable, resumable, and never silently wrong."""

import dataclasses
import json
import signal
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from pidgan.bundle.card import sample_targets
from pidgan.errors import NtupleError, PidganError, PidganWarning, TrainingError
from pidgan.sample.dataset import Dataset
from pidgan.training import families
from pidgan.training.budget import Duration
from pidgan.training.descents import Descents
from pidgan.training.loop import train
from pidgan.training.model import open_model
from pidgan.training.networks.autoregressive import decay_of_few
from pidgan.training.patterns import pick_pattern
from pidgan.training.record import Progress
from pidgan.training.setup import set_up

SMALL = {
    "xla": False,
    "width": 16,
    "teacher_width": 16,
    "teacher_blocks": 1,
    "teacher_bins": 6,
    "teach_batch_size": 128,
    "distil_batch_size": 128,
}
PLAY_ALONE = families.Cramer(
    **SMALL, critic_width=16, batch_size=128, teach=0.0, distil=0.0, play=1.0
)
STEPS = 24


@pytest.fixture(scope="module")
def uninterrupted(kaon_dataset: Dataset):
    return train(kaon_dataset, steps=STEPS, seed=5, settings=SMALL)


def _targets(model, dataset: Dataset) -> np.ndarray:
    return sample_targets(model, dataset.part("test").conditions[:500], seed=1)


def test_the_same_seed_gives_the_same_model(kaon_dataset, uninterrupted) -> None:
    again = train(kaon_dataset, steps=STEPS, seed=5, settings=SMALL)
    other = train(kaon_dataset, steps=STEPS, seed=6, settings=SMALL)
    expected = _targets(uninterrupted, kaon_dataset)
    np.testing.assert_array_equal(_targets(again, kaon_dataset), expected)
    assert np.abs(_targets(other, kaon_dataset) - expected).max() > 0


@pytest.mark.parametrize("stop_after", [1, 15])
def test_an_interrupted_training_continues_to_the_same_model(
    kaon_dataset, uninterrupted, tmp_path: Path, stop_after: int
) -> None:
    def interrupt(progress) -> None:
        if progress.step >= stop_after:
            raise KeyboardInterrupt

    _check_continued(kaon_dataset, uninterrupted, tmp_path, progress=interrupt)


def test_a_signal_during_steps_counts_after_them(
    kaon_dataset, uninterrupted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = Descents.compile

    def compile_all(self: Descents, *given, **named):
        run = compiled(self, *given, **named)

        def run_and_stop(step: int, *numbers: int):
            losses = run(step, *numbers)
            if step >= 5 and not (tmp_path / "checkpoint.npz").exists():
                signal.raise_signal(signal.SIGINT)
            return losses

        return run_and_stop

    monkeypatch.setattr(Descents, "compile", compile_all)
    _check_continued(kaon_dataset, uninterrupted, tmp_path, progress=False)


def _check_continued(dataset: Dataset, uninterrupted, folder: Path, *, progress):
    options = {"seed": 5, "settings": SMALL, "directory": folder}
    with pytest.raises(KeyboardInterrupt):
        train(dataset, steps=STEPS, progress=progress, **options)
    with pytest.raises(TrainingError, match="--resume"):
        open_model(folder)
    resumed = train(dataset, resume=True, **options)
    np.testing.assert_array_equal(
        _targets(resumed, dataset), _targets(uninterrupted, dataset)
    )


def test_a_checkpoint_of_another_training_is_refused(kaon_dataset, tmp_path) -> None:
    train(kaon_dataset, steps=2, seed=5, family=PLAY_ALONE, directory=tmp_path)
    with pytest.raises(TrainingError, match="seed was 5, now 6"):
        train(
            kaon_dataset,
            seed=6,
            family=PLAY_ALONE,
            directory=tmp_path,
            resume=True,
        )
    (tmp_path / "checkpoint.npz").write_bytes(b"damaged")
    with pytest.raises(TrainingError, match="is damaged"):
        train(
            kaon_dataset,
            seed=5,
            family=PLAY_ALONE,
            directory=tmp_path,
            resume=True,
        )


def test_a_resumed_training_keeps_its_length(kaon_dataset, tmp_path) -> None:
    options = {"seed": 5, "family": PLAY_ALONE, "directory": tmp_path}
    train(kaon_dataset, steps=2, **options)
    for given, now in (
        ({"steps": 4}, "4 steps"),
        ({"budget": "5m"}, "a budget of 300 s"),
    ):
        with pytest.raises(TrainingError, match=f"training with 2 steps, now {now}"):
            train(kaon_dataset, resume=True, **given, **options)
    for given in ({"steps": 2}, {}):
        assert train(kaon_dataset, resume=True, **given, **options).card.steps == 2


def test_two_trainings_do_not_share_a_folder(kaon_dataset, tmp_path) -> None:
    options = {"steps": 2, "family": PLAY_ALONE}
    train(kaon_dataset, seed=5, directory=tmp_path / "other", **options)
    theirs = (tmp_path / "other" / "checkpoint.npz").read_bytes()
    checkpoint = tmp_path / "own" / "checkpoint.npz"

    def write_theirs(progress: Progress) -> None:
        checkpoint.parent.mkdir(exist_ok=True)
        checkpoint.write_bytes(theirs)

    with pytest.raises(TrainingError, match="written by another training meanwhile"):
        train(
            kaon_dataset,
            seed=6,
            directory=checkpoint.parent,
            progress=write_theirs,
            **options,
        )
    assert checkpoint.read_bytes() == theirs


def test_a_resumed_training_keeps_its_budget(kaon_dataset, tmp_path) -> None:
    options = {"seed": 5, "family": PLAY_ALONE, "directory": tmp_path}

    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.warns(PidganWarning, match="leaves"), pytest.raises(KeyboardInterrupt):
        train(kaon_dataset, budget="0.1s", progress=interrupt, **options)
    for given in ({"budget": 0.2}, {"steps": 77}):
        with pytest.raises(TrainingError, match=r"a budget of 0\.1 s, which gave 1 "):
            train(kaon_dataset, resume=True, **given, **options)
    for given in ({"budget": 0.1}, {}):
        assert train(kaon_dataset, resume=True, **given, **options).card.steps == 1
    checkpoint = tmp_path / "checkpoint.npz"
    arrays = dict(np.load(checkpoint))
    state = json.loads(str(arrays.pop("state")))
    changed = {**arrays, "v0": arrays["v0"] + 1}
    for damaged, of_state in ((changed, state), (arrays, {**state, "step": 0})):
        np.savez(checkpoint, state=np.array(json.dumps(of_state)), **damaged)
        with pytest.raises(TrainingError, match=r"its arrays are not|changed after it"):
            train(kaon_dataset, resume=True, budget=7, **options)
    # A checkpoint of version 0.1 has no format, and averages that began elsewhere.
    for key in ("format", "arrays", "seal"):
        del state[key]
    np.savez(checkpoint, state=np.array(json.dumps(state)), **arrays)
    with pytest.raises(TrainingError, match=r"another version .* format 1, expected 2"):
        train(kaon_dataset, resume=True, **options)


def test_progress_ends_with_the_last_phase(kaon_dataset: Dataset) -> None:
    seen: list[Progress] = []
    game = dataclasses.replace(PLAY_ALONE, teach=0.5, play=0.7)
    train(kaon_dataset, steps=10, family=game, progress=seen.append)
    assert (seen[-1].step, seen[-1].steps) == (12, 12)
    assert min(now.seconds_left for now in seen) == 0


def test_divergence_is_an_error_not_a_model(kaon_dataset) -> None:
    wild = dataclasses.replace(PLAY_ALONE, learning_rate=1e6)
    with (
        pytest.warns(PidganWarning, match="1e\\+06, outside the range that is tested"),
        pytest.raises(TrainingError, match="training diverged in phase 'play'"),
    ):
        train(kaon_dataset, steps=200, seed=1, family=wild)


# A busy machine compiles for most of the budget; what is left repeats all the same.
@pytest.mark.filterwarnings("ignore:the budget of 6 s leaves")
def test_a_budget_becomes_a_number_of_steps(kaon_dataset) -> None:
    model = train(kaon_dataset, budget=6, seed=5, family=PLAY_ALONE)
    assert model.card.steps >= 1
    length = model.card.plan or model.card.steps
    again = train(kaon_dataset, steps=length, seed=5, family=PLAY_ALONE)
    np.testing.assert_array_equal(
        _targets(again, kaon_dataset), _targets(model, kaon_dataset)
    )


def test_compiled_steps_repeat_too(kaon_dataset) -> None:
    # The flow is what teaches by default, and compiles fastest.
    compiled = families.Flow(width=16, blocks=1, bins=6, batch_size=128, xla=True)
    models = [train(kaon_dataset, steps=4, seed=5, family=compiled) for _ in "ab"]
    np.testing.assert_array_equal(*(_targets(model, kaon_dataset) for model in models))


def test_ties_and_sentinels_come_out_exact(kaon_model, kaon_dataset) -> None:
    y = _targets(kaon_model, kaon_dataset)
    names = kaon_model.card.target_names
    k, bt = (y[:, names.index(name)] for name in ("RichDLLk", "RichDLLbt"))
    assert 0.02 < (k == bt).mean() < 0.6
    low, high = zip(*(v.range for v in kaon_model.card.targets), strict=True)
    inside = (y >= np.array(low, np.float32)) & (y <= np.array(high, np.float32))
    assert (inside | (y == -999)).mean() > 0.98


def test_a_saved_model_is_the_same_model(kaon_model, kaon_dataset, tmp_path) -> None:
    kaon_model.save(tmp_path / "model")
    opened = open_model(tmp_path / "model")
    np.testing.assert_array_equal(
        _targets(opened, kaon_dataset), _targets(kaon_model, kaon_dataset)
    )
    assert opened.card == kaon_model.card
    assert len(opened.reference()) == len(kaon_dataset.part("test").weights)
    with pytest.raises(NtupleError, match=r"model\.json exists; choose another name"):
        kaon_model.save(tmp_path / "model")
    with pytest.raises(TrainingError, match="closest: 'model'"):
        open_model(tmp_path / "modle")
    file = tmp_path / "model" / "model.npz"
    whole = file.read_bytes()
    for damaged in (b"", b"PK", whole[: len(whole) // 2]):
        file.write_bytes(damaged)
        with pytest.raises(TrainingError, match="is damaged"):
            open_model(tmp_path / "model")


def test_a_model_knows_its_files_and_its_description(kaon_model, tmp_path) -> None:
    kaon_model.save(tmp_path / "model")
    other = dataclasses.replace(kaon_model, held_out=kaon_model.held_out.head(90))
    other.save(tmp_path / "other")

    def refused(message: str) -> None:
        with pytest.raises(TrainingError, match=message) as info:
            open_model(tmp_path / "model")
        assert "\n" not in str(info.value)

    reference = tmp_path / "model" / "reference.parquet"
    reference.write_bytes((tmp_path / "other" / "reference.parquet").read_bytes())
    refused(r"reference\.parquet is damaged or belongs to another file")
    reference.unlink()
    refused(r"reference\.parquet is missing")
    other.save(tmp_path / "model", overwrite=True)
    assert len(open_model(tmp_path / "model").reference()) == 90
    head = tmp_path / "model" / "model.json"
    text = head.read_text()
    for old, new in (('"K+"', '"pi+"'), ('"seal"', '"heal"'), ('"format"', '"from"')):
        assert old in text
        head.write_text(text.replace(old, new, 1))
        refused("changed after it was written")


def test_wrong_choices_are_named(kaon_dataset) -> None:
    with pytest.raises(PidganError, match="closest: 'cramer'"):
        train(kaon_dataset, family="cramr", steps=1)
    with pytest.raises(PidganError, match="closest: 'width'"):
        train(kaon_dataset, steps=1, settings={"widht": 3})
    with pytest.raises(ValueError, match="not both"):
        train(kaon_dataset, steps=1, budget=3)
    few = dataclasses.replace(
        kaon_dataset,
        conditions=kaon_dataset.conditions[:40],
        targets=kaon_dataset.targets[:40],
        weights=kaon_dataset.weights[:40],
        split=kaon_dataset.split[:40],
    )
    with pytest.raises(TrainingError, match="expected at least 50"):
        train(few, steps=1)


def test_patterns_are_picked_with_their_probability() -> None:
    rng = np.random.default_rng(1)
    p = np.array([0.2, 0.5, 0.3])
    logits = np.tile(np.log(p), (50_000, 1)).astype(np.float32)
    picked = pick_pattern(logits, rng.normal(size=(50_000, 1)).astype(np.float32))
    assert set(picked.sum(axis=1)) == {1}
    shares = picked.mean(axis=0)
    np.testing.assert_allclose(shares, p, atol=0.01)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400)]
)
def test_durations(text: str, seconds: float) -> None:
    assert Duration.parse(text) == Duration(seconds)


@pytest.mark.parametrize("text", ["", "ten", "-3m", "0", "1d", "1..5m"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        Duration.parse(text)


def test_weight_decay_follows_the_effective_rows(kaon_dataset: Dataset) -> None:
    values = families.Distilled(**SMALL)
    teach = set_up(kaon_dataset, values, seed=1).family.phases[0]
    w = kaon_dataset.part("train").weights
    assert w.min() < 0
    factor = decay_of_few(round(w.sum() ** 2 / np.sum(w**2)))
    (decay,) = (d.optimizer.weight_decay for d in teach.updates[0].descents)
    assert decay == values.teach_weight_decay * factor
