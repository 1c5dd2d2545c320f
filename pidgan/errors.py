"""The exceptions and the warning that pidgan raises.

`PidganError` is for data, files and fits that a caller may want to catch; misuse of
an argument is a `ValueError` or `TypeError`. The command line turns a `PidganError`
into one line and exit code 1.
"""

import difflib
from collections import Counter
from collections.abc import Iterable


class PidganError(Exception):
    """Base of every error that input can cause."""


class NtupleError(PidganError):
    """A file, tree or branch cannot be read or written."""


class SampleError(PidganError):
    """A calibration-sample definition is wrong, or data do not fit it."""


class CutError(PidganError):
    """A PID cut is not a plain comparison expression or names an unknown variable."""


class FitError(PidganError):
    """A mass fit failed or its result cannot be trusted."""


class DatasetError(PidganError):
    """A dataset is damaged, empty or has no positive sum of weights."""


class TrainingError(PidganError):
    """A training diverged or cannot be continued."""


class BundleError(PidganError):
    """A bundle is damaged, too new, or was not written by this project."""


class MapError(PidganError):
    """An efficiency map is damaged or does not fit the request."""


class CampaignError(PidganError):
    """The file of a campaign is wrong, or its folder cannot be used."""


class PidganWarning(UserWarning):
    """Something the user should know, though the result stands."""


def nearest(name: str, candidates: Iterable[str], *, n: int = 3) -> str:
    """Return "; closest: 'a', 'b'" for an error message, or "" if nothing is close.

    Case is ignored, so that `probe_PIDk` finds `probe_PIDK`.
    """
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    close = difflib.get_close_matches(name.lower(), by_lower, n=n, cutoff=0.5)
    if not close:
        return ""
    return "; closest: " + ", ".join(repr(by_lower[c]) for c in close)


def repeated(names: Iterable[str]) -> list[str]:
    """Return the names that are there more than once, sorted."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def one_line(error: BaseException) -> str:
    """Return the type of an exception and the first line of its message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
