"""The one grammar of cuts: comparisons of named columns, never run as Python code.

Comparisons with `< <= > >= == !=`, in chains such as `0 < a < 1` too, of columns and
numbers combined with `+ - * /` and `abs()`, are joined with `&`, `|`, `!`, also written
`&&`, `||`, `~`, or `and`, `or`, `not`. As in ROOT, and unlike in Python, all three
spellings bind *weaker* than a comparison: `a > 0 & b > 1` needs no brackets.

A NaN, an infinity or a declared sentinel (-999, -1000) in any column of the cut fails
it, even if it is negated. Such rows stay in the denominator of an efficiency.
"""

import ast
import itertools
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from pidgan.arrays import BoolArray, FloatArray
from pidgan.errors import CutError, nearest

#: Names of one and the same variable: the short name of PIDCalib, the branch in Run 1
#: and 2, the branch in Run 3. Calibration files write "probe_" before them. "Brunel_"
#: makes a name the variable of another fit.
SYNONYMS: tuple[tuple[str, ...], ...] = (
    *(
        (f"DLL{one}", f"PID{one}", f"PID_{one.upper()}")
        for one in ("K", "p", "mu", "e", "d")
    ),
    *(
        (f"ProbNN{one}", f"PROBNN_{one.upper()}")
        for one in ("k", "pi", "p", "mu", "e", "d", "ghost")
    ),
)
_FIRST = {name: group[0] for group in SYNONYMS for name in group}
#: A longer text is no PID cut; the bound keeps Python's parser out of deep recursion.
MAX_LENGTH = 2000

_TOKENS = re.compile(r"(?P<both>&&?)|(?P<either>\|\|?)|(?P<negated>~|!(?!=))")
_FUNCTIONS: dict[type[ast.AST], Any] = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.USub: np.negative,
    ast.UAdd: np.positive,
}
_Sentinels = Mapping[str, Sequence[float]]


class Columns(Protocol):
    """Arrays (n,) by name: a DataFrame, or a mapping of names to arrays."""

    def __getitem__(self, name: Any, /) -> Any: ...

    def __contains__(self, name: Any, /) -> bool: ...

    def __iter__(self) -> Iterator[Any]: ...


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A parsed cut; make one with `parse_cut`.

    `canonical` is one spelling, with aliases resolved, of all texts that differ only in
    spaces, in brackets or in the spelling of `and`. `names` are the columns that the
    cut needs, in order of appearance.
    """

    text: str
    canonical: str
    names: tuple[str, ...]
    expression: ast.expr = field(repr=False, compare=False)

    def passes(
        self, columns: Columns, sentinels: _Sentinels | None = None
    ) -> BoolArray:
        """Return which rows (n,) pass, never one with a NaN, infinity or sentinel.

        `sentinels` are the values of each column that mean "no measurement".
        """
        for name in self.names:
            if name not in columns:
                raise _unknown(self.text, name, list(columns))
        arrays = _usable(self.names, columns, sentinels)
        usable: BoolArray = np.ones(1, dtype=bool)
        for array in arrays.values():
            usable = usable & np.isfinite(array)
        with np.errstate(all="ignore"):
            result = _logical(self.text, self.expression, arrays, usable)
        return np.asarray(result & usable)


def cut_texts(cuts: str | Iterable[str]) -> tuple[str, ...]:
    """Return one cut, or several, as a tuple of texts."""
    return (cuts,) if isinstance(cuts, str) else tuple(cuts)


def parse_cut(
    text: str,
    *,
    names: Iterable[str] | None = None,
    aliases: Mapping[str, str] | None = None,
) -> Cut:
    """Parse a cut such as "RichDLLk > 0 & P < 1e5".

    It is checked against the names of columns, if they are given. `aliases` has the
    column of each further name; `SYNONYMS` stand for each other wherever only one of
    them is in `names`. A CutError says which name is unknown, or which part is no
    comparison of columns and numbers.
    """
    known = None if names is None else list(names)
    tree = _syntax_tree(text)
    try:
        _resolve(text, tree, known, aliases or {})
        used = _names(tree)
        # Evaluated on no rows, to refuse an expression that is no cut.
        nothing = dict.fromkeys(used, np.zeros(0))
        _logical(text, tree, nothing, np.zeros(0, dtype=bool))
    except RecursionError:
        raise CutError(f"cut {text[:40]!r}... is nested too deeply") from None
    if not used:
        raise CutError(f"cut {text!r} names no variable, so it selects nothing")
    return Cut(
        text=text,
        canonical=ast.unparse(tree),
        names=tuple(dict.fromkeys(used)),
        expression=tree,
    )


def compared_values(
    cut: Cut, name: str, columns: Columns, sentinels: _Sentinels | None = None
) -> FloatArray:
    """Return the values (n,) that a cut compares with a name: `a - b` in `a - b > x`.

    The name must stand alone on one side of one comparison; it need not be a column.
    Values are NaN or infinite where a column has no value.
    """
    pairs = [
        pair
        for node in ast.walk(cut.expression)
        if isinstance(node, ast.Compare)
        for pair in itertools.pairwise([node.left, *node.comparators])
    ]
    found = [
        other
        for pair in pairs
        for side, other in (pair, pair[::-1])
        if isinstance(side, ast.Name) and side.id == name
    ]
    if len(found) != 1 or _names(cut.expression).count(name) != 1:
        raise CutError(
            f"cut {cut.text!r}: expected {name!r} alone on one side of one comparison, "
            f"for example 'RichDLLk > {name}'"
        )
    arrays = _usable(_names(found[0]), columns, sentinels)
    with np.errstate(all="ignore"):
        return np.asarray(_number(cut.text, found[0], arrays), dtype=np.float64)


def _usable(
    names: Iterable[str], columns: Columns, sentinels: _Sentinels | None
) -> dict[str, FloatArray]:
    """Return columns in double precision, with NaN in place of sentinels."""
    arrays: dict[str, FloatArray] = {}
    for name in names:
        stored = np.asarray(columns[name])
        arrays[name] = stored.astype(np.float64, copy=False)
        for sentinel in (sentinels or {}).get(name, ()):
            # In the stored type, so that -999.9 is found in a float32 column.
            missing = stored == stored.dtype.type(sentinel)
            arrays[name] = np.where(missing, np.nan, arrays[name])
    return arrays


def _syntax_tree(text: str) -> ast.expr:
    if len(text) > MAX_LENGTH:
        raise CutError(
            f"cut {text[:40]!r}... has {len(text)} characters; at most {MAX_LENGTH}"
        )
    for match in re.finditer(r"~|!(?!=)", text):
        if not re.match(r"\s*[(~!]", text[match.end() :]):
            raise CutError(
                f"cut {text!r}: {match[0]!r} must stand before a bracket, "
                f"for example !(RichDLLk > 0)"
            )
    words = {"both": " and ", "either": " or ", "negated": " not "}
    spelled = _TOKENS.sub(lambda match: words[match.lastgroup or ""], text).strip()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return ast.parse(spelled, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError, Warning):
        single = re.search(r"(?<![<>=!])=(?!=)", text)
        hint = "; write == to compare" if single else ""
        raise CutError(
            f"cut {text!r} is not a comparison expression such as "
            f"'RichDLLk > 0 & P < 100000'{hint}"
        ) from None


def _unknown(text: str, name: str, known: Sequence[str]) -> CutError:
    hint = nearest(name, known)
    if not hint and known:
        hint = "; known: " + ", ".join(map(repr, known[:8]))
    return CutError(f"cut {text!r} names an unknown variable {name!r}{hint}")


def _names(node: ast.AST) -> list[str]:
    """List the columns of an expression from left to right."""
    if isinstance(node, ast.Name):
        return [node.id]
    parts = node.args if isinstance(node, ast.Call) else ast.iter_child_nodes(node)
    return [name for part in parts for name in _names(part)]


def _resolve(
    text: str, tree: ast.expr, known: list[str] | None, aliases: Mapping[str, str]
) -> None:
    """Replace aliases in place and refuse unknown names; numbers become floats."""
    functions = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node not in functions:
            node.id = _column(text, node.id, known, aliases)
        elif isinstance(node, ast.Constant):
            if type(node.value) not in (int, float):
                raise CutError(
                    f"cut {text!r} holds {node.value!r}; only numbers and names of "
                    f"columns are allowed"
                )
            try:
                node.value = float(node.value)  # type: ignore[arg-type]
            except OverflowError:
                raise CutError(f"cut {text!r} holds a number too large") from None


def _column(
    text: str, name: str, known: list[str] | None, aliases: Mapping[str, str]
) -> str:
    target = name if known and name in known else aliases.get(name, name)
    if known is None or target in known:
        return target
    present = [column for column in known if _plain(column) == _plain(target)]
    if len(present) != 1:
        raise _unknown(text, name, known)
    return present[0]


def _plain(name: str) -> str:
    """Return the one name that all synonyms of a variable have."""
    short = str(name).removeprefix("probe_")
    base = short.removeprefix("Brunel_")
    return short.removesuffix(base) + _FIRST.get(base, base)


def _refused(text: str, node: ast.expr) -> CutError:
    return CutError(
        f"cut {text!r}: {ast.unparse(node)!r} is not allowed; a cut holds comparisons "
        f"of columns and numbers, + - * / and abs(), joined by & | !"
    )


def _logical(
    text: str, node: ast.expr, arrays: Mapping[str, FloatArray], usable: BoolArray
) -> Any:
    """Evaluate the logical part; clears `usable` where an operand is not finite."""
    match node:
        case ast.BoolOp(op=operator, values=values):
            parts = [_logical(text, value, arrays, usable) for value in values]
            join = np.logical_and if isinstance(operator, ast.And) else np.logical_or
            return join.reduce(parts)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return np.logical_not(_logical(text, operand, arrays, usable))
        case ast.Compare(left=left, ops=ops, comparators=comparators) if all(
            type(operator) in _FUNCTIONS for operator in ops
        ):
            numbers = [_number(text, part, arrays) for part in (left, *comparators)]
            for number in numbers:
                usable &= np.isfinite(number)  # a division by zero passes no cut
            pairs = zip(ops, numbers[:-1], numbers[1:], strict=True)
            return np.logical_and.reduce(
                [
                    np.broadcast_to(_FUNCTIONS[type(op)](a, b), usable.shape)
                    for op, a, b in pairs
                ]
            )
        case ast.Name(id=name):
            raise CutError(
                f"cut {text!r}: {name!r} stands without a comparison; write {name} == 1"
            )
    raise _refused(text, node)


def _number(text: str, node: ast.expr, arrays: Mapping[str, FloatArray]) -> Any:
    """Evaluate an arithmetic expression."""
    match node:
        case ast.Name(id=name):
            return arrays[name]
        case ast.Constant(value=value):
            return value
        case ast.UnaryOp(op=operator, operand=operand) if type(operator) in _FUNCTIONS:
            return _FUNCTIONS[type(operator)](_number(text, operand, arrays))
        case ast.BinOp(left=left, op=operator, right=right) if (
            type(operator) in _FUNCTIONS
        ):
            pair = (_number(text, part, arrays) for part in (left, right))
            return _FUNCTIONS[type(operator)](*pair)
        case ast.Call(func=ast.Name(id="abs"), args=[argument], keywords=[]):
            return np.abs(_number(text, argument, arrays))
    raise _refused(text, node)
