"""What a campaign does again and what it keeps, with tasks that pretend to work."""

import json
import os
import time
from pathlib import Path

import pytest
from command_line import Run
from toy_campaign import CAMPAIGN, Pretended, pretended, write_campaign  # noqa: F401

import pidgan
from pidgan.campaign.records import SILENT_SECONDS, Record, Records
from pidgan.errors import CampaignError, NtupleError

pytest.importorskip("tensorflow")

FIRST = [f"kaon-down.{s}" for s in ("prepare", "train", "validate", "export")]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_campaign(tmp_path / "work")


def go(file: Path) -> pidgan.CampaignStatus:
    return pidgan.run_campaign(file, workers=1, progress=False)


def test_a_second_call_does_nothing(file: Path, pretended: Pretended) -> None:  # noqa: F811
    status = go(file)
    assert status.is_complete
    assert len(pretended.take()) == len(status.tasks) == 21
    assert go(file).is_complete
    assert not pretended.take()
    assert (file.parent / "campaign" / "overview.html").is_file()


def test_what_changed_is_done_again(file: Path, pretended: Pretended) -> None:  # noqa: F811
    go(file)
    pretended.take()
    change = '[[change]]\nwhen = {hadron = "kaon", polarity = "down"}\n'
    file.write_text(f"{CAMPAIGN}{change}train = {{steps = 21}}\n")
    waiting = {
        t.task: t.reason
        for t in pidgan.campaign_status(file).tasks
        if t.state == "waiting"
    }
    assert waiting["kaon-down.train"] == "changed: steps"
    assert waiting["kaon-down.validate"] == "changed: result of kaon-down.train"
    go(file)
    assert set(pretended.again) >= {"kaon-down.train"}
    assert pretended.take() == [
        *(f"kaon-down.{s}" for s in ("train", "validate", "export", "systematics")),
        "all.collect",
    ]


def test_a_changed_input_is_done_again(file: Path, pretended: Pretended) -> None:  # noqa: F811
    go(file)
    pretended.take()
    path = file.parent / "kaon_down.root"
    os.utime(path, ns=(1, 1))
    go(file)
    # The same rows make the same dataset: nothing after it is done again.
    assert pretended.take() == ["kaon-down.prepare"]
    definition = file.parent / "pion.toml"
    definition.write_text(definition.read_text().replace("[-150, 150]", "[-99, 99]"))
    go(file)
    done = pretended.take()
    assert {name.partition(".")[0] for name in done} == {"pion-down", "pion-up", "all"}
    assert len(done) == 11


def test_a_missing_file_is_made_again(file: Path, pretended: Pretended) -> None:  # noqa: F811
    go(file)
    pretended.take()
    (file.parent / "campaign/bundles/pion-up.onnx").unlink()
    go(file)
    assert pretended.take() == ["pion-up.export"]


def test_a_failure_stops_only_what_needs_it(file: Path, pretended: Pretended) -> None:  # noqa: F811
    pretended.fails = {"kaon-down.train", "pion-up.validate"}
    status = go(file)
    states = {task.task: task.state for task in status.tasks}
    assert states["kaon-down.prepare"] == states["kaon-up.systematics"] == "done"
    assert states["kaon-down.validate"] == states["pion-up.export"] == "skipped"
    assert {task.task for task in status.failed} == pretended.fails
    assert status.failed[0].reason == "kaon-down.train has no luck"
    collect = next(task for task in status.tasks if task.stage == "collect")
    assert collect.result == {"bundles": 2, "of": 4}
    assert not status.is_complete
    assert "no luck" in (file.parent / "campaign/overview.html").read_text()
    pretended.take()
    pretended.fails = set()
    assert go(file).is_complete
    assert len(pretended.take()) == 4 + 3 + 1


def test_a_killed_task_says_so(file: Path, pretended: Pretended) -> None:  # noqa: F811
    pretended.kills = {"kaon-up.train"}
    (failed,) = go(file).failed
    assert failed.reason == "its process was killed by SIGKILL, perhaps for its memory"
    assert go(file).is_complete


def test_a_broken_input_is_an_error_of_its_task(file: Path) -> None:
    (file.parent / "kaon_up.root").write_bytes(b"root" + bytes(100))
    leave = '[[change]]\nwhen = {hadron = "pion"}\nleave_out = true\n'
    head = 'schema = 1\nstages = ["prepare"]'
    file.write_text(CAMPAIGN.replace("schema = 1", head) + leave)
    status = go(file)  # in processes of their own
    (failed,) = status.failed
    assert failed.task == "kaon-up.prepare"
    assert "kaon_up.root" in failed.reason
    assert "Traceback" in failed.log.read_text()
    assert status.counts["done"] == 1


def test_rejected_bundles_may_fail(file: Path, pretended: Pretended) -> None:  # noqa: F811
    file.write_text(f'{CAMPAIGN}[validate]\nmisid = "hadron"\n')
    pretended.fails = {"pion-up.train"}
    states = {task.task: task.state for task in go(file).tasks}
    assert states["kaon-up.validate"] == "done"
    pretended.take()
    pretended.fails = set()
    assert go(file).is_complete
    # Now there are pions to reject.
    assert "kaon-up.validate" in pretended.take()


def test_status_of_a_running_task(file: Path, pretended: Pretended) -> None:  # noqa: F811
    go(file)
    records = Records(file.parent / "campaign")
    record = records.read("kaon-up.train")
    assert record is not None
    record.state, record.progress = "running", "40 %, score 0.1"
    record.write(records.path("kaon-up.train"))
    text = pidgan.campaign_status(file).text()
    assert "running  kaon-up.train: 40 %, score 0.1" in text
    old = time.time() - SILENT_SECONDS - 10
    os.utime(records.path("kaon-up.train"), (old, old))
    found = {task.task: task for task in pidgan.campaign_status(file).tasks}
    assert found["kaon-up.train"].reason == "its process was killed"


def test_a_damaged_record_is_done_again(file: Path, pretended: Pretended) -> None:  # noqa: F811
    go(file)
    pretended.take()
    path = Records(file.parent / "campaign").path("kaon-up.train")
    for content in ("", "{", "[]", '{"state": "done"}', '{"unknown": 1}'):
        path.write_text(content)
        assert Record.read(path) is None
    go(file)
    assert pretended.take() == ["kaon-up.train"]


def test_two_calls_do_not_meet(file: Path, pretended: Pretended) -> None:  # noqa: F811
    fcntl = pytest.importorskip("fcntl")
    go(file)
    lock = Records(file.parent / "campaign").lock("campaign")
    with lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(
            CampaignError, match=r"process \d+ on .* works on this camp"
        ):
            go(file)
    assert go(file).is_complete


def test_places_that_cannot_be_written(file: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.tex").write_text("years of work")
    for place, text in (
        (taken, "holds files but no campaign.json"),
        (file, "expected a name that does not end in .toml|is a file"),
        (file / "below", "is not a folder"),
        (tmp_path / "x.onnx", "expected a name that does not end in .onnx"),
    ):
        with pytest.raises((CampaignError, NtupleError), match=text):
            pidgan.run_campaign(file, place, workers=1)
    assert (taken / "thesis.tex").read_text() == "years of work"


def test_the_verb(file: Path, pretended: Pretended, run: Run) -> None:  # noqa: F811
    result = run("campaign", file, "--dry-run")
    assert result.code == 0
    assert "21 tasks: 21 waiting" in result.out
    assert not (file.parent / "campaign").exists()
    pretended.fails = {"pion-down.train"}
    result = run("campaign", file, "--workers", "1", "-q")
    assert result.code == 1
    assert "failed   pion-down.train: pion-down.train has no luck" in result.out
    assert "pidgan: error: pion-down.train failed: pion-down.train has no luck" in (
        result.err
    )
    pretended.fails = set()
    result = run("campaign", file, "--workers", "1", "--json", "-q")
    assert result.code == 0
    content = json.loads(result.out)
    assert content["complete"]
    assert content["counts"] == {"done": 21}
    result = run("campaign", file, "--status")
    assert result.code == 0
    assert "collect    done, 4 of 4 bundles" in result.out
