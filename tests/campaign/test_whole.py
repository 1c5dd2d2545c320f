"""Campaigns that really train: the same bundles one by one, on Dask, and with kills.

    PIDGAN_CAMPAIGN=1 pytest -n 0 -s tests/campaign/test_whole.py

runs one of 12 bundles with two workers, of which one is killed twice, and compares its
speed with one worker. It takes several minutes on two cores that do nothing else.
"""

import contextlib
import hashlib
import importlib.util
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
from pidgan.campaign.definition import Run
from pidgan.campaign.records import Record

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="needs tensorflow"
)

SHORT = CAMPAIGN.replace('"kaon", "pion"', '"kaon"').replace("= 20", "= 4")
STAGES = 'stages = ["prepare", "train", "export", "collect"]\n'
STEPS = int(os.environ.get("PIDGAN_CAMPAIGN_STEPS", "1500"))  # long enough to kill


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


class Killing:
    """Kills one worker of each cluster that is made, in the middle of trainings."""

    def __init__(self, output: Path, times: int) -> None:
        self.output, self.times = output, times
        self.victim: Any = None
        self.killed: list[str] = []

    def of(self, cluster: Any) -> Any:
        """Return a cluster, one of whose workers will be killed."""
        threading.Thread(target=self._kill, args=[cluster], daemon=True).start()
        return cluster

    def _kill(self, cluster: Any) -> None:
        while len(self.killed) < self.times:
            time.sleep(0.2)
            for path in (self.output / "state").glob("*.train.json"):
                record = Record.read(path)
                if record is None or " %" not in record.progress:
                    continue
                worker = self._worker(cluster, int(record.where.split()[-1]))
                if worker is not None and path.stem not in self.killed:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(worker, signal.SIGKILL)
                        self.killed.append(path.stem)

    def _worker(self, cluster: Any, task: int) -> int | None:
        """Return the process of the worker that is killed, if it runs a task."""
        import psutil

        with contextlib.suppress(psutil.Error):
            parent = psutil.Process(task).ppid()
            for name, worker in cluster.workers.items():
                if worker.pid == parent and self.victim in (None, name):
                    self.victim = name
                    return parent
        return None


def run_killing(
    file: Path, output: Path, times: int, patch: pytest.MonkeyPatch
) -> list[str]:
    """Run a campaign on two workers; return the trainings whose worker was killed."""
    import distributed

    made, killing = distributed.LocalCluster, Killing(output, times)
    with patch.context() as patched:
        patched.setattr(
            distributed, "LocalCluster", lambda **given: killing.of(made(**given))
        )
        status = pidgan.run_campaign(file, output, workers=2, progress=False)
    assert status.is_complete, status.text()
    for task in killing.killed:
        # A killed one is begun twice, by its log.
        log = (output / "logs" / f"{task}.log").read_text()
        assert log.count(f"== {task}: ") >= 2
    return killing.killed


def work_seconds(output: Path) -> float:
    """Return how long all tasks took together."""
    records = [Record.read(path) for path in (output / "state").glob("*.json")]
    return sum(record.seconds for record in records if record is not None)


def test_a_killed_worker_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    text = SHORT.replace("= 4\n", f"= {STEPS}\n")
    file = write_campaign(
        tmp_path / "work", text.replace("schema = 1\n", f"schema = 1\n{STAGES}")
    )
    killed = run_killing(file, tmp_path / "killed", 1, monkeypatch)
    assert len(killed) == 1
    assert pidgan.run_campaign(file, tmp_path / "one", workers=1).is_complete
    assert len(hashes(tmp_path / "one")) == 4
    assert hashes(tmp_path / "one") == hashes(tmp_path / "killed")


@pytest.mark.skipif("PIDGAN_CAMPAIGN" not in os.environ, reason="takes many minutes")
def test_twelve_bundles_on_two_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    text = CAMPAIGN.replace("[train]", "year = [2016, 2017, 2018]\n[train]")
    text = text.replace("schema = 1\n", f"schema = 1\n{STAGES}")
    file = write_campaign(tmp_path / "work", text.replace("= 20\n", f"= {STEPS}\n"))
    seconds = {}
    for name, workers in (("one", 1), ("two", 2)):
        began, load = time.monotonic(), os.getloadavg()[0]
        status = pidgan.run_campaign(file, tmp_path / name, workers=workers)
        seconds[name] = time.monotonic() - began
        assert status.is_complete, status.text()
        print(
            f"{workers} workers: {seconds[name]:.0f} s, tasks "
            f"{work_seconds(tmp_path / name):.0f} s, load {load:.1f} before and "
            f"{os.getloadavg()[0]:.1f} after",
            flush=True,
        )
    print(f"ratio {seconds['one'] / seconds['two']:.2f}", flush=True)
    assert len(hashes(tmp_path / "one")) == 24
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")

    began = time.monotonic()
    killed = run_killing(file, tmp_path / "killed", 2, monkeypatch)
    print(f"killed in {killed}: {time.monotonic() - began:.0f} s", flush=True)
    assert len(killed) == 2
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


@pytest.mark.parametrize("batch", engines.SUBMITS)
def test_a_batch_system_that_is_not_there(
    batch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dask_jobqueue")
    file = write_campaign(tmp_path / "work")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pidgan.CampaignError, match=engines.SUBMITS[batch]):
        pidgan.run_campaign(file, tmp_path / "out", batch=batch)
    assert not (tmp_path / "out").exists()


def test_a_campaign_says_that_it_waits_for_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(engines, "WAIT_SECONDS", 0.2)
    monkeypatch.setattr(engines, "LOOK_SECONDS", 0.1)
    campaign = pidgan.Campaign.open(write_campaign(tmp_path / "work"))
    said: list[str] = []
    given = {"processes": False, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(n_workers=0, **given) as cluster:

        def tell(text: str) -> None:
            said.append(text)
            cluster.scale(1)

        run = Run(scheduler=cluster.scheduler_address)
        with engines.engine(campaign, run, tmp_path, tell=tell) as does:
            assert list(does([])) == []
    assert said[0].startswith(f"there are no workers of {run.scheduler} now")
