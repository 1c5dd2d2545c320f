"""Trainings that start from a trained generator of a neighbouring sample.

A new year, polarity or block, or a few rows, are close to a sample that is learnt
already. A start brings what was learnt there:

- the scaling of the conditions, and the discrete structure and the quantiles of the
  targets, which say what inputs and outputs of the networks mean;
- the weights of the generator, of the network of the patterns, and of the networks that
  were trained beside them, such as the flow that teaches. Optimizers begin anew.

The descents of such weights are gentler: their learning rates are smaller (`RATE`)
and rise at first, when an optimizer knows no gradient yet. Weights decay to those of
the start instead of to zero (Li, Grandvalet and Davoine, arXiv:1802.01483), and replace
them only if they are better on rows that are not trained on, by more than the error
(`pidgan.training.averages`).
"""

import dataclasses
import hashlib
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pidgan.arguments import brief
from pidgan.errors import PidganWarning, TrainingError
from pidgan.files.recognition import recognise
from pidgan.files.seals import add_arrays
from pidgan.sample.dataset import Dataset
from pidgan.sample.definition import Sample
from pidgan.sample.sampling import part_sums
from pidgan.training.backend import tf
from pidgan.training.chain import Chain
from pidgan.training.checkpoint import read_checkpoint
from pidgan.training.descents import Descents
from pidgan.training.families import build_family, parse_settings
from pidgan.training.model import Model, open_model
from pidgan.training.networks.updates import assign
from pidgan.training.patterns import with_patterns
from pidgan.training.phases import Clock, Descent, Family, Phase, Schedule, Update

# Learning rates of a training with a start, in units of those of one without. Larger
# factors were worse for 5,000 rows.
RATE = 0.1
# Share of a phase in which they rise.
RISE = 0.05
# Each row is seen so often in a training with a budget, and a generator has at least so
# many steps: few rows are soon learnt by heart.
MOST_SEEN, LEAST_STEPS = 100, 200


def open_start(start: str | Path | Model | Chain) -> Model | Chain:
    """Return the model, or the chain, that a training starts from.

    A folder that an earlier version wrote has the networks beside the generator in its
    checkpoint only, if this is still there.

    Raises:
        TrainingError: It is something else, a bundle for example.
        TypeError: It is neither a model nor a path.
    """
    if isinstance(start, Model | Chain):
        return start
    if not isinstance(start, str | Path):
        raise TypeError(
            f"from_model is {brief(start)} ({type(start).__name__}), expected a model "
            "or its folder"
        )
    path = Path(start)
    if recognise(path) in ("bundle", "collection"):
        raise TrainingError(
            f"{path} is a bundle, which holds no networks that can be trained; start "
            "from the model folder that it was exported from"
        )
    model = open_model(path)
    if isinstance(model, Model):
        return _completed(model, path)
    if isinstance(model, Chain):
        links = [
            _completed(link, path / f"link_{k + 1}")
            if isinstance(link, Model)
            else link
            for k, link in enumerate(model.links)
        ]
        return dataclasses.replace(model, links=tuple(links))
    raise TrainingError(
        f"{path} is a corrector, expected a generator as `pidgan train` writes it"
    )


def starts_of(start: str | Path | Model | Chain, sample: Sample) -> list[Any]:
    """Return the model that a training starts from, or that of each link of a chain.

    Raises:
        TrainingError: It is no model, or has other links.
    """
    opened = open_start(start)
    has, wants = (
        list(opened.links) if isinstance(opened, Chain) else [],
        [link.targets for link in sample.links],
    )
    found = [tuple(link.card.target_names) for link in has]
    if found == [tuple(targets) for targets in wants]:
        return has or [opened]
    texts = [
        f"a chain of links {' | '.join(', '.join(names) for names in links)}"
        if links
        else "no chain"
        for links in (found, wants)
    ]
    raise TrainingError(
        f"the start {opened.card.sample.name!r} is {texts[0]}, but sample "
        f"{sample.name!r} is {texts[1]}: a start has the links of the sample"
    )


def record_of(model: Model) -> dict[str, Any]:
    """Return what a card says of the model that its training started from."""
    digest, card = hashlib.sha256(), model.card
    add_arrays(digest, model.arrays())
    return {
        "sample": card.sample.name,
        "dataset": card.dataset.get("hash"),
        "model": digest.hexdigest(),
        "family": card.family,
        "steps": card.steps,
    }


def beside(family: Family) -> list[Any]:
    """Return the variables that a family trains, but for those of its generator."""
    known = {id(v) for v in family.generator.variables}
    found = [
        v
        for phase in family.phases
        for descent in phase.descents
        for v in descent.variables
    ]
    return list({id(v): v for v in found if id(v) not in known}.values())


def begin_at(start: Model, family: Family, patterns: Any) -> list[Any]:
    """Give networks the weights of a start; return the variables that have got any.

    Raises:
        TrainingError: The networks of the start have other sizes.
    """
    name, got = start.card.sample.name, list[Any]()
    for what, own, other in (
        ("generator", family.generator, start.generator),
        ("network of the patterns", patterns, start.patterns),
    ):
        mine = list(own.variables) if own else []
        given = [v.numpy() for v in other.variables] if other else []
        sizes = [[tuple(v.shape) for v in vs] for vs in (mine, given)]
        if sizes[0] != sizes[1]:
            raise TrainingError(
                f"the {what} of the start {name!r} has other sizes than that of this "
                f"training, {_count(given)} weights and {_count(mine)}: the settings "
                "that change them have to be those of the start"
            )
        assign(mine, given)
        got += mine
    others = beside(family)
    same = 0
    for variable, value in zip(others, start.beside, strict=False):
        if tuple(variable.shape) != value.shape:
            break
        variable.assign(value)
        same += 1
    if same < len(others):
        warnings.warn(
            f"the start {name!r} brings {same} of the {len(others)} arrays of the "
            "networks that are trained beside the generator; the others begin anew, "
            "which needs the steps of a training without a start",
            PidganWarning,
            stacklevel=2,
        )
    return [*got, *others[:same]]


def gentler(phases: Iterable[Phase], known: Sequence[Any]) -> list[Phase]:
    """Return phases whose descents of known variables begin at a start."""
    ids, found = {id(v) for v in known}, dict[Descent | None, Descent | None]()

    def of(descent: Descent | None) -> Descent | None:
        if descent not in found:
            found[descent] = descent
            if descent and all(id(v) in ids for v in descent.variables):
                optimizer = dataclasses.replace(
                    descent.optimizer,
                    learning_rate=RATE * descent.optimizer.learning_rate,
                    schedule=_rising(descent.optimizer.schedule),
                )
                found[descent] = dataclasses.replace(
                    descent, optimizer=optimizer, started=True
                )
        return found[descent]

    def changed(update: Update) -> Update:
        descents: Any = {"descent": of(update.descent), "other": of(update.other)}
        return dataclasses.replace(update, **descents)

    return [
        dataclasses.replace(phase, updates=[changed(u) for u in phase.updates])
        for phase in phases
    ]


def most_steps(phases: Iterable[Phase], dataset: Dataset) -> int:
    """Return the number of steps after which a training with a start has no use."""
    rows = sum(phase.share * phase.batch_size for phase in phases)
    each = MOST_SEEN * part_sums(dataset, "train").n_eff
    return max(LEAST_STEPS, int(each / rows))


def _rising(schedule: Schedule) -> Callable[[Clock], tf.Tensor]:
    """Return a schedule that rises at the beginning of a phase."""

    def share(clock: Clock) -> tf.Tensor:
        step, length = clock.step - clock.begin, clock.end - clock.begin
        rise = 1.0 + RISE * tf.cast(length, tf.float32)
        done = (1.0 + tf.cast(step, tf.float32)) / rise
        return schedule(clock) * tf.minimum(done, 1.0)

    return share


def _count(arrays: Sequence[Any]) -> int:
    return int(sum(np.prod(v.shape) for v in arrays))


def _completed(model: Model, folder: Path) -> Model:
    """Return a model with the networks beside it, of its checkpoint if need be."""
    checkpoint = folder / "checkpoint.npz"
    if model.beside or not checkpoint.is_file():
        return model
    try:
        state, arrays = read_checkpoint(checkpoint)
    except TrainingError:
        return model
    card = model.card
    mine = {"dataset": card.dataset.get("hash"), "family": card.family}
    mine |= {"settings": card.settings, "seed": card.seed}
    settings = parse_settings(card.family, card.settings)
    n_conditions = model.conditions.n_columns
    shape = model.targets.shape(card.sample, n_conditions=n_conditions)
    family = build_family(settings, shape=shape, seed=0)
    descents = Descents(with_patterns(family.phases, model.patterns))
    both = [*family.generator.variables, *descents.variables]
    order = list({id(v): v for v in both}.values())
    if any(state.get(key) != value for key, value in mine.items()) or [
        tuple(v.shape) for v in order
    ] != [arrays[f"v{i}"].shape for i in range(len(arrays))]:
        return model
    values = {id(v): arrays[f"v{i}"] for i, v in enumerate(order)}
    found = [values[id(v)] for v in beside(family) if id(v) in values]
    return dataclasses.replace(model, beside=tuple(found))
