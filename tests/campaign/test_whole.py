"""Campaigns that really train: the same bundles one by one, on Dask, and with kills.

    PIDGAN_CAMPAIGN=1 pytest -n 0 -s tests/campaign/test_whole.py

runs one of 12 bundles with two workers, of which one is killed twice, and compares its
speed with one worker. It takes some ten minutes on two cores that do nothing else.
"""

import hashlib
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from toy_campaign import CAMPAIGN, write_campaign

import pidgan
from pidgan.campaign import child, engines, process

pytest.importorskip("tensorflow")

SHORT = CAMPAIGN.replace('"kaon", "pion"', '"kaon"').replace("= 20", "= 4")


def hashes(output: Path) -> dict[str, str]:
    """Return the hash of each bundle and of its reference file."""
    paths = output.glob("bundles/*")
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do the work of tasks here: TensorFlow is loaded already."""

    def run(job: process.Job, digests: dict[str, str]) -> int:
        with monkeypatch.context() as patch:
            patch.chdir(job.folder)
            child.do_task(job.task, job.output, job.folder, digests)
        return 0

    monkeypatch.setattr(process, "_run_child", run)


def test_a_campaign_makes_everything(tmp_path: Path, in_this_process: None) -> None:
    file = write_campaign(tmp_path / "work", SHORT)
    status = pidgan.run_campaign(file, workers=1, progress=False)
    assert status.is_complete, status.text()
    output = status.output
    collection = pidgan.Collection.open(output / "collection.toml")
    down, _ = collection.open_bundles()
    assert down.card.sample.data_taking == {"polarity": "down"}
    assert down.card.validation
    assert len(hashes(output)) == 4
    page = (output / "overview.html").read_text()
    for place in (
        *("reports/up/validation/report.html", "bundles/up.onnx"),
        *("reports/up/systematics/report.html", "maps/up.json"),
        "collection.toml",
    ):
        assert f'href="{place}"' in page
        assert (output / place).is_file()
    for column in ("tails", "efficiency", "worst figure"):
        assert f">{column}</th>" in page


def killing(output: Path, cluster: Any, times: int) -> threading.Thread:
    """Kill a worker of a cluster in the middle of its training, some times."""

    def kill() -> None:
        for _ in range(times):
            while not any('"running"' in p.read_text() for p in trainings()):
                time.sleep(0.1)
            time.sleep(3)
            workers = cluster.scheduler_info["workers"].values()
            names = [worker["name"] for worker in workers]
            os.kill(cluster.workers[names[0]].pid, signal.SIGKILL)
            time.sleep(20)

    def trainings() -> list[Path]:
        return [*(output / "state").glob("*.train.json")]

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread


@pytest.mark.skipif("PIDGAN_CAMPAIGN" not in os.environ, reason="takes many minutes")
def test_twelve_bundles_on_two_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed = pytest.importorskip("distributed")
    text = CAMPAIGN.replace("[train]", "year = [2016, 2017, 2018]\n[train]")
    steps = os.environ.get("PIDGAN_CAMPAIGN_STEPS", "2000")
    file = write_campaign(tmp_path / "work", text.replace("= 20\n", f"= {steps}\n"))
    seconds = {}
    for name, workers in (("one", 1), ("two", 2)):
        began = time.monotonic()
        status = pidgan.run_campaign(file, tmp_path / name, workers=workers)
        seconds[name] = time.monotonic() - began
        assert status.is_complete, status.text()
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")
    assert len(hashes(tmp_path / "one")) == 24
    print(f"{seconds}, ratio {seconds['one'] / seconds['two']:.2f}")

    killed: list[int] = []
    made = distributed.LocalCluster

    def cluster(**given: Any) -> Any:
        found = made(**given)
        killing(tmp_path / "killed", found, 2)
        return found

    real = os.kill

    def kill(pid: int, number: int) -> None:
        killed.append(pid)
        real(pid, number)

    monkeypatch.setattr(distributed, "LocalCluster", cluster)
    monkeypatch.setattr(os, "kill", kill)
    status = pidgan.run_campaign(file, tmp_path / "killed", workers=2)
    assert status.is_complete, status.text()
    assert len(killed) >= 2
    assert hashes(tmp_path / "one") == hashes(tmp_path / "killed")
    assert seconds["one"] / seconds["two"] >= 1.8


def test_what_a_batch_job_runs(tmp_path: Path) -> None:
    pytest.importorskip("dask_jobqueue")
    options = 'memory = "3GB"\ncores = 2\n'
    text = f'{CAMPAIGN}[run]\nbatch = "slurm"\n[run.options]\n{options}'
    file = write_campaign(tmp_path / "work", text)
    campaign = pidgan.Campaign.open(file)
    run = engines.check_run(campaign.head.run, "x") or campaign.head.run
    script = engines.job_script(campaign, run, tmp_path / "out")
    assert "#SBATCH --cpus-per-task=2" in script
    assert "#SBATCH --mem=3G" in script
    assert "--nthreads 1" in script
    wrong = file.read_text().replace("memory", "memmory")
    file.write_text(wrong)
    with pytest.raises(pidgan.CampaignError, match=r"'memmory', .*closest: 'memory'"):
        engines.check_run(pidgan.Campaign.open(file).head.run, "x")
