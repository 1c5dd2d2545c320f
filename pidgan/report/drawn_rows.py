"""Pictures of rows with weights: variables, efficiencies, real beside generated."""

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import pandas as pd

from pidgan.arrays import FloatArray
from pidgan.bundle.card import Generator, sample_targets
from pidgan.bundle.reference import parse_cuts, reference_frame
from pidgan.efficiency.binning import Binning, choose_edges
from pidgan.efficiency.real_vs_generated import ComparedRows, compare_rows
from pidgan.efficiency.table import efficiency_table
from pidgan.efficiency.working_point import THRESHOLD
from pidgan.errors import DatasetError, PidganWarning, nearest
from pidgan.report.binned import Binned, binned
from pidgan.report.drawn_tables import draw_curves, draw_plane
from pidgan.report.plots import Figure, canvas
from pidgan.report.plots.bins import TAIL
from pidgan.report.plots.efficiencies import plot_roc
from pidgan.report.plots.variables import (
    Drawn,
    Panel,
    plot_variables,
    with_and_without,
)
from pidgan.report.track_cuts import DEFAULT_BINS, quantile_edges
from pidgan.sample.cuts import compared_values, parse_cut
from pidgan.sample.dataset import PARTS, Dataset
from pidgan.sample.definition import Sample
from pidgan.sample.variables import WEIGHT

Draw = Callable[[], Figure]

MOST_VARIABLES = 12
"""Variables of one picture."""

ROC_POINTS = 30
"""Thresholds of a ROC curve, at quantiles of both species."""

CONDITION_TAIL = 0.001
"""Share of the rows beyond the axis of a condition, on either side."""

_STREAM = "plot"
_NUMBER = re.compile(r"(?<=[<>=])\s*[-+]?[\d.]+(e[-+]?\d+)?\s*$")


@dataclass(frozen=True, kw_only=True)
class RowsOfSpecies:
    """Real rows of one species, and a generator of their targets, if there is one.

    `frame` has conditions, targets and "weight".
    """

    sample: Sample
    frame: pd.DataFrame
    generator: Generator | None = None
    seed: int = 1

    @property
    def species(self) -> str:
        """Name of the species."""
        return self.sample.species

    @property
    def units(self) -> dict[str, str]:
        """Units of conditions and targets."""
        both = (*self.sample.conditions, *self.sample.variables)
        return {v.name: v.package_unit for v in both}

    @property
    def weights(self) -> FloatArray:
        """Weights (n,)."""
        return self.frame[WEIGHT].to_numpy(np.float64)

    @property
    def are_weighted(self) -> bool:
        """Whether any weight is not 1."""
        return bool(np.any(self.weights != 1.0))

    @cached_property
    def generated(self) -> pd.DataFrame:
        """Targets generated for the conditions of the rows."""
        assert self.generator is not None
        card = self.generator.card
        x = self.frame[list(card.condition_names)].to_numpy(np.float64)
        y = sample_targets(self.generator, x, seed=self.seed, track=_STREAM)
        return pd.DataFrame(y, columns=list(card.target_names))

    def compared(self, cuts: Sequence[str]) -> ComparedRows:
        """Return which rows pass cuts, real and generated."""
        assert self.generator is not None
        parsed = parse_cuts(self.generator.card, list(cuts))
        return compare_rows(self.generator, self.frame, parsed, seed=self.seed)

    def measure(
        self, cuts: Sequence[str], *binnings: Mapping[str, Sequence[float]]
    ) -> list[Binned]:
        """Return the efficiencies of cuts in each of some binnings."""
        units = self.units
        with warnings.catch_warnings():
            # Empty bins are seen in the picture.
            warnings.simplefilter("ignore", PidganWarning)
            if self.generator is not None:
                rows = self.compared(cuts)
                found = [
                    binned(
                        rows.in_bins({k: tuple(e) for k, e in edges.items()}).measured()
                    )
                    for edges in binnings
                ]
            else:
                found = [
                    binned(
                        efficiency_table(
                            self.frame,
                            list(cuts),
                            binning=dict(edges),
                            weights=self.weights,
                            sentinels=self.sample.sentinels,
                            aliases=self.sample.aliases,
                        )
                    )
                    for edges in binnings
                ]
        return [
            replace(
                one,
                units=tuple(units[name] for name in one.edges),
                species=self.species,
            )
            for one in found
        ]


def rows_of_dataset(
    dataset: Dataset, generator: Generator | None, *, seed: int
) -> RowsOfSpecies:
    """Return all rows of a dataset; with a generator those it was not trained on."""
    if generator is not None:
        for kind in ("condition_names", "target_names"):
            mine, its = getattr(dataset.sample, kind), getattr(generator.card, kind)
            if mine != its:
                raise DatasetError(
                    f"the generator's {kind} are {', '.join(its[:20])}; those of "
                    f"dataset {dataset.sample.name!r} are {', '.join(mine[:20])}"
                )
        frame = dataset.frame("test")
    else:
        frames = [dataset.frame(part) for part in PARTS]
        frame = pd.concat(frames, ignore_index=True)
    return RowsOfSpecies(
        sample=dataset.sample, frame=frame, generator=generator, seed=seed
    )


def rows_of_generator(generator: Generator, *, seed: int) -> RowsOfSpecies:
    """Return the reference rows of a generator."""
    frame = reference_frame(generator, None).reset_index(drop=True)
    sample = generator.card.sample
    return RowsOfSpecies(sample=sample, frame=frame, generator=generator, seed=seed)


def variable_pictures(rows: RowsOfSpecies, variables: Sequence[str]) -> dict[str, Draw]:
    """Return pictures of conditions and targets: with weights, and real and generated.

    A picture has at most `MOST_VARIABLES`.
    """
    known = [v.name for v in (*rows.sample.conditions, *rows.sample.variables)]
    for name in variables:
        if name not in known:
            raise DatasetError(
                f"{rows.sample.name!r} has no variable {name!r}"
                f"{nearest(name, known) or '; it has ' + ', '.join(known)}"
            )
    kinds = {
        "conditions": rows.sample.condition_names,
        "targets": tuple(v.name for v in rows.sample.variables),
    }
    found: dict[str, Draw] = {}
    for kind, names in kinds.items():
        chosen = [n for n in names if not variables or n in variables]
        pages = [
            chosen[i : i + MOST_VARIABLES]
            for i in range(0, len(chosen), MOST_VARIABLES)
        ]
        for number, page in enumerate(pages, start=1):
            more = f" ({number} of {len(pages)})" if len(pages) > 1 else ""
            if kind == "targets" and rows.generator is not None:
                log = partial(draw_generated, rows, page, log=True)
                found[f"targets{more}"] = partial(draw_generated, rows, page)
                found[f"targets, logarithmic{more}"] = log
            else:
                found[f"{kind}{more}"] = partial(draw_variables, rows, page)
    return found


def draw_variables(rows: RowsOfSpecies, names: Sequence[str]) -> Figure:
    """Draw variables with and without weights; their ratio is the share of signal."""
    sentinels = rows.sample.sentinels
    conditions = set(rows.sample.condition_names)
    w = rows.weights if rows.are_weighted else None
    panels = []
    for name in names:
        values = rows.frame[name].to_numpy()
        samples = [Drawn(values=values, label="all rows")]
        if w is not None:
            samples = with_and_without(values, w, label="sWeighted")
        panels.append(
            Panel(
                name=name,
                unit=rows.units[name],
                samples=samples,
                sentinels=sentinels.get(name, ()),
            )
        )
    tail = CONDITION_TAIL if set(names) <= conditions else TAIL
    return plot_variables(
        panels,
        ratio="weighted / all" if w is not None else "",
        below="fraction",
        title=_title(rows.sample),
        what="Tracks",
        tail=tail,
    )


def draw_generated(
    rows: RowsOfSpecies, names: Sequence[str], *, log: bool = False
) -> Figure:
    """Draw real and generated targets of the same conditions, and their ratio."""
    w = rows.weights
    panels = [
        Panel(
            name=name,
            unit=rows.units[name],
            sentinels=rows.sample.sentinels.get(name, ()),
            samples=[
                Drawn(values=rows.frame[name].to_numpy(), weights=w, label="real"),
                Drawn(
                    values=rows.generated[name].to_numpy(),
                    weights=w,
                    label="generated",
                    colour=canvas.GENERATED,
                    kind="line",
                ),
            ],
        )
        for name in names
    ]
    what = "Weighted tracks" if rows.are_weighted else "Tracks"
    return plot_variables(
        panels,
        ratio="gen. / real",
        title=_title(rows.sample),
        what=what,
        log=log,
        tail=CONDITION_TAIL if log else TAIL,
    )


def efficiency_pictures(
    species: Sequence[RowsOfSpecies],
    cuts: Sequence[str],
    binning: Binning | None,
) -> dict[str, Draw]:
    """Return curves against each condition, planes of the first two, and ROC curves."""
    signal = species[0]
    edges = _edges(signal, binning)
    names = list(edges)
    alone = [{name: edges[name]} for name in names]
    plane = [{name: edges[name] for name in names[:2]}] if len(names) > 1 else []
    # One pass over the rows for all cuts, when the first picture is drawn.
    known: dict[int, list[Binned]] = {}

    def measured(number: int) -> list[Binned]:
        if number not in known:
            known[number] = species[number].measure(cuts, *alone, *plane)
        return known[number]

    found: dict[str, Draw] = {}
    scans = scanned(cuts) if len(species) > 1 else []
    cuts = [cut for cut in cuts if not has_threshold(cut)]
    for cut in cuts:
        found[f"efficiency {cut}"] = partial(
            _draw_efficiency, measured, len(species), names, cut
        )
        for number, rows in enumerate(species) if plane else ():
            which = f" of {rows.species}" if len(species) > 1 else ""
            found[f"plane {cut}{which}"] = partial(_draw_plane, measured, number, cut)
    for cut in scans:
        for other in species[1:]:
            name = f"ROC {cut} against {other.species}"
            found[name] = partial(draw_roc, signal, other, cut)
    return found


def _draw_efficiency(
    measured: Callable[[int], list[Binned]], n: int, names: Sequence[str], cut: str
) -> Figure:
    tables = {
        name: [measured(number)[i] for number in range(n)]
        for i, name in enumerate(names)
    }
    return draw_curves(tables, cut)


def _draw_plane(
    measured: Callable[[int], list[Binned]], number: int, cut: str
) -> Figure:
    return draw_plane(measured(number)[-1], cut)


def _edges(
    rows: RowsOfSpecies, binning: Binning | None
) -> dict[str, tuple[float, ...]]:
    """Return the edges of each condition: given, of the sample, or quantiles."""
    columns = {
        n: rows.frame[n].to_numpy(np.float64) for n in rows.sample.condition_names
    }
    chosen = choose_edges(binning, columns, rows.weights, default=rows.sample.binning)
    if binning is not None:
        return chosen
    return {
        name: chosen.get(name) or quantile_edges(values, DEFAULT_BINS)
        for name, values in columns.items()
        if len(np.unique(values[:1000])) > 1
    }


def check_cuts(rows: RowsOfSpecies, cuts: Sequence[str]) -> list[str]:
    """Return cuts in their spelling, by default those of the sample; raise if wrong."""
    names = [*rows.sample.target_names, *rows.sample.condition_names]
    aliases = rows.sample.aliases
    for cut in cuts:
        known = [*names, THRESHOLD] if has_threshold(cut) else names
        parse_cut(cut, names=known, aliases=aliases)
    return list(cuts or rows.sample.cuts)


def scanned(cuts: Sequence[str]) -> list[str]:
    """Return cuts with x for the threshold: those given so, and comparisons with one.

    A cut of one comparison with a number gives its scan: "RichDLLk > x".
    """
    found = []
    for cut in cuts:
        scan = _NUMBER.sub(f" {THRESHOLD}", cut)
        if has_threshold(cut) or (
            scan != cut and not re.search(r"[&|]| and | or ", cut)
        ):
            found.append(cut if has_threshold(cut) else scan)
    return list(dict.fromkeys(found))


def has_threshold(cut: str) -> bool:
    """Return whether a cut has x for a threshold."""
    return re.search(rf"\b{THRESHOLD}\b", cut) is not None


def draw_roc(signal: RowsOfSpecies, other: RowsOfSpecies, cut: str) -> Figure:
    """Draw the efficiency of one species against the misID of another."""
    values = np.concatenate([_compared(rows, cut) for rows in (signal, other)])
    x = np.unique(np.quantile(values, np.linspace(0.01, 0.99, ROC_POINTS)))
    cuts = [re.sub(rf"\b{THRESHOLD}\b", f"{v:.6g}", cut) for v in x]
    cuts = list(dict.fromkeys(cuts))
    (s,), (o,) = (rows.measure(cuts, {}) for rows in (signal, other))
    kinds = {"real": "real" if "real" in s.kinds else "efficiency"}
    if "generated" in s.kinds and "generated" in o.kinds:
        kinds["generated"] = "generated"
    both = {kind: (s.kinds[key], o.kinds[key]) for kind, key in kinds.items()}
    return plot_roc(
        {kind: mine.value for kind, (mine, _) in both.items()},
        {kind: its.value for kind, (_, its) in both.items()},
        errors={kind: (mine.error, its.error) for kind, (mine, its) in both.items()},
        species=(canvas.species_text(s.species), canvas.species_text(o.species)),
        cut=cut,
    )


def _compared(rows: RowsOfSpecies, cut: str) -> FloatArray:
    """Return the values that a cut compares with its threshold."""
    names = [*rows.sample.target_names, *rows.sample.condition_names, THRESHOLD]
    parsed = parse_cut(cut, names=names, aliases=rows.sample.aliases)
    values = compared_values(parsed, THRESHOLD, rows.frame, rows.sample.sentinels)
    return values[np.isfinite(values)]


def _title(sample: Sample) -> str:
    return f"{canvas.species_text(sample.species)}, {sample.name}"
