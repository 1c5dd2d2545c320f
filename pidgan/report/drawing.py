"""Pictures of whatever the package makes: one function, `plot`.

What is drawn follows from what is given, and its content says what it is, see
`pidgan.report.opening`. `plot` measures and returns pictures that are drawn when they
are looked at or saved.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from pidgan.application.conditions import Conditions
from pidgan.arguments import checked
from pidgan.bundle.card import CardVariable, describe_variables
from pidgan.efficiency.binning import Binning
from pidgan.errors import DatasetError, MapError, NtupleError, nearest
from pidgan.files import tables
from pidgan.report.binned import Binned
from pidgan.report.coverage import Coverage, coverage_pictures
from pidgan.report.drawn_maps import map_pictures
from pidgan.report.drawn_rows import (
    MOST_VARIABLES,
    RowsOfSpecies,
    check_cuts,
    efficiency_pictures,
    rows_of_dataset,
    rows_of_generator,
    variable_pictures,
)
from pidgan.report.drawn_tables import table_pictures
from pidgan.report.opening import EXPECTED, Opened, open_plotted
from pidgan.report.pictures import Pictures
from pidgan.report.plots import Figure
from pidgan.report.plots.samples import plot_history, plot_mass_fit
from pidgan.report.plots.variables import (
    Drawn,
    Panel,
    plot_variables,
    with_and_without,
)
from pidgan.report.tracks_read import read_tracks
from pidgan.sample.building import build_dataset
from pidgan.sample.dataset import Dataset
from pidgan.sample.variables import WEIGHT

Draw = Callable[[], Figure]


@checked
def plot(
    what: Any,
    *beside: Any,
    cuts: str | Sequence[str] | None = None,
    binning: Binning | None = None,
    variables: Sequence[str] = (),
    track: str = "",
    weights: str | None = None,
    conditions: Conditions | None = None,
    seed: int = 1,
) -> Pictures:
    """Return pictures of a dataset, generator, map, table or ntuple, or of its file.

    - A dataset: conditions and targets with and without weights, the mass fit, and the
      efficiencies of cuts.
    - A bundle or model: real and generated targets of its reference rows, and their
      efficiencies; the losses of a model.
    - An efficiency map, or a table of efficiencies: curves, and planes of two
      conditions.
    - An ntuple: its variables with and without `weights`. With a sample definition, it
      is prepared as a dataset.
    - A report, a mass fit or a working point: its own pictures.

    What stands beside decides the rest. A generator of the same species gives the
    generated targets of a dataset. Another species is one to reject: its misIDs and ROC
    curves are drawn. An ntuple, or a table of tracks, is compared with the conditions
    of a dataset or generator: does the calibration sample cover it?

    Args:
        what: What is drawn, or its path.
        *beside: What it is drawn with, or paths.
        cuts: PID cuts; by default those of the sample, the map or the table. A cut with
            `x` for a number is a ROC curve.
        binning: Binning as in `efficiency_table`; by default that of the sample.
        variables: Variables that are drawn, by default all.
        track: Prefix of the track in the ntuple beside, "Kplus"; the only one if there
            is one.
        weights: Branch with weights of the ntuple.
        conditions: Branches and units of conditions in the ntuple, where they are not
            the default.
        seed: Seed of the generated targets.

    Returns:
        Pictures by name, which `save` writes as PNG, PDF or SVG.

    Raises:
        NtupleError: A path holds nothing that can be plotted, or a branch is missing.
        PidganError: What is given does not fit together.

    Example:
        >>> plot("kaon.onnx", "d2kpi.root").save("kaon.pdf")  # doctest: +SKIP
    """
    opened = [open_plotted(one) for one in (what, *beside)]
    first, others = opened[0], opened[1:]
    if first.kind == "definition":
        first, others = _prepared(first, others, seed=seed)
    texts = [cuts] if isinstance(cuts, str) else list(cuts or ())
    if first.kind in ("dataset", "generator"):
        draw, notes = _of_rows(
            first,
            others,
            cuts=texts,
            binning=binning,
            variables=variables,
            seed=seed,
            tracks=partial(
                read_tracks, track=track, weights=weights, conditions=conditions
            ),
        )
        return Pictures(draw, notes)
    if first.kind in ("map", "table"):
        _refuse(first, {"binning": binning, "track": track, "variables": variables})
        return Pictures(_of_bins(first, others, cuts=texts))
    if first.kind == "ntuple":
        _refuse(first, {"cuts": cuts, "binning": binning, "track": track})
        if others:
            raise NtupleError(
                f"{first.name} is an ntuple: give the dataset or bundle first, and the "
                f"ntuple after it"
            )
        return Pictures(_of_ntuple(first, variables, weights))
    if others:
        raise NtupleError(f"{first.name}: nothing can stand beside a {first.kind}")
    return Pictures(_of_result(first))


def _refuse(first: Opened, given: Mapping[str, Any]) -> None:
    """Raise where an argument says nothing about what is drawn."""
    for name, value in given.items():
        if value is not None and len(value) > 0:
            raise ValueError(f"{name} is given, which a plot of a {first.kind} ignores")


def _prepared(
    first: Opened, others: Sequence[Opened], *, seed: int
) -> tuple[Opened, list[Opened]]:
    """Return the dataset of a definition and of the ntuples beside it."""
    sources = [source for o in others if o.kind == "ntuple" for source in o.content]
    files = [s.table if s.table is not None else str(s) for s in sources]
    if not files:
        raise NtupleError(
            f"{first.name} is the definition of a sample and has no rows: give its "
            "ntuples after it, or a dataset made by `pidgan prepare`"
        )
    dataset = build_dataset(first.content, files, seed=seed)
    left = [other for other in others if other.kind != "ntuple"]
    return Opened(kind="dataset", content=dataset, name=first.name), left


def _of_rows(
    first: Opened,
    others: Sequence[Opened],
    *,
    cuts: Sequence[str],
    binning: Binning | None,
    variables: Sequence[str],
    seed: int,
    tracks: Callable[..., tuple[str, pd.DataFrame]],
) -> tuple[dict[str, Draw], list[str]]:
    """Return the pictures of rows, of a dataset or a generator, and notes on them."""
    species = _by_species(first, others)
    ntuples = [one for one in others if one.kind == "ntuple"]
    found: dict[str, Draw] = {}
    dataset = _of_kind(species[str(first.species)], "dataset")
    generator = _of_kind(species[str(first.species)], "generator")
    if dataset is not None and "fit" in dataset.content.info:
        fit = dataset.content.info["fit"]
        found["mass fit"] = partial(_draw_fit, fit, dataset.content)
    history = getattr(generator.content, "history", None) if generator else None
    if history and history.get("step"):
        found["losses"] = partial(plot_history, history)
    try:
        rows = [_rows(own, seed=seed) for own in species.values()]
    except MapError:
        if not ntuples:
            raise
        rows = []
    notes: list[str] = []
    if ntuples:
        covered = _coverage(rows[0] if rows else None, first, ntuples, tracks)
        found |= coverage_pictures(covered)
        notes = covered.text().splitlines()
    if not rows:
        return found, notes
    signal = rows[0]
    found |= variable_pictures(signal, variables)
    if signal.sample.cells is None and signal.sample.clusters is None:
        chosen = check_cuts(signal, cuts)
        found |= efficiency_pictures(rows, chosen, binning) if chosen else {}
    elif cuts:
        raise DatasetError(f"{first.name} has no PID variables, which cuts need")
    return found, notes


def _by_species(first: Opened, others: Sequence[Opened]) -> dict[str, list[Opened]]:
    """Return what is given of each species, the first one's first."""
    found: dict[str, list[Opened]] = {}
    for one in (first, *others):
        if one.kind == "ntuple":
            continue
        if one.kind not in ("dataset", "generator"):
            raise NtupleError(
                f"{one.name} is a {one.kind}, which cannot stand beside the "
                f"{first.kind} {first.name}; expected a dataset, a bundle, a model or "
                "an ntuple"
            )
        own = found.setdefault(str(one.species), [])
        if _of_kind(own, one.kind) is not None:
            raise NtupleError(
                f"{own[0].name} and {one.name} are both a {one.kind} of {one.species}; "
                "expected one of each species"
            )
        own.append(one)
    return found


def _of_kind(given: Sequence[Opened], kind: str) -> Opened | None:
    return next((one for one in given if one.kind == kind), None)


def _rows(given: Sequence[Opened], *, seed: int) -> RowsOfSpecies:
    """Return the rows of one species: of its dataset, else those of its generator."""
    dataset, generator = _of_kind(given, "dataset"), _of_kind(given, "generator")
    if dataset is not None:
        made = None if generator is None else generator.content
        return rows_of_dataset(dataset.content, made, seed=seed)
    assert generator is not None  # each is one of them
    return rows_of_generator(generator.content, seed=seed)


def _coverage(
    rows: RowsOfSpecies | None,
    first: Opened,
    ntuples: Sequence[Opened],
    tracks: Callable[..., tuple[str, pd.DataFrame]],
) -> Coverage:
    """Return the conditions of the calibration sample and of the tracks of ntuples."""
    variables = _trained(first)
    sources = [source for one in ntuples for source in one.content]
    track, frame = tracks(sources, variables, species=str(first.species))
    if not frame[WEIGHT].sum() > 0:
        raise NtupleError(
            f"{ntuples[0].name}: the sum of weights of {len(frame)} tracks is "
            f"{frame[WEIGHT].sum():g}, expected a positive number"
        )
    names = [v.name for v in variables]
    calibration = rows.frame if rows is not None else frame[:0]
    return Coverage(
        variables=variables,
        calibration=calibration[[*names, WEIGHT]],
        analysis=frame,
        track=track,
    )


def _trained(first: Opened) -> tuple[CardVariable, ...]:
    """Return the conditions with their trained ranges."""
    if first.kind == "generator":
        return tuple(first.content.card.conditions)
    dataset: Dataset = first.content
    part = dataset.part("train")
    return describe_variables(dataset.sample.conditions, part.conditions)


def _draw_fit(fit: Mapping[str, Any], dataset: Dataset | None = None) -> Figure:
    """Draw the mass fit of a dataset, with its figures."""
    name = dataset.sample.discriminant if dataset is not None else None
    return plot_mass_fit(
        fit["edges"],
        fit["counts"],
        fit["signal"],
        fit["background"],
        name=name.branch if name else "Mass",
        figures=fit,
    )


def _of_bins(
    first: Opened, others: Sequence[Opened], *, cuts: Sequence[str]
) -> dict[str, Draw]:
    """Return the pictures of maps or tables, the first of the signal."""
    for one in others:
        if one.kind != first.kind:
            raise NtupleError(
                f"{one.name} is a {one.kind}, which cannot stand beside the "
                f"{first.kind} {first.name}; expected another {first.kind}"
            )
    if first.kind == "map":
        return map_pictures([one.content for one in (first, *others)], cuts)
    tables_ = [_with_cuts(one, cuts) for one in (first, *others)]
    for one, table in zip(others, tables_[1:], strict=True):
        if table.edges != tables_[0].edges:
            raise NtupleError(f"{one.name} and {first.name} have other bins")
    return table_pictures(tables_)


def _with_cuts(given: Opened, cuts: Sequence[str]) -> Binned:
    table: Binned = given.content
    for cut in cuts:
        if cut not in table.cuts:
            known = nearest(cut, table.cuts) or f"; it has {', '.join(table.cuts)}"
            raise NtupleError(f"{given.name} has no cut {cut!r}{known}")
    return table.only(cuts) if cuts else table


def _of_ntuple(
    given: Opened, variables: Sequence[str], weights: str | None
) -> dict[str, Draw]:
    """Return pictures of the branches of an ntuple, with and without weights."""
    sources: list[tables.Source] = given.content
    info = tables.describe_tree(sources[0])
    numbers = [name for name, kind in info.types.items() if kind.shape == ()]
    present = list(info.branches)
    wanted = [*variables, *([weights] if weights else [])]
    for name in wanted:
        if name not in present:
            raise NtupleError(
                f"{given.name} has no branch {name!r}{nearest(name, present)}"
            )
        if name not in numbers:
            raise NtupleError(
                f"{given.name}: branch {name!r} has not one number per entry"
            )
    names = list(variables) or [name for name in numbers if name != weights]
    if not names:
        raise NtupleError(f"{given.name} has no branch of one number per entry")
    columns = list(dict.fromkeys([*names, *([weights] if weights else [])]))
    parts = [tables.read_columns(source, columns) for source in sources]
    frame = pd.concat(parts, ignore_index=True)
    if len(frame) == 0:
        raise NtupleError(f"{given.name} has no entries")
    w = None if weights is None else frame[weights].to_numpy(np.float64)
    pages = [
        names[i : i + MOST_VARIABLES] for i in range(0, len(names), MOST_VARIABLES)
    ]
    return {
        f"variables ({number} of {len(pages)})" if len(pages) > 1 else "variables":
        partial(_draw_branches, given.name, frame, page, w)
        for number, page in enumerate(pages, start=1)
    }  # fmt: skip


def _draw_branches(
    title: str, frame: pd.DataFrame, names: Sequence[str], weights: Any
) -> Figure:
    """Draw branches of an ntuple, which have no units that are known."""
    panels = []
    for name in names:
        values = frame[name].to_numpy(np.float64)
        samples = [Drawn(values=values, label="all rows")]
        if weights is not None:
            samples = with_and_without(values, weights, label="weighted")
        panels.append(Panel(name=name, samples=samples))
    ratio = "weighted / all" if weights is not None else ""
    return plot_variables(
        panels, ratio=ratio, below="fraction", title=title, what="Entries"
    )


def _of_result(given: Opened) -> dict[str, Draw]:
    """Return the pictures of a mass fit, a report or a working point."""
    if given.kind == "report":
        pictures = given.content.figures
        return {name: partial(pictures.__getitem__, name) for name in pictures}
    if given.kind == "mass fit":
        return {"mass fit": partial(_draw_fit, given.content.summary)}
    if given.kind == "working point":
        from pidgan.report.map_page import draw_roc

        point = given.content
        others = enumerate(point.scan.species[1:], start=1)
        return {f"ROC against {s}": partial(draw_roc, point, i) for i, s in others}
    raise NtupleError(f"{given.name}: nothing to plot; expected {EXPECTED}")
