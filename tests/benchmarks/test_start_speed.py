"""Nobody waits for `import pidgan`, nor for a help text."""

import resource
import subprocess
import sys

import pytest

LIMITS = {
    "import pidgan": 0.15,
    "import sys; sys.argv = ['pidgan', '--help']\n"
    "from pidgan.cli import main; main()": 0.3,
}
TRIES = 5


@pytest.mark.parametrize("code", LIMITS, ids=["import", "help"])
def test_a_start_costs_little(code: str) -> None:
    costs = []
    for _ in range(TRIES):
        before = _children()
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        costs.append(_children() - before)
    print(f"{min(costs):.2f} s of the processor, at most {LIMITS[code]} s")
    assert min(costs) <= LIMITS[code]


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
