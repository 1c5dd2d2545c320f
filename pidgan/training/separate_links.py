"""Joins models of different samples to a chain, each a link after those before.

A sample may lack what a later link needs: likelihoods of the muon stations, say, are
learnt from another calibration sample than those of the RICH detectors. Conditions of
the later model that have the names of earlier targets are then generated ones.

Which to use when: a definition with `after`, wherever one sample has all targets, as
only that has rows with all of them for validation and systematics.
"""

import warnings
from collections.abc import Sequence

from pidgan.arguments import checked
from pidgan.bundle.card import CardVariable
from pidgan.errors import PidganWarning, TrainingError, nearest
from pidgan.sample.definition import Sample
from pidgan.training.chain import Chain, chain_of
from pidgan.training.model import Model

# Share of the range of an earlier target outside of the training of a later link, from
# which it is worth a warning.
MOST_OUTSIDE = 0.05


@checked
def join_links(models: Sequence[Model | Chain]) -> Chain:
    """Return the chain of models that were trained on different samples.

    The conditions are those of the first model. Each condition of a later one is one of
    these or a target of an earlier one, with the same name and unit. There are no rows
    with all targets, so that the bundle has no reference file.

    Args:
        models: Models of the links, in order; a chain stands for all its links.

    Returns:
        The chain, for `export_bundle`.

    Raises:
        TrainingError: Conditions do not fit, or models are of different species.
    """
    links = [
        link
        for model in models
        for link in (model.links if isinstance(model, Chain) else (model,))
    ]
    if len(links) < 2:
        raise TrainingError(f"expected two or more links, got {len(links)}")
    first, *later = (link.card for link in links)
    known = {v.name: v for v in (*first.conditions, *first.targets)}
    for card in later:
        name = card.sample.name
        for key in ("detector", "species"):
            mine, expected = getattr(card, key), getattr(first, key)
            if mine != expected:
                raise TrainingError(
                    f"link {name!r} has {key} {mine!r}, expected {expected!r} as the "
                    "first link"
                )
        for condition in card.conditions:
            if condition.name not in known:
                raise TrainingError(
                    f"link {name!r} has the condition {condition.name!r}, which is "
                    "none of the first link, and no target of an earlier link"
                    f"{nearest(condition.name, known)}"
                )
            _check_fit(known[condition.name], condition, name)
        for target in card.targets:
            if target.name in known:
                raise TrainingError(
                    f"link {name!r} has the target {target.name!r}, which is a "
                    "condition or an earlier target"
                )
            known[target.name] = target
    sample = _sample_of([link.card.sample for link in links])
    held_out = models[0].reference()
    return chain_of(sample, links, info=first.dataset, held_out=held_out)


def _check_fit(made: CardVariable, wanted: CardVariable, link: str) -> None:
    """Raise, or warn, if what is made is not what a link was trained on."""
    where = f"condition {wanted.name!r} of link {link!r}"
    if made.unit != wanted.unit:
        raise TrainingError(
            f"{where} has unit {wanted.unit!r}, but is made in {made.unit!r}"
        )
    if unknown := set(made.sentinels) - set(wanted.sentinels):
        listed = ", ".join(f"{value:g}" for value in sorted(unknown))
        raise TrainingError(f"{where} does not know the sentinels {listed}")
    (low, high), (first, last) = made.range, wanted.range
    outside = max(first - low, 0.0) + max(high - last, 0.0)
    if outside <= MOST_OUTSIDE * (high - low):
        return
    text = (
        f"{where} was trained in {first:g} to {last:g}, but is made in {low:g} to "
        f"{high:g}"
    )
    if high < first or low > last:
        raise TrainingError(text)
    warnings.warn(text, PidganWarning, stacklevel=3)


def _sample_of(samples: Sequence[Sample]) -> Sample:
    """Return the sample of the chain, that of the first link with all targets."""
    content = dict(samples[0])
    fields = type(samples[0]).model_fields.items()
    known = {field.alias or name: content[name] for name, field in fields}
    names = [sample.name for sample in samples]
    links = [
        {"name": sample.name, "targets": sample.target_names} for sample in samples
    ]
    if len(set(names)) < len(names):
        for number, link in enumerate(links):
            link["name"] = f"{number + 1} {link['name']}"
    update = {
        "title": " -> ".join(sample.title for sample in samples),
        "targets": [v for sample in samples for v in sample.variables],
        "cuts": [cut for sample in samples for cut in sample.cuts],
        "links": links,
    }
    return Sample.model_validate(known | update, context={"written": True})
