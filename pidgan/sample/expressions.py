"""Arithmetic of branches, such as "Dst_M - D_M", computed as PIDCalib2 does it.

It is the arithmetic of cuts (`pidgan.sample.cut_syntax`): names, numbers, `+ - * /` and
`abs()`. Cuts compute in double precision. Here, branches in single precision give a
result in single precision: rows are sorted by it, and a rounding decides which rows are
equal.
"""

import ast
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pidgan.errors import CutError
from pidgan.sample import stored
from pidgan.sample.cut_syntax import shown, syntax_tree
from pidgan.sample.cuts import ARITHMETIC, Columns

#: A branch whose name the language of cuts does not know, such as "fit.mass[0]".
_BRANCH = re.compile(r"[^\W\d][^\s+\-*/()&|<>=!,]*")


@dataclass(frozen=True, kw_only=True)
class Expression:
    """An arithmetic expression; make one with `parse_expression`.

    `names` are the branches that it needs, in order of appearance.
    """

    text: str
    names: tuple[str, ...]
    tree: ast.expr = field(repr=False, compare=False)

    def evaluate(self, columns: Columns) -> Any:
        """Return the values (n,); a name alone gives the column as it is stored."""
        with np.errstate(all="ignore"):
            if isinstance(self.tree, ast.Name):
                return stored.as_column(columns[self.tree.id])
            return _value(self.text, self.tree, columns)


def parse_expression(text: str) -> Expression:
    """Parse an expression of branches; a CutError says what it is not."""
    if _BRANCH.fullmatch(text):
        return whole_branch(text)
    try:
        tree = syntax_tree(text)
    except CutError:
        raise _refused(text) from None
    nodes = list(ast.walk(tree))
    functions = [node.func for node in nodes if isinstance(node, ast.Call)]
    found = [n for n in nodes if isinstance(n, ast.Name) and n not in functions]
    found.sort(key=lambda node: node.col_offset)
    if not found:
        raise CutError(f"{shown(text)} names no branch")
    names = tuple(dict.fromkeys(node.id for node in found))
    with np.errstate(all="ignore"):  # of one row, to refuse what is no arithmetic
        _value(text, tree, dict.fromkeys(names, np.ones(1)))
    return Expression(text=text, names=names, tree=tree)


def whole_branch(name: str) -> Expression:
    """Return a branch, of any name, as an expression."""
    return Expression(text=name, names=(name,), tree=ast.Name(id=name))


def _refused(text: str) -> CutError:
    return CutError(
        f"{shown(text)} is no expression of branches such as 'Dst_M - D_M': expected "
        "names and numbers with + - * / and abs()"
    )


def _value(text: str, node: ast.expr, columns: Columns) -> Any:
    match node:
        case ast.Name(id=name):
            column = stored.as_column(columns[name])
            return column if column.dtype.kind == "f" else stored.as_double(column)
        case ast.Constant(value=float() as value):
            return value
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in ARITHMETIC:
            return _plain(ARITHMETIC[type(sign)](_value(text, operand, columns)))
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in ARITHMETIC:
            pair = [_value(text, part, columns) for part in (left, right)]
            return _plain(ARITHMETIC[type(sign)](*pair))
        case ast.Call(func=ast.Name(id="abs"), args=[argument], keywords=[]):
            return _plain(np.abs(_value(text, argument, columns)))
    raise _refused(text)


def _plain(value: Any) -> Any:
    """Return a number as one of Python, beside which single precision stays so."""
    return value if np.ndim(value) else float(value)
