"""Every command of the tutorial runs, in its order, to its last line.

Sizes and times are smaller than on the page. Training takes a minute: the test runs
where PIDGAN_TUTORIAL is set, as `.ci/run` does.
"""

import os
import re
import shlex
from pathlib import Path

import pytest
from command_line import Run

PAGE = Path(__file__).parents[1] / "docs/tutorial/first-steps.md"
SMALLER = {r"-n \d+": "-n 6000", r"--budget \w+": "--steps 60"}

pytestmark = pytest.mark.skipif(
    not PAGE.is_file() or "PIDGAN_TUTORIAL" not in os.environ,
    reason="set PIDGAN_TUTORIAL to run the tutorial, which takes a minute",
)


def commands() -> list[str]:
    """Return the commands after the demo, with smaller sizes."""
    text = PAGE.read_text(encoding="utf-8").partition("## 2.")[2]
    lines = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)).splitlines()
    for pattern, smaller in SMALLER.items():
        lines = [re.sub(pattern, smaller, line) for line in lines]
    return [line for line in lines if line.startswith("pidgan ")]


def test_the_tutorial_runs_to_its_last_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorflow")
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    for name, body in re.findall(r"^```toml\n# (\S+)\n(.*?)^```", text, re.M | re.S):
        Path(name).write_text(body, encoding="utf-8")
    lines = commands()
    assert len(lines) >= 12
    for line in lines:
        result = run(*shlex.split(line, comments=True)[1:])
        assert result.code == 0, f"{line}: {result.err}"
