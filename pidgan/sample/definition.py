"""A Sample: the definition of one calibration sample, parsed, validated and frozen.

A definition is a TOML file that says what a calibration sample *is* (species, tree,
branches, ranges, how the background is removed) and never where its files are.
`pidgan.sample.loading.list_samples` lists the definitions that ship. Your own
definition needs no code:

    schema = 1
    title = "Kaons of my own selection"
    detector = "LHCb"
    species = "K+"
    source = "my analysis note"
    weight_branch = "sw"
    targets = [{name = "RichDLLk", branch = "K_RichDLLk", range = [-150, 150]}]

    [[conditions]]
    name = "P"
    branch = "K_P"
    unit = "GeV"
    range = [3e3, 200e3]

    [[conditions]]
    name = "ETA"
    derive = "eta_from_p_pt"
    branches = ["K_P", "K_PT"]
    range = [1.8, 5.5]

Showers have cells instead of targets, see `pidgan.sample.cells.Cells`, and the tracks
of a time projection chamber clusters, see `pidgan.sample.clusters`. A categorical
condition, one number of a closed list, has `categories` instead of a range.

`extends = "run2_dstar_k"` (a shipped name, or a path beside the file) starts from
another definition, and every key of the file replaces that key as a whole. Ranges are
in package units (MeV, mm, ns, rad), whatever the unit of the branch.

`after = "run2_dstar_k"` makes the file a link of a chain (`pidgan.sample.links`): its
targets come after those of the other definition, and are generated given them.
"""

import graphlib
import json
from collections.abc import Collection
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, Field, ValidationError, model_validator

from pidgan.errors import CutError, nearest, repeated
from pidgan.notebook import Facts, listed, shown
from pidgan.sample.cells import Cells
from pidgan.sample.clusters import Clusters
from pidgan.sample.cuts import parse_cut
from pidgan.sample.links import Link, as_condition, check_links
from pidgan.sample.variables import FROZEN, Finite, Range, Unit, Variable
from pidgan.sample.weight_file import WeightFile

#: Keys that say how background is treated; a definition has exactly one of them.
WEIGHTINGS = ("weight_branch", "sweights", "discriminant", "unweighted")


@lru_cache(maxsize=256)
def _check_cut(text: str, names: tuple[str, ...] | None) -> None:
    """Raise a CutError if a text is no cut; definitions share most of their cuts."""
    parse_cut(text, names=names)


class Discriminant(BaseModel):
    """The variable that sWeights are fitted in, with the shapes of the two components.

    Rows outside `range`, in package units, are dropped. The signal is one Gaussian, two
    of one mean, or a Gaussian core with a power-law tail on each side; the polynomial
    of the background is of first order.
    """

    model_config = FROZEN

    branch: str = Field(min_length=1)
    unit: Unit = "MeV"
    range: Range
    signal: Literal["gauss", "double_gauss", "crystal_ball"] = "double_gauss"
    background: Literal["exponential", "polynomial"] = "exponential"


@shown
class Sample(BaseModel):
    """A calibration sample: what it is, and how to read it.

    Exactly one of `weight_branch`, `sweights`, `discriminant` and `unweighted` says how
    background is treated.

    Attributes:
        schema_version: Version of the format, 1.
        name: Name of the sample.
        title: Description in one line.
        detector: Name of the detector.
        species: Name of the particle in the tables of the PDG.
        source: Publication or note that describes the selection.
        trees: Paths of the trees in each file; empty for files with one tree.
        weight_branch: Branch that holds the sWeights.
        sweights: File that holds the sWeights, beside each file of the sample.
        discriminant: Variable that sWeights are fitted in.
        unweighted: True for a sample without background.
        conditions: Conditions of the generator.
        variables: Targets of the generator, `targets` in the file.
        cells: Cells of a calorimeter, instead of targets.
        clusters: Pad rows of a chamber, of which the clusters are the targets.
        exclude: Intervals by condition in which nothing is trained, so that a
            generator can be judged inside.
        selection: Cut on branches, applied first.
        fiducial: Cut on conditions, which also holds where a generator is applied.
        binning: Bin edges by condition, for tables and reports.
        map_binning: Bin edges by condition for efficiency maps, where they differ.
        cuts: Standard PID cuts of reports.
        data_taking: Year, polarity, charge, tuning of the data, where they are known.
        links: Links of a chain with their targets, in order; none for a sample whose
            targets are generated together.
    """

    model_config = FROZEN

    schema_version: Literal[1] = Field(alias="schema")
    name: str = Field(min_length=1)
    title: str = Field(min_length=1)
    detector: str = Field(min_length=1)
    species: str
    source: str = Field(min_length=1)
    trees: tuple[str, ...] = ()
    weight_branch: str | None = None
    sweights: WeightFile | None = None
    discriminant: Discriminant | None = None
    unweighted: bool = False
    conditions: Annotated[tuple[Variable, ...], Field(min_length=1)]
    variables: tuple[Variable, ...] = Field(default=(), alias="targets")
    cells: Cells | None = None
    clusters: Clusters | None = None
    exclude: dict[str, tuple[Range, ...]] = Field(default_factory=dict)
    selection: str | None = None
    fiducial: str | None = None
    binning: dict[str, tuple[Finite, ...]] = Field(default_factory=dict)
    map_binning: dict[str, tuple[Finite, ...]] = Field(default_factory=dict)
    cuts: tuple[str, ...] = ()
    data_taking: dict[str, str] = Field(default_factory=dict)
    links: tuple[Link, ...] = ()

    @cached_property
    def targets(self) -> tuple[Variable, ...]:
        """Targets of the definition, or every cell."""
        return self.variables if self.cells is None else self.cells.variables()

    @property
    def condition_names(self) -> tuple[str, ...]:
        """Names of the conditions, in order."""
        return tuple(variable.name for variable in self.conditions)

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of the targets, in order."""
        return tuple(variable.name for variable in self.targets)

    @property
    def orders(self) -> tuple[tuple[int, int], ...]:
        """Pairs of targets, by number, of which the first is at most the second."""
        place = {name: j for j, name in enumerate(self.target_names)}
        return tuple(
            (place[variable.name], place[name])
            for variable in self.targets
            for name in variable.at_most
        )

    @property
    def needed_conditions(self) -> set[str]:
        """Conditions of the fiducial cut and of a helix, which cannot be left out."""
        cut = parse_cut(self.fiducial).names if self.fiducial else ()
        return {*cut, *(self.clusters.helix.values() if self.clusters else ())}

    @property
    def branches(self) -> tuple[str, ...]:
        """Branches that have to be read, each once."""
        names = [name for v in (*self.conditions, *self.variables) for name in v.inputs]
        if self.cells:
            for view in self.cells.layout.views:
                names += self.cells.branches(view.name)
        mass = self.discriminant
        names += filter(None, [self.weight_branch, mass.branch if mass else None])
        if self.selection:
            names += parse_cut(self.selection).names
        return tuple(dict.fromkeys(names))

    @property
    def aliases(self) -> dict[str, str]:
        """Names by branch, so that cuts may use the names and tunings of PIDCalib too.

        The branch of a probe also counts without "probe_": `MC15TuneV1_ProbNNk` is the
        `ProbNNk` of a sample with that tuning, and of no other sample.
        """
        names = {*self.condition_names, *self.target_names}
        found = {}
        for variable in (*self.conditions, *self.variables):
            if variable.branch:
                for text in (variable.branch, variable.branch.removeprefix("probe_")):
                    if text not in names:
                        found[text] = variable.name
        return found

    @property
    def sentinels(self) -> dict[str, tuple[float, ...]]:
        """Sentinel values by target name, as cuts need them."""
        return {v.name: v.sentinels for v in self.variables if v.sentinels}

    def of_link(self, number: int) -> "Sample":
        """Return the sample of one link alone, counted from 0.

        The targets of all earlier links are conditions.
        """
        mine = self.links[number].targets
        first = self.target_names.index(mine[0])
        earlier = tuple(map(as_condition, self.variables[:first]))
        update = {
            "conditions": (*self.conditions, *earlier),
            "targets": self.variables[first : first + len(mine)],
            "links": (),
            "cuts": (),
        }
        content = dict(self)
        fields = type(self).model_fields.items()
        known = {field.alias or name: content[name] for name, field in fields}
        return Sample.model_validate(known | update, context={"written": True})

    def without(self, names: Collection[str]) -> Self:
        """Return the definition without some conditions, and what hangs on them."""
        kept = tuple(v for v in self.conditions if v.name not in names)
        update: dict[str, Any] = {"conditions": kept}
        for key in ("binning", "map_binning", "exclude"):
            intervals = getattr(self, key).items()
            update[key] = {name: v for name, v in intervals if name not in names}
        if self.cells:
            less: dict[str, Any] = {}
            if self.cells.incident in names:
                less["incident"] = None
            symmetry = self.cells.symmetry
            if symmetry and set(symmetry.columns.values()) & set(names):
                # The mirror image of the one position is another, which no row has.
                less["symmetry"] = None
            update["cells"] = self.cells.model_copy(update=less)
        return self.model_copy(update=update)

    def to_json(self) -> str:
        """Return the definition as JSON, without defaults."""
        dumped = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        return json.dumps(dumped, indent=2)

    def text(self) -> str:
        """Return the definition as text, a line for each variable and cut."""
        mass = self.discriminant
        fitted = f"sWeights from a fit to {mass.branch}" if mass else "none"
        given = f"branch {self.weight_branch}" if self.weight_branch else fitted
        given = self.sweights.text() if self.sweights else given
        lines = [
            f"{self.name}: {self.title}",
            f"species       {self.species}",
            f"detector      {self.detector}",
            f"trees         {', '.join(self.trees) or 'the only one in the file'}",
            f"source        {self.source}",
            f"weights       {given}",
        ]
        for kind, found in (("condition", self.conditions), ("target", self.variables)):
            for variable in found:
                low, high = variable.range
                where = variable.derive or variable.branch or variable.name
                given = "" if variable.unit == "1" else f" ({variable.unit})"
                unit = "" if variable.unit == "1" else f" {variable.package_unit}"
                lines.append(
                    f"{kind:13} {variable.name}: {where}{given}, "
                    f"{low:g} to {high:g}{unit}"
                )
        if self.cells:
            lines += [
                f"{'cells':13} {view.name}: "
                f"{', '.join(self.cells.branches(view.name))} ({self.cells.unit}), "
                f"{view.n_cells} in {len(view.layers)} layers"
                for view in self.cells.layout.views
            ]
        lines += [
            f"{'link':13} {link.name}: {', '.join(link.targets)}" for link in self.links
        ]
        return "\n".join([*lines, *(f"cut           {cut}" for cut in self.cuts)])

    @model_validator(mode="before")
    @classmethod
    def _add_clusters(cls, content: Any) -> Any:
        """Take the targets of a definition with clusters from its pad rows."""
        given = content.get("clusters") if isinstance(content, dict) else None
        if not given or content.get("targets") or content.get("variables"):
            return content
        try:
            clusters = Clusters.model_validate(given)
        except ValidationError:  # reported with its place in the definition
            return content
        return content | {"targets": clusters.variables()}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.clusters and self.variables != self.clusters.variables():
            raise ValueError("expected either targets or clusters, got both")
        if self.variables and self.cells:
            raise ValueError("expected either targets or cells, got both")
        if not self.variables and not self.cells:
            raise ValueError("key 'targets' is missing, or 'cells' or 'clusters'")
        names = [*self.condition_names, *self.target_names]
        if twice := repeated(names):
            raise ValueError(f"name used more than once: {', '.join(twice[:5])}")
        given = [key for key in WEIGHTINGS if getattr(self, key)]
        if len(given) != 1:
            raise ValueError(
                f"expected exactly one of {', '.join(WEIGHTINGS)}, "
                f"got {' and '.join(given) or 'none'}"
            )
        self._check_conditions()
        self._check_orders()
        if self.links:
            if self.cells or self.clusters:
                raise ValueError("'links' are those of targets, not of cells, clusters")
            check_links(self.links, self.variables)
        try:
            for text in self.cuts:
                _check_cut(text, self.target_names)
        except CutError as error:
            raise ValueError(f"cuts: {error}") from None
        try:
            if self.fiducial:
                _check_cut(self.fiducial, self.condition_names)
            if self.selection:
                _check_cut(self.selection, None)
        except CutError as error:
            raise ValueError(str(error)) from None
        return self

    def _check_orders(self) -> None:
        """Refuse orders of conditions, with other names, and in a circle."""
        for variable in self.conditions:
            if variable.step is not None or variable.at_most:
                raise ValueError(
                    f"condition {variable.name!r} has 'step' or 'at_most', which are "
                    "for targets"
                )
        if found := [v.name for v in self.variables if v.optional]:
            raise ValueError(
                f"target {found[0]!r} is optional, which conditions can be"
            )
        above = {variable.name: variable.at_most for variable in self.variables}
        for name, others in above.items():
            for other in others:
                if other not in above:
                    raise ValueError(
                        f"at_most of {name!r} names {other!r}, which is not a target"
                        f"{nearest(other, above)}"
                    )
        try:
            tuple(graphlib.TopologicalSorter(above).static_order())
        except graphlib.CycleError as error:
            circle = " <= ".join(error.args[1])
            raise ValueError(f"at_most goes in a circle: {circle}") from None

    def _check_conditions(self) -> None:
        """Refuse names that are not conditions, and edges that do not rise."""
        incident = self.cells.incident if self.cells else None
        symmetry = self.cells.symmetry if self.cells else None
        helix = self.clusters.helix if self.clusters else {}
        for where, mentioned in (
            ("binning in", self.binning),
            ("map_binning in", self.map_binning),
            ("exclude names", self.exclude),
            ("cells.incident names", [incident] if incident else []),
            ("cells.symmetry names", symmetry.columns.values() if symmetry else []),
            ("clusters.helix names", helix.values()),
        ):
            for name in mentioned:
                if name not in self.condition_names:
                    raise ValueError(
                        f"{where} {name!r}, which is not a condition"
                        f"{nearest(name, self.condition_names)}"
                    )
        for key in ("binning", "map_binning"):
            for name, edges in getattr(self, key).items():
                if len(edges) < 2 or not bool(np.all(np.diff(edges) > 0)):
                    raise ValueError(f"{key}: edges of {name!r} do not rise")

    def _facts(self) -> Facts:
        targets = listed(self.target_names)
        return Facts(
            f"{self.name}, {self.species}: {len(self.conditions)} conditions, "
            f"{len(self.targets)} targets",
            {
                "title": self.title,
                "detector": self.detector,
                "conditions": listed(self.condition_names),
                "targets": targets,
                "cuts": listed(self.cuts) or "none",
                "source": self.source,
            },
        )


def excluded_text(sample: Sample) -> str:
    """Return where nothing is trained: conditions with their intervals, or ""."""
    units = {variable.name: variable.package_unit for variable in sample.conditions}
    found = []
    for name, intervals in sample.exclude.items():
        if intervals:
            unit = "" if units.get(name, "1") == "1" else f" {units[name]}"
            ends = " and ".join(f"{low:g} to {high:g}" for low, high in intervals)
            found.append(f"{name} {ends}{unit}")
    return ", ".join(found)
