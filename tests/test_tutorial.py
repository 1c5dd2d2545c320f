"""Every command of the tutorial runs, in its order, and prints what the page shows.

Sizes and times are smaller than on the page, so that numbers differ: a line is compared
by its words. Training takes a minute: the test runs where PIDGAN_TUTORIAL is set, as
`.ci/run` does.
"""

import os
import re
import shlex
from pathlib import Path

import pytest
from command_line import Run

PAGE = Path(__file__).parents[1] / "docs/tutorial/first-steps.md"
SMALLER = {r"-n \d+": "-n 6000", r"--budget \w+": "--steps 60"}
BLOCK = re.compile(r"^```sh\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.M | re.S)
NUMBER = re.compile(r"[+-]?\d[\d,.]*(?:e[+-]?\d+)?")

needs_page = pytest.mark.skipif(not PAGE.is_file(), reason="a wheel has no docs")


def steps() -> list[tuple[list[str], list[str]]]:
    """Return commands after the demo, with smaller sizes, and lines that they print."""
    text = PAGE.read_text(encoding="utf-8").partition("## 2.")[2]
    found = []
    for commands, printed in BLOCK.findall(text):
        for pattern, smaller in SMALLER.items():
            commands = re.sub(pattern, smaller, commands)
        lines = [line for line in commands.splitlines() if line.startswith("pidgan ")]
        found.append((lines, printed.splitlines()))
    return found


def shape(line: str) -> str:
    """Return the words of a line: numbers and widths of columns do not count."""
    return " ".join(NUMBER.sub("#", line).split())


def missing(expected: list[str], printed: str) -> list[str]:
    """Return the lines that were not printed; "..." stands for any lines."""
    shapes = {shape(line) for line in printed.splitlines()}
    return [line for line in expected if line != "..." and shape(line) not in shapes]


@needs_page
def test_every_command_shows_what_it_prints() -> None:
    found = steps()
    assert sum(len(commands) for commands, _ in found) >= 12
    for commands, printed in found:
        assert [line for line in printed if line != "..."], commands


def test_lines_are_compared_by_their_words() -> None:
    printed = "kaon: 5,993 of 6000 rows\nRichDLLk > 0   95.5 +- 0.2 %\n"
    assert not missing(["kaon: 199866 of 200000 rows", "..."], printed)
    assert not missing(["RichDLLk > 0  (1.0 +- 2 %".replace("(", "")], printed)
    assert missing(["kaon: 199866 rows"], printed) == ["kaon: 199866 rows"]


@needs_page
@pytest.mark.skipif(
    "PIDGAN_TUTORIAL" not in os.environ,
    reason="set PIDGAN_TUTORIAL to run the tutorial, which takes a minute",
)
def test_the_tutorial_runs_to_its_last_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorflow")
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    for name, body in re.findall(r"^```toml\n# (\S+)\n(.*?)^```", text, re.M | re.S):
        Path(name).write_text(body, encoding="utf-8")
    for lines, expected in steps():
        printed = ""
        for line in lines:
            result = run(*shlex.split(line, comments=True)[1:])
            assert result.code == 0, f"{line}: {result.err}"
            printed += result.out + "\n" + result.err + "\n"
        assert not missing(expected, printed), printed
