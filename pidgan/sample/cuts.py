"""The one grammar of cuts: comparisons of named columns, never run as Python code.

A cut compares columns and numbers with `<`, `<=`, `>`, `>=`, `==`, `!=`, in chains such
as `0 < a < 1` too. It combines them with `+ - * /` and `abs()`, and joins comparisons
with `&`, `|`, `!`, which may also be written `&&`, `||`, `~`, or `and`, `or`, `not`. As
in ROOT, and unlike in Python, all three spellings bind *weaker* than a comparison, so
that `a > 0 & b > 1` needs no brackets.

A row passes only if every column of the cut has a usable value there: a NaN, an
infinity or a declared sentinel (-999, -1000) fails the cut, even a negated one. Such
rows stay in the denominator of an efficiency.
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
    ("DLLK", "PIDK", "PID_K"),
    ("DLLp", "PIDp", "PID_P"),
    ("DLLmu", "PIDmu", "PID_MU"),
    ("DLLe", "PIDe", "PID_E"),
    ("DLLd", "PIDd", "PID_D"),
    ("ProbNNk", "PROBNN_K"),
    ("ProbNNpi", "PROBNN_PI"),
    ("ProbNNp", "PROBNN_P"),
    ("ProbNNmu", "PROBNN_MU"),
    ("ProbNNe", "PROBNN_E"),
    ("ProbNNd", "PROBNN_D"),
    ("ProbNNghost", "PROBNN_GHOST"),
)
_FIRST = {name: group[0] for group in SYNONYMS for name in group}
#: A longer text is no PID cut; the bound keeps Python's parser out of deep recursion.
MAX_LENGTH = 2000

_TOKENS = re.compile(r"(?P<both>&&?)|(?P<either>\|\|?)|(?P<negated>~|!(?!=))")
_COMPARISONS: dict[type[ast.cmpop], Any] = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
}
_ARITHMETIC: dict[type[ast.operator], Any] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
}
_SIGNS: dict[type[ast.unaryop], Any] = {ast.USub: np.negative, ast.UAdd: np.positive}


class Columns(Protocol):
    """Arrays (n,) by name: a DataFrame, or a mapping of names to arrays."""

    def __getitem__(self, name: Any, /) -> Any: ...

    def __contains__(self, name: Any, /) -> bool: ...

    def __iter__(self) -> Iterator[Any]: ...


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A parsed cut; make one with `parse_cut`.

    Attributes:
        text: Cut as it was written.
        canonical: Cut in one spelling, with aliases resolved; two texts that differ
            only in spaces, in brackets or in the spelling of `and` have the same.
        names: Columns that the cut needs, in order of appearance.
        expression: Parsed cut.
    """

    text: str
    canonical: str
    names: tuple[str, ...]
    expression: ast.expr = field(repr=False, compare=False)

    def passes(
        self, columns: Columns, sentinels: Mapping[str, Sequence[float]] | None = None
    ) -> BoolArray:
        """Return which rows pass.

        Args:
            columns: Arrays (n,) by name, or a DataFrame.
            sentinels: Values of each column that mean "no measurement".

        Returns:
            True for each row (n,) that passes; rows where a column of the cut is NaN,
            infinite or a sentinel fail.

        Example:
            >>> cut = parse_cut("RichDLLk > 0")
            >>> cut.passes({"RichDLLk": [3.0, -1.0, float("nan")]}).tolist()
            [True, False, False]
        """
        arrays, usable = self._arrays(columns, sentinels or {})
        with np.errstate(all="ignore"):
            result = _logical(self.text, self.expression, arrays, usable)
        return np.asarray(result & usable)

    def _arrays(
        self, columns: Columns, sentinels: Mapping[str, Sequence[float]]
    ) -> tuple[dict[str, FloatArray], BoolArray]:
        arrays: dict[str, FloatArray] = {}
        usable: BoolArray = np.ones(1, dtype=bool)
        for name in self.names:
            if name not in columns:
                raise _unknown(self.text, name, list(columns))
            stored = np.asarray(columns[name])
            arrays[name] = stored.astype(np.float64, copy=False)
            usable = usable & np.isfinite(arrays[name])
            for sentinel in sentinels.get(name, ()):
                # In the stored type, so that -999.9 is found in a float32 column.
                usable = usable & (stored != stored.dtype.type(sentinel))
        return arrays, usable


def cut_texts(cuts: str | Iterable[str]) -> tuple[str, ...]:
    """Return one cut, or several, as a tuple of texts.

    Example:
        >>> cut_texts("RichDLLk > 0")
        ('RichDLLk > 0',)
    """
    return (cuts,) if isinstance(cuts, str) else tuple(cuts)


def parse_cut(
    text: str,
    *,
    names: Iterable[str] | None = None,
    aliases: Mapping[str, str] | None = None,
) -> Cut:
    """Parse a cut and check it against the names that exist.

    Args:
        text: Cut, for example "RichDLLk > 0 & RichDLLk - RichDLLp > 0".
        names: Columns that exist; by default names are checked when the cut is applied.
        aliases: Column by further name. `DLLK`, `PIDK`, `PID_K` and the other
            `SYNONYMS` stand for each other wherever only one of them is in `names`.

    Returns:
        The cut, with aliases resolved.

    Raises:
        CutError: A name is unknown, or the text is not a comparison of columns and
            numbers.

    Example:
        >>> parse_cut("DLLK>4 && DLLp < 5", names=["PIDK", "PIDp"]).canonical
        'PIDK > 4.0 and PIDp < 5.0'
    """
    known = None if names is None else list(names)
    tree = _syntax_tree(text)
    try:
        resolved = _Resolver(text, known, dict(aliases or {})).visit(tree)
        used = _names(resolved)
        nothing = dict.fromkeys(used, np.zeros(0))
        # Of no rows, to refuse what is not a cut.
        _logical(text, resolved, nothing, np.zeros(0, dtype=bool))
    except RecursionError:
        raise CutError(f"cut {text[:40]!r}... is nested too deeply") from None
    if not used:
        raise CutError(f"cut {text!r} names no variable, so it selects nothing")
    return Cut(
        text=text,
        canonical=ast.unparse(resolved),
        names=tuple(dict.fromkeys(used)),
        expression=resolved,
    )


def compared_values(
    cut: Cut,
    name: str,
    columns: Columns,
    sentinels: Mapping[str, Sequence[float]] | None = None,
) -> FloatArray:
    """Return the values that a cut compares with a name, as `a - b` in `a - b > x`.

    Args:
        cut: Cut in which the name stands alone on one side of one comparison.
        name: Name of the threshold, `x` in the example; it need not be a column.
        columns: Arrays (n,) by name.
        sentinels: Values of each column that mean "no measurement".

    Returns:
        Values (n,), NaN or infinite where a column has no value.

    Raises:
        CutError: The name stands elsewhere, or in several comparisons.
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
    usable = {}
    for column in _names(found[0]):
        stored = np.asarray(columns[column])
        values = stored.astype(np.float64)
        for sentinel in (sentinels or {}).get(column, ()):
            values[stored == stored.dtype.type(sentinel)] = np.nan
        usable[column] = values
    with np.errstate(all="ignore"):
        return np.asarray(_number(cut.text, found[0], usable), dtype=np.float64)


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
    spelled = _TOKENS.sub(_spell, text).strip()
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


def _spell(match: re.Match[str]) -> str:
    words = {"both": " and ", "either": " or ", "negated": " not "}
    return words[match.lastgroup or ""]


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


class _Resolver(ast.NodeTransformer):
    """Replaces aliases and refuses unknown names; numbers become floats."""

    def __init__(
        self, text: str, known: list[str] | None, aliases: Mapping[str, str]
    ) -> None:
        self.text = text
        self.known = known
        self.aliases = aliases

    def visit_Call(self, node: ast.Call) -> ast.AST:
        arguments = [self.visit(argument) for argument in node.args]
        return ast.Call(func=node.func, args=arguments, keywords=node.keywords)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if type(node.value) is not int and type(node.value) is not float:
            raise CutError(
                f"cut {self.text!r} holds {node.value!r}; only numbers and names of "
                f"columns are allowed"
            )
        try:
            return ast.Constant(value=float(node.value))
        except OverflowError:
            raise CutError(f"cut {self.text!r} holds a number too large") from None

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(id=self.resolve(node.id), ctx=ast.Load())

    def resolve(self, name: str) -> str:
        if self.known is not None and name in self.known:
            return name
        target = self.aliases.get(name, name)
        if self.known is None or target in self.known:
            return target
        present = [column for column in self.known if _plain(column) == _plain(target)]
        if len(present) != 1:
            raise _unknown(self.text, name, self.known)
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
            type(operator) in _COMPARISONS for operator in ops
        ):
            numbers = [_number(text, part, arrays) for part in (left, *comparators)]
            for number in numbers:
                usable &= np.isfinite(number)  # a division by zero passes no cut
            pairs = zip(ops, numbers[:-1], numbers[1:], strict=True)
            return np.logical_and.reduce(
                [
                    np.broadcast_to(_COMPARISONS[type(op)](a, b), usable.shape)
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
        case ast.UnaryOp(op=operator, operand=operand) if type(operator) in _SIGNS:
            return _SIGNS[type(operator)](_number(text, operand, arrays))
        case ast.BinOp(left=left, op=operator, right=right) if (
            type(operator) in _ARITHMETIC
        ):
            function = _ARITHMETIC[type(operator)]
            return function(_number(text, left, arrays), _number(text, right, arrays))
        case ast.Call(func=ast.Name(id="abs"), args=[argument], keywords=[]):
            return np.abs(_number(text, argument, arrays))
    raise _refused(text, node)
