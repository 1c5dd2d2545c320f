"""A mistake on the command line costs less than a second of CPU time."""

import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from mistakes import MISTAKES

GOLDEN = Path(__file__).parents[1] / "golden"
SECONDS = 1.0
COMMAND = "import sys; sys.argv[0] = 'pidgan'; from pidgan.cli import main; main()"


def test_a_mistake_costs_little(tmp_path: Path) -> None:
    folder = shutil.copytree(GOLDEN, tmp_path / "files")
    costs = {}
    for line, *_ in MISTAKES:
        before = _children()
        words = [sys.executable, "-c", COMMAND, *shlex.split(line)]
        subprocess.run(words, cwd=folder, capture_output=True, check=False)
        costs[line] = _children() - before
    slow = {line: round(cost, 2) for line, cost in costs.items() if cost > SECONDS}
    print(f"mean {sum(costs.values()) / len(costs):.2f} s, most {max(costs.values())}")
    assert not slow, "".join(f"{cost} s  {line}\n" for line, cost in slow.items())


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
