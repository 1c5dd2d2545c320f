"""The validation on a card in sentences: a figure, its error, and that of real rows."""

from collections.abc import Iterator, Mapping
from typing import Any

NAMES = {
    "c2st": "classifier test (C2ST, area under the curve)",
    "ks": "KS distance of",
    "ks_in_bins": "mean KS distance in bins of",
    "wasserstein": "Wasserstein distance of",
    "efficiency": "",
    "misid": "misID of",
    "pull_rms": "rms of pulls of",
    "n_eff": "effective",
    "sum_weights": "sum of weights",
}
"""Words for the keys of a validation."""
MOST_LISTED = 3
"""Number of values in a list that are printed."""


def sentences(content: Mapping[str, Any], name: str = "") -> Iterator[str]:
    """Yield a sentence for each figure, whatever a validation holds."""
    for key, value in content.items():
        label = f"{name} {NAMES.get(key, key)}".strip()
        if not isinstance(value, Mapping):
            yield f"{label}: {_plain(value)}"
        elif "real" in value and "generated" in value:
            yield _efficiency(label, value)
        elif "value" in value:
            yield _figure(label, value)
        else:
            yield from sentences(value, label)


def _figure(label: str, found: Mapping[str, Any]) -> str:
    text = f"{label}: {_plain(found['value'])}{_error(found.get('error'))}"
    if found.get("floor") is not None:
        text += f"; real against real {_plain(found['floor'])}"
    return text


def _efficiency(label: str, found: Mapping[str, Any]) -> str:
    real, generated = (_percent(found[name]) for name in ("real", "generated"))
    error = found.get("real_error")
    text = f"{label}: real {real}"
    text += "" if error is None else f" +- {_percent(error)}"
    text += f", generated {generated}"
    difference = found.get("difference")
    if isinstance(difference, Mapping) and "value" in difference:
        text += f", difference {_percent(difference['value'])}"
        if difference.get("error") is not None:
            text += f" +- {_percent(difference['error'])}"
    return text


def _error(error: Any) -> str:
    return "" if error is None else f" +- {_plain(error, 2)}"


def _percent(value: Any) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{100 * value:.2f} %" if is_number else _plain(value)


def _plain(value: Any, digits: int = 3) -> str:
    if value is None:
        return "not known"
    if isinstance(value, float):
        if abs(value) >= 1000:
            return f"{value:,.0f}"
        return f"{value:.{digits}g}"
    if isinstance(value, list | tuple):
        if len(value) > MOST_LISTED:
            return f"{len(value)} values"
        return ", ".join(_plain(one, digits) for one in value)
    return str(value)
