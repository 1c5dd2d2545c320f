"""Rows of a control sample: real responses, conditions, and how background is treated.

A control sample is a dataset, or files with real PID variables of a track, with weights
or with a mass that is fitted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pidgan.application.conditions import UNIT_CHECK_ENTRIES, Conditions, check_units
from pidgan.application.names import own_name
from pidgan.arrays import BoolArray, FloatArray
from pidgan.efficiency.binning import Binning, by_condition
from pidgan.efficiency.efficiency_map import EfficiencyMap
from pidgan.efficiency.row_plans import find_track_conditions
from pidgan.errors import MapError, NtupleError, nearest
from pidgan.files import tables
from pidgan.files.frames import Rows
from pidgan.sample.cuts import Cut, parse_cut
from pidgan.sample.dataset import Dataset, PartName
from pidgan.sample.definition import Discriminant
from pidgan.sample.mass_fit_pass_fail import position_of
from pidgan.sample.species import pdg_id
from pidgan.sample.sweights import compute_sweights
from pidgan.sample.variables import DISCRIMINANT, Variable
from pidgan.sample.weights import check_weights

#: Parts of a dataset that are compared: all but excluded intervals.
_PARTS: tuple[PartName, ...] = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class ControlRows:
    """The n rows of a control sample that can be used.

    Attributes:
        source: Where they come from, for messages.
        species: PDG name.
        columns: Conditions and variables of bins, (n,) each.
        passed: Whether a row passes each cut, (n_cuts, n).
        weights: (n,) weights of any sign, whose sums are those of signal.
        position: (n,) mass in its range, from 0 to 1, where signal is counted by fits.
        shape: Range and shapes of that fit.
        dropped: Rows left out, by reason.
    """

    source: str
    species: str
    columns: dict[str, FloatArray]
    passed: BoolArray
    weights: FloatArray
    position: FloatArray | None
    shape: Discriminant | None
    dropped: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class ControlFiles:
    """Where files hold a control sample.

    Attributes:
        track: Prefix of the track, empty for branches without one.
        species: PDG name of the track.
        weights: Branch with weights; None if there is a mass or no background.
        mass: Branch, range and shapes of a mass fit.
        targets: Branch by target, where it is not {track}_{target}{suffix}.
        suffix: End of the names of targets.
        conditions: Branches and units of conditions.
    """

    track: str
    species: str
    weights: str | None
    mass: Discriminant | None
    targets: Mapping[str, str]
    suffix: str
    conditions: Conditions


def check_species(efficiency_map: EfficiencyMap, species: str, where: str) -> None:
    """Raise a MapError if a sample is of another species than a map."""
    of_map = efficiency_map.metadata["species"]
    if abs(pdg_id(species)) != abs(int(efficiency_map.metadata["pdgid"])):
        raise MapError(
            f"{where} is a control sample of {species}, the efficiency map is of "
            f"{of_map}; expected the same species, or its antiparticle"
        )


def parsed_cuts(efficiency_map: EfficiencyMap, numbers: Sequence[int]) -> list[Cut]:
    """Return cuts of a map by their numbers."""
    names, aliases = efficiency_map.names, efficiency_map.aliases
    texts = [efficiency_map.cuts[number] for number in numbers]
    return [parse_cut(text, names=names, aliases=aliases) for text in texts]


def rows_of_dataset(
    dataset: Dataset,
    efficiency_map: EfficiencyMap,
    cuts: Sequence[Cut],
    *,
    count: bool,
) -> ControlRows:
    """Return all rows of a dataset; `count` asks for mass fits instead of its weights.

    A MapError says that it is of another species, or lacks something.
    """
    sample, where = dataset.sample, f"dataset {dataset.sample.name!r}"
    check_species(efficiency_map, sample.species, where)
    frame = pd.concat([dataset.frame(name) for name in _PARTS], ignore_index=True)
    for name in {*efficiency_map.binning, *(n for cut in cuts for n in cut.names)}:
        if name not in frame:
            hint = nearest(name, map(str, frame))
            raise MapError(f"{where} has no {name!r}, which the map needs{hint}")
    position = None
    if count:
        if not dataset.has_discriminant or sample.discriminant is None:
            raise MapError(
                f"{where} has no discriminant to count signal in; expected one in its "
                "definition, and a dataset that was prepared by this version"
            )
        mass = frame[DISCRIMINANT].to_numpy(np.float64)
        position = position_of(mass, sample.discriminant)
    columns = {str(n): frame[n].to_numpy(np.float64) for n in frame}
    return ControlRows(
        source=where,
        species=sample.species,
        columns=columns,
        passed=np.array([cut.passes(columns, sample.sentinels) for cut in cuts]),
        weights=columns["weight"],
        position=position,
        shape=sample.discriminant if count else None,
        dropped={},
    )


def rows_of_files(
    files: Rows,
    given: ControlFiles,
    efficiency_map: EfficiencyMap,
    cuts: Sequence[Cut],
    *,
    binning: Binning | None,
    is_drawn: bool = False,
) -> ControlRows:
    """Return the rows of files that can be used; draws need all conditions."""
    sources = tables.find_sources(files)
    more = f" and {len(sources) - 1} more" if len(sources) > 1 else ""
    where = f"{sources[0]}{more}"
    check_species(efficiency_map, given.species, where)
    bins = list(by_condition(binning or {}))
    conditions = [str(v["name"]) for v in efficiency_map.metadata["conditions"]]
    needed = [
        *(conditions if is_drawn else efficiency_map.binning),
        *(name for cut in cuts for name in cut.names if name in conditions),
        *(name for name in bins if name in conditions),
    ]
    frames = [
        _read(source, given, efficiency_map, cuts, bins=bins, needed=needed)
        for source in sources
    ]
    frame = pd.concat(frames, ignore_index=True)
    dropped: dict[str, int] = {}

    def drop(bad: BoolArray, why: str) -> None:
        nonlocal frame
        if bad.any():
            dropped[why] = int(np.count_nonzero(bad))
            frame = frame.loc[~bad].reset_index(drop=True)

    drop(~np.isfinite(frame.to_numpy(np.float64)).all(axis=1), "NaN or infinite")
    shape, position = given.mass, None
    if shape is not None:
        mass = frame["#mass"].to_numpy(np.float64)
        low, high = shape.range
        drop(~((mass >= low) & (mass <= high)), f"{shape.branch} outside its range")
    if not len(frame):
        reasons = ", ".join(f"{why}: {n}" for why, n in dropped.items())
        raise MapError(f"{where}: no usable row ({reasons or 'no entries'})")
    weights: FloatArray = np.ones(len(frame))
    if shape is not None:
        mass = frame["#mass"].to_numpy(np.float64)
        position = position_of(mass, shape)
        weights = compute_sweights(mass, shape, source=where).weights
    elif given.weights is not None:
        weights = frame["#weight"].to_numpy(np.float64)
    check_weights(weights, f"{where}: {given.weights or 'sWeights'}")
    sentinels = {
        v["name"]: tuple(v["sentinels"]) for v in efficiency_map.metadata["targets"]
    }
    columns = {str(n): frame[n].to_numpy(np.float64) for n in frame}
    return ControlRows(
        source=where,
        species=given.species,
        columns=columns,
        passed=np.array([cut.passes(columns, sentinels) for cut in cuts]),
        weights=weights,
        position=position,
        shape=shape,
        dropped=dropped,
    )


def _read(
    source: tables.Source,
    given: ControlFiles,
    efficiency_map: EfficiencyMap,
    cuts: Sequence[Cut],
    *,
    bins: Sequence[str],
    needed: Sequence[str],
) -> pd.DataFrame:
    """Return conditions, targets and further branches of one file in package units."""
    tree = tables.describe_tree(source)
    of_map = {str(v["name"]) for v in efficiency_map.metadata["targets"]}
    named = list(dict.fromkeys(name for cut in cuts for name in cut.names))
    targets = {
        name: given.targets.get(name) or f"{own_name(given.track, name)}{given.suffix}"
        for name in named
        if name in of_map
    }
    for name in given.targets:
        if name not in of_map:
            raise MapError(
                f"target {name!r} is none of the map{nearest(name, sorted(of_map))}"
            )
    known = {str(v["name"]) for v in efficiency_map.metadata["conditions"]}
    conditions = find_track_conditions(
        given.track,
        efficiency_map,
        source,
        tree,
        needed=needed,
        conditions=given.conditions,
    )
    further = {name: name for name in bins if name not in known and name not in targets}
    if given.weights is not None:
        further["#weight"] = given.weights
    if given.mass is not None:
        further["#mass"] = given.mass.branch
    wanted = {**targets, **further}
    for name, branch in wanted.items():
        if branch not in tree.types:
            what = f" for {name}" if not name.startswith("#") else ""
            raise NtupleError(
                f"{source} has no {source.branch} {branch!r}{what}"
                f"{nearest(branch, tree.types)}"
            )
    inputs = [branch for one in conditions for branch in one.inputs]
    names = list(dict.fromkeys([*inputs, *wanted.values()]))
    frame = tables.read_columns(source, names)
    check_units(conditions, frame[:UNIT_CHECK_ENTRIES], source, given.track)
    found: dict[str, Any] = {
        one.variable.name: one.evaluate(frame) for one in conditions
    }
    found |= {name: frame[branch].to_numpy() for name, branch in wanted.items()}
    if given.mass is not None:
        mass = given.mass
        read = Variable(name=mass.branch, unit=mass.unit, range=mass.range)
        found["#mass"] = read.evaluate(frame)
    return pd.DataFrame({name: np.asarray(v, np.float64) for name, v in found.items()})


def opened_dataset(control: Any) -> Dataset | None:
    """Return the dataset that a control sample is, or None for files or rows."""
    if isinstance(control, Dataset):
        return control
    if isinstance(control, str | Path) and (Path(control) / "dataset.json").is_file():
        return Dataset.open(control)
    return None
