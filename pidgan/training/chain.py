"""Chains: generators of which each makes its targets given those before it.

The links of a chain are trained one after the other. Each learns its targets given the
conditions of the sample and the *real* targets of earlier links; a chain generates with
the *generated* ones. If p(a | x) and p(b | x, a) are right, so is p(a, b | x).

Links share a budget or a number of steps in proportion to their `work`.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from pidgan.arguments import checked
from pidgan.arrays import FloatArray
from pidgan.bundle import formulas as f
from pidgan.bundle.card import Card, CardLink, card_rows
from pidgan.bundle.formulas import Array
from pidgan.errors import TrainingError
from pidgan.files.documents import read_json
from pidgan.files.seals import check_seal, file_sha256, reason, sealed
from pidgan.files.tables import write_table
from pidgan.files.writing import writing_file, writing_set_folder
from pidgan.notebook import Facts, count, shown
from pidgan.sample.dataset import Dataset
from pidgan.sample.definition import Sample
from pidgan.training.blocks import in_blocks
from pidgan.training.budget import Duration, length

FORMAT = 3
"""Version of the layout of a chain's folder."""

# File that keeps the length of a training, beside the checkpoints of its links.
LENGTH = "chain.json"
# Difference of the seeds of two links; the networks of one training use the next few.
SEED_STEP = 10
# Work of a link beside that of its targets and of their pairs, each of which counts 1.
BASIC_WORK = 2.0


class LinkModel(Protocol):
    """A generator that can be a link: a trained model."""

    @property
    def card(self) -> Card:
        """Description of the generator."""

    @property
    def history(self) -> dict[str, list[float]]:
        """Losses by name, each a list, beside "step"."""

    def evaluate(self, conditions: Array, noise: Array) -> Array:
        """Return targets (n, n_targets) in physical units, as a formula."""

    def arrays(self) -> dict[str, Any]:
        """Return weights and transforms by name."""


@shown
@dataclasses.dataclass(frozen=True, kw_only=True)
class Chain:
    """A generator that is several, in order; made by `train` for a sample with links.

    Attributes:
        card: Description of the whole, with the links.
        links: Generator of each link.
        held_out: Rows never trained on: conditions, targets and "weight".
    """

    card: Card
    links: tuple[LinkModel, ...]
    held_out: pd.DataFrame

    @checked
    def generate(self, conditions: FloatArray, noise: FloatArray) -> FloatArray:
        """Return targets (n, n_targets) float32 in physical units, see `Model`."""
        return in_blocks(self.evaluate, conditions, noise, card=self.card)

    def evaluate(self, conditions: Array, noise: Array) -> Array:
        """Return targets (n, n_targets) in physical units, as a formula.

        The noise is that of each link, in order.
        """
        known = f.with_precision(conditions, double=False)
        names, start = list(self.card.condition_names), 0
        for link in self.links:
            wanted = [names.index(name) for name in link.card.condition_names]
            x = known if wanted == [*range(len(names))] else f.take(known, wanted)
            z = f.columns(noise, start, start + link.card.n_noise)
            made = f.with_precision(link.evaluate(x, z), double=False)
            known = f.concatenate([known, made])
            names += link.card.target_names
            start += link.card.n_noise
        return f.columns(known, len(self.card.conditions), len(names))

    @property
    def history(self) -> dict[str, list[float]]:
        """Losses of all links by name, beside the "step" counted through all links."""
        merged: dict[str, list[float]] = {"step": []}
        done = 0
        for described, link in zip(self.card.links, self.links, strict=True):
            before, steps = len(merged["step"]), link.history["step"]
            merged["step"] += [done + step for step in steps]
            for name, values in link.history.items():
                if name != "step":
                    merged[f"{described.name} {name}"] = [math.nan] * before + values
            done += int(steps[-1]) if steps else 0
        n = len(merged["step"])
        return {k: [*v, *[math.nan] * (n - len(v))] for k, v in merged.items()}

    def reference(self) -> pd.DataFrame:
        """Return rows never trained on: conditions, targets and "weight"."""
        return self.held_out

    @checked
    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the chain to a directory, in one piece or not at all.

        Files of a running training in the directory, such as checkpoints, stay.

        Raises:
            NtupleError: The directory holds a model and `overwrite` is not set.
        """
        head, *parts = chain_files(len(self.links))
        with writing_set_folder(path, head, *parts, overwrite=overwrite) as files:
            for link, weights in zip(self.links, files[1:-1], strict=True):
                np.savez(weights, **link.arrays())
            write_table(files[-1], self.held_out)
            content = {
                "format": FORMAT,
                "card": json.loads(self.card.to_json()),
                "links": [
                    {"card": json.loads(link.card.to_json()), "history": link.history}
                    for link in self.links
                ],
                "files": dict(zip(parts, map(file_sha256, files[1:]), strict=True)),
            }
            files[0].write_text(json.dumps(sealed(content)), encoding="utf-8")

    def _facts(self) -> Facts:
        return model_facts(self)


def model_facts(model: Any) -> Facts:
    """Return what a model or a chain shows of itself."""
    card = model.card
    steps = count(card.steps, "steps")
    losses = {
        f"loss {name}": f"{known[0]:.4g} at first, {known[-1]:.4g} at last"
        for name, values in model.history.items()
        if name != "step" and not name.endswith("_error")
        if (known := [value for value in values if math.isfinite(value)])
    }
    return Facts(
        f"{card.species} of {card.sample.name}: {card.family}, {steps}, "
        f"{len(card.targets)} targets",
        {**card_rows(card), **losses},
    )


def chain_files(links: int) -> list[str]:
    """Return the files of a saved chain; the first holds the hashes of the others."""
    weights = [f"link_{number + 1}.npz" for number in range(links)]
    return ["model.json", *weights, "reference.parquet"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Length:
    """Length of a training: a budget, a number of steps, or neither.

    `each` are the steps of each link, where they do not follow from all `steps`.
    """

    budget: Duration | None = None
    steps: int | None = None
    each: tuple[int | str, ...] = ()

    @classmethod
    def of(
        cls, budget: str | float | None, steps: int | str | None, *, links: int
    ) -> "Length":
        """Return the length that a training of so many links is asked for.

        The steps of each link, or their plans, may stand in a text: "900+1043,521:548".
        """
        each = steps.split("+") if isinstance(steps, str) else [steps]
        found = [length(budget, one) for one in each]
        if len(found) == 1 and (found[0][1] is None or len(found[0][1].changes) == 1):
            duration, pace = found[0]
            return cls(budget=duration, steps=None if pace is None else pace.steps)
        if len(found) != links:
            raise ValueError(
                f"steps is {steps!r}, expected those of all {links} links, with + "
                "between them"
            )
        return cls(each=tuple(pace.text for _, pace in found if pace))

    def parts(self, shares: Sequence[float]) -> list[dict[str, Any]]:
        """Return the budget and the steps of each link."""
        steps: list[int | str | None] = [None] * len(shares)
        if self.steps is not None:
            ends = np.rint(np.cumsum(shares) * self.steps).astype(int)
            steps = [max(1, int(n)) for n in np.diff(ends, prepend=0)]
        steps = [*self.each] or steps
        budgets = [self.budget and self.budget.part(share).stored for share in shares]
        both = zip(budgets, steps, strict=True)
        return [{"budget": budget, "steps": n} for budget, n in both]

    def text(self) -> str:
        """Return the length as words."""
        if self.each:
            return f"{' + '.join(map(str, self.each))} steps"
        if self.budget is not None:
            return f"a budget of {self.budget.text()}"
        return f"{self.steps} steps"


def train_links(
    train: Callable[..., Any],
    dataset: Dataset,
    *,
    length: Length,
    default: Length,
    seed: int,
    directory: Path | None,
    resume: bool,
    progress: Callable[[Any], None] | None,
    starts: Sequence[Any] | None = None,
) -> Chain:
    """Train the links of a dataset in turn, and return the chain.

    `train` trains one of them, given its dataset and its own `budget`, `steps`, `seed`,
    `directory`, `resume` and `progress`, and of `starts` its `from_model`. The length
    of all links together is kept in the directory for a training that is resumed.
    """
    sample, models = dataset.sample, []
    whole = length if length != Length() else default
    if directory is not None:
        whole = _kept_length(directory, length, whole, resume=resume)
    parts = whole.parts(link_shares(sample))
    for k, (link, part) in enumerate(zip(sample.links, parts, strict=True)):
        place = f"link {k + 1} of {len(sample.links)}, {link.name}"
        folder = None if directory is None else directory / f"link_{k + 1}"
        try:
            model = train(
                of_link(dataset, k),
                **part,
                seed=seed + k * SEED_STEP,
                directory=folder,
                resume=resume,
                progress=_named(progress, place),
                **({} if starts is None else {"from_model": starts[k]}),
            )
        except TrainingError as error:
            raise TrainingError(f"{place}: {error}") from error
        models.append(model)
    return chain_of(sample, models, info=dataset.info, held_out=dataset.frame("test"))


def _kept_length(
    directory: Path, length: Length, whole: Length, *, resume: bool
) -> Length:
    """Return the length of a training that is resumed, or keep that of a new one."""
    path = directory / LENGTH
    if resume and path.is_file():
        content = read_json(path, error=TrainingError)
        try:
            check_seal(content)
            each, budget = tuple(content["each"]), content["budget"]
            kept = Length(
                budget=None if budget is None else Duration.parse(budget),
                steps=content["steps"],
                each=each,
            )
        except (ValueError, KeyError, TypeError) as error:
            raise TrainingError(f"{path} is damaged ({reason(error)})") from error
        if length not in (Length(), kept):
            raise TrainingError(
                f"{path} belongs to a training with {kept.text()}, now "
                f"{length.text()}: continue without a number of steps or a budget, or "
                "train anew"
            )
        return kept
    for old in directory.glob("link_*/checkpoint.npz"):
        old.unlink()  # of another training, whose links would be taken for these
    with writing_file(path, overwrite=True) as temporary:
        stored = {"budget": whole.budget and whole.budget.stored}
        text = json.dumps(sealed({**dataclasses.asdict(whole), **stored}))
        temporary.write_text(text, encoding="utf-8")
    return whole


def link_shares(sample: Sample) -> list[float]:
    """Return the share of each link in a training."""
    work = [BASIC_WORK + math.comb(len(link.targets) + 1, 2) for link in sample.links]
    return [each / sum(work) for each in work]


def of_link(dataset: Dataset, number: int) -> Dataset:
    """Return the dataset of one link alone, counted from 0, of the same rows."""
    sample = dataset.sample.of_link(number)
    n, first = (
        len(sample.targets),
        len(sample.conditions) - len(dataset.sample.conditions),
    )
    targets = np.asarray(dataset.targets)
    return dataclasses.replace(
        dataset,
        sample=sample,
        conditions=np.hstack([dataset.conditions, targets[:, :first]]),
        targets=targets[:, first : first + n],
    )


def chain_of(
    sample: Sample,
    models: Sequence[Any],
    *,
    info: Mapping[str, Any],
    held_out: pd.DataFrame,
) -> Chain:
    """Return the chain of the models of all links of a sample."""
    cards = [model.card for model in models]
    families = sorted({card.family for card in cards})
    links = [
        CardLink(
            name=link.name,
            targets=link.targets,
            family=card.family,
            settings=card.settings,
            seed=card.seed,
            steps=card.steps,
            plan=card.plan,
            n_noise=card.n_noise,
        )
        for link, card in zip(sample.links, cards, strict=True)
    ]
    card = Card(
        detector=sample.detector,
        species=sample.species,
        conditions=cards[0].conditions,
        targets=tuple(target for card in cards for target in card.targets),
        n_noise=sum(card.n_noise for card in cards),
        sample=sample,
        dataset=dict(info),
        family=families[0] if len(families) == 1 else "chain",
        settings=cards[0].settings,
        seed=cards[0].seed,
        steps=sum(card.steps for card in cards),
        plan=plan_of(cards),
        start=_start_of(cards),
        versions=cards[0].versions,
        links=tuple(links),
    )
    return Chain(card=card, links=tuple(models), held_out=held_out)


def _start_of(cards: Sequence[Card]) -> dict[str, Any]:
    """Return what the links started from, nothing if none did."""
    starts = [card.start for card in cards]
    return {"links": starts} if any(starts) else {}


def plan_of(cards: Sequence[Card]) -> str:
    """Return the text that repeats a chain, empty if its number of steps does."""
    if not any(card.plan for card in cards):
        return ""
    return "+".join(card.plan or str(card.steps) for card in cards)


def _named(
    progress: Callable[[Any], None] | None, place: str
) -> Callable[[Any], None] | None:
    """Return a function of progress that says which link it is of."""
    if progress is None:
        return None
    return lambda done: progress(
        dataclasses.replace(done, phase=f"{place}: {done.phase}")
    )
