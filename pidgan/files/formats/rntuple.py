"""RNTuples of ROOT files, read and written by uproot."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import awkward as ak
import numpy as np

from pidgan.files.formats import uproot_trees
from pidgan.files.trees import Append, BranchType, CopyPlan

NUMBERS = {
    "bool": "bool",
    "float": "float32",
    "double": "float64",
    **{
        f"std::{sign}int{bits}_t": f"{sign}int{bits}"
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
}
"""Types of fields with one number or bool per entry."""


@final
@dataclass(frozen=True)
class RNTuple:
    """An RNTuple of an open file; its branches are its fields."""

    tree: Any

    @property
    def entries(self) -> int:
        return int(self.tree.num_entries)

    # uproot does these alike for TTrees and RNTuples.
    typenames = uproot_trees.typenames
    names = uproot_trees.names
    stored_bytes = uproot_trees.stored_bytes
    pieces = uproot_trees.pieces
    arrays = uproot_trees.arrays

    def branch_type(self, name: str) -> BranchType | None:
        kind = str(self.tree[name].typename)
        vector = re.fullmatch(r"std::vector<(.+)>", kind)
        array = re.fullmatch(r"std::array<(.+),\s*(\d+)>", kind)
        number = (vector or array or [kind, kind])[1]
        if number not in NUMBERS:
            return None
        shape = (None,) if vector else (int(array[2]),) if array else ()
        return BranchType(np.dtype(NUMBERS[number]), shape)

    def unwritable(self) -> dict[str, str]:
        refused = {}
        for name, kind in self.tree.typenames(recursive=False).items():
            try:
                self.tree.to_akform(filter_name=lambda key, name=name: key == name)
            except Exception:
                refused[name] = kind
        return refused

    def changed(self) -> dict[str, str]:
        return {}

    def copy(self, new: Any, name: str, plan: CopyPlan) -> Append:
        written = new.mkrntuple(name, self._form(plan.kept, plan.added))
        return uproot_trees.appending(written, plan.kept)

    def _form(self, kept: Sequence[str], added: Mapping[str, BranchType]) -> Any:
        """Return the awkward form of the fields that stay and of new ones."""
        forms = {}
        if kept:
            old, _ = self.tree.to_akform(filter_name=frozenset(kept).__contains__)
            forms = {name: old.content(name) for name in kept}
        for name, kind in added.items():
            number = ak.forms.NumpyForm(kind.number.name)
            if kind.shape == (None,):
                forms[name] = ak.forms.ListOffsetForm("i64", number)
            else:
                size = kind.shape[0] if kind.shape else None
                forms[name] = ak.forms.RegularForm(number, size) if size else number
        return ak.forms.RecordForm(list(forms.values()), list(forms))
