"""How an object shows itself: one short line, and a small card in a notebook.

A class that is decorated with `shown` has a method `_facts`, which says what matters:

    >>> @shown
    ... class Table:
    ...     def _facts(self) -> Facts:
    ...         return Facts("kaons, 3 bins", {"cut": "RichDLLk > 0"})
    >>> Table()
    <Table: kaons, 3 bins>

A card is HTML without scripts, styles of a page and addresses. All texts are escaped.
"""

import html
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

LONGEST = 200
"""Most characters of the short line."""

MOST_ROWS = 20
"""Most rows of a card; it says how many more there are."""

LONGEST_CELL = 300
"""Most characters of a cell of a card."""

T = TypeVar("T")

_BOX = "display:inline-block;border:1px solid #8888;border-radius:4px;padding:6px 10px"
_CELL = "text-align:left;padding:1px 12px 1px 0;vertical-align:top"


class Facts(NamedTuple):
    """What an object says of itself.

    Attributes:
        brief: The two or three facts that matter, for one line.
        rows: Further facts by name, for the card.
    """

    brief: str
    rows: Mapping[str, Any]


def shown(kind: type[T]) -> type[T]:
    """Return a class whose objects show their `_facts` as a line and as a card.

    It stands above `dataclass`, whose own text has all the content.
    """
    for name, function in {
        "__repr__": lambda self: line(kind.__name__, self._facts()),
        "__str__": lambda self: line(kind.__name__, self._facts()),
        "_repr_html_": lambda self: card(kind.__name__, self._facts()),
    }.items():
        setattr(kind, name, function)
    return kind


def line(kind: str, facts: Facts) -> str:
    """Return the facts as one short line."""
    return f"<{kind}: {_brief(facts.brief, LONGEST - len(kind) - 4)}>"


def card(kind: str, facts: Facts) -> str:
    """Return the facts as a small table in HTML."""
    items = list(facts.rows.items())
    cells = "".join(
        f'<tr><td style="{_CELL};opacity:.7">{_cell(name)}</td>'
        f'<td style="{_CELL}">{_cell(value)}</td></tr>'
        for name, value in items[:MOST_ROWS]
    )
    more = len(items) - MOST_ROWS
    rest = f"<div>and {more} more</div>" if more > 0 else ""
    head = f"<b>{html.escape(kind)}</b> {_cell(facts.brief)}"
    return f'<div style="{_BOX}">{head}<table>{cells}</table>{rest}</div>'


def count(number: int | float, what: str) -> str:
    """Return a number of things with commas: "199,987 rows", "1 row"."""
    return f"{number:,.0f} {what.removesuffix('s') if number == 1 else what}"


def listed(names: Sequence[str], *, most: int = 6) -> str:
    """Return names with commas, the first ones if they are many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def _cell(value: Any) -> str:
    return html.escape(_brief(str(value), LONGEST_CELL))


def _brief(text: str, most: int) -> str:
    """Return a text on one line, without characters that control a terminal."""
    plain = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return plain if len(plain) <= most else f"{plain[: most - 3]}..."
