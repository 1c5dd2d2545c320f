"""A WeightFile: sWeights in a file of their own, as a definition describes them.

Calibration samples of Run 3 keep the sWeights of each tuple in another file, which lies
beside the tuple or at a place that the user names. A definition says what the other
file is called and how its rows belong to those of the tuple:

    sweights = {file = "{stem}_sweights.root", order = ["Dst_M - D_M", "D_M"]}

- Ranks: the branch `match`, "order_index" by default, has the rank of each weight among
  the rows of the tuple, sorted by the expressions of `order`. So does PIDCalib2.
- Keys: `match = ["RUNNUMBER", "EVENTNUMBER"]` are branches of both files, which
  together are different in every row.
- Rows: with `match = "entry"`, both files have the same rows in the same order.
"""

from typing import Literal, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from pidgan.errors import CutError, repeated
from pidgan.sample.expressions import Expression, parse_expression
from pidgan.sample.variables import FROZEN, Names

ENTRY, ORDER_INDEX = "entry", "order_index"
_STEM = "{stem}"


class WeightFile(BaseModel):
    """The file of the sWeights of a tuple, and how rows of both are matched.

    `file` is a name without folders; "{stem}" in it is the name of the tuple without
    its last suffix. `tree` is by default the tree with the same name as that of the
    tuple. `ties = "file"` matches rows that are equal in all of `order` in the order in
    which both files have them; they are refused by default, unless their weights are
    equal. Rows with NaN in `order` are refused too, and come last with `ties = "file"`.
    """

    model_config = FROZEN

    file: str = Field(min_length=1, max_length=200)
    tree: str | None = Field(default=None, min_length=1)
    branch: str = Field(default="sweight", min_length=1)
    match: Names = Field(default=(ORDER_INDEX,), min_length=1)
    order: Names = ()
    ties: Literal["refuse", "file"] = "refuse"

    @property
    def kind(self) -> Literal["ranks", "keys", "rows"]:
        """How rows are matched."""
        if self.match == (ENTRY,):
            return "rows"
        return "ranks" if self.order else "keys"

    @property
    def is_shared(self) -> bool:
        """Whether all tuples have their weights in one file."""
        return _STEM not in self.file

    @property
    def expressions(self) -> tuple[Expression, ...]:
        """The expressions by which the rows of the tuple are sorted."""
        return tuple(map(parse_expression, self.order))

    def name_for(self, stem: str) -> str:
        """Return the name of the file with the weights of a tuple."""
        return self.file.replace(_STEM, stem)

    def text(self) -> str:
        """Return in a few words where the weights are and how rows are matched."""
        how = {
            "ranks": f"{self.match[0]} in the order of {', '.join(self.order)}",
            "keys": ", ".join(self.match),
            "rows": "row",
        }
        return f"{self.branch} of {self.file}, matched by {how[self.kind]}"

    @field_validator("file")
    @classmethod
    def _check_file(cls, file: str) -> str:
        if "/" in file or "\\" in file or not file.isprintable():
            raise ValueError(
                f"{file!r} has a folder or an address, expected a name such as "
                f"'{_STEM}_sweights.root'; the place is given to pidgan prepare with "
                "--sweights-from"
            )
        if any(sign in file.replace(_STEM, "") for sign in "{}"):
            raise ValueError(f"{file!r}: only {_STEM} can stand in braces")
        return file

    @model_validator(mode="after")
    def _check(self) -> Self:
        if twice := repeated([*self.match]) or repeated([*self.order]):
            raise ValueError(f"named more than once: {', '.join(twice)}")
        if self.order and (self.kind == "rows" or len(self.match) > 1):
            raise ValueError(
                f"order needs match = {ORDER_INDEX!r}, or another branch of ranks; got "
                f"{', '.join(self.match)}"
            )
        if not self.order and self.match == (ORDER_INDEX,):
            raise ValueError(
                f"match = {ORDER_INDEX!r} needs order, the expressions by which rows "
                "are sorted; rows in the same order have match = 'entry'"
            )
        if self.ties == "file" and not self.order:
            raise ValueError("ties needs order")
        for text in self.order:
            try:
                parse_expression(text)
            except CutError as error:
                raise ValueError(f"order: {error}") from None
        return self
