"""The work of each stage of a bundle, by the public functions of the package.

A stage writes its files whole or not at all, and returns them with a digest of its
result: what decides whether later stages are to be done again.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from pidgan.campaign.records import Records, digest_of
from pidgan.campaign.tasks import Paths, Task
from pidgan.progress import losses_text
from pidgan.sample.definition import Sample

Tell: TypeAlias = Callable[[str], None]
"""What is called with a few words on how far a task is."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a task made: its files, a digest of its result, and what others need."""

    files: Sequence[Path]
    digest: str
    result: Mapping[str, Any] = field(default_factory=dict)


def do_stage(
    task: Task, output: Path, digests: Mapping[str, str], *, again: bool, tell: Tell
) -> Made:
    """Do the work of a task, in the folder of the campaign's file.

    `digests` has those of the tasks before that are done. With `again`, what is there
    is of other inputs, and none of it is continued.
    """
    paths = Paths(output=output, bundle=task.bundle)
    if task.stage == "train":
        return _train(task, paths, again=again, tell=tell)
    work = {
        "prepare": _prepare,
        "validate": _validate,
        "export": _export,
        "systematics": _systematics,
        "collect": _collect,
    }
    return work[task.stage](task, paths, digests)


def _prepare(task: Task, paths: Paths, _: Mapping[str, str]) -> Made:
    from pidgan.report.drawing import plot
    from pidgan.sample.building import build_dataset

    given = dict(task.settings)
    written = json.dumps(given.pop("sample"))
    sample = Sample.model_validate_json(written, context={"written": True})
    given["shares"] = tuple(given["shares"])
    dataset = build_dataset(sample, list(task.files), **given)
    picture = None
    if "fit" in dataset.info:
        picture = plot(dataset).only("mass fit").content(".png")
    dataset.save(paths.dataset, mass_fit=picture, overwrite=True)
    info = dataset.info
    return Made(
        files=[paths.dataset],
        digest=digest_of([paths.dataset / "dataset.json"]),
        result={name: info[name] for name in ("rows", "n_eff")},
    )


def _train(task: Task, paths: Paths, *, again: bool, tell: Tell) -> Made:
    from pidgan.training.loop import train

    if again:
        shutil.rmtree(paths.model, ignore_errors=True)
    given = {k: v for k, v in task.settings.items() if v is not None}

    def show(progress: Any) -> None:
        share = 100 * progress.step // max(1, progress.steps)
        tell(f"{share} %, {losses_text(progress)}")

    model = train(
        paths.dataset, directory=paths.model, resume=True, progress=show, **given
    )
    model.save(paths.model, overwrite=True)
    card = model.card
    return Made(
        files=[p for p in sorted(paths.model.rglob("*")) if _is_of_model(p)],
        digest=digest_of(
            (p for p in sorted(paths.model.rglob("*.npz")) if _is_of_model(p)),
            card.model_dump(mode="json"),
        ),
        result={name: getattr(card, name) for name in ("family", "steps", "plan")},
    )


def _is_of_model(path: Path) -> bool:
    """Return whether a file is of a model, and not of the training that made it."""
    return path.is_file() and path.name != "checkpoint.npz"


def _validate(task: Task, paths: Paths, digests: Mapping[str, str]) -> Made:
    from pidgan.report.validation import validate

    others = {name.rpartition(".")[0] for name in task.perhaps}
    ready = [
        Paths(output=paths.output, bundle=name)
        for name in sorted(others)
        if {f"{name}.prepare", f"{name}.train"} <= digests.keys()
    ]
    report = validate(
        paths.model,
        paths.dataset,
        misid=[(one.model, one.dataset) for one in ready],
        **task.settings,
    )
    page = report.save(paths.report, overwrite=True)
    numbers = page.with_name("report.json")
    headline = report.headline()
    return Made(
        files=[page, numbers],
        digest=digest_of([numbers], headline),
        result={"headline": headline},
    )


@dataclass(frozen=True)
class _Judged:
    """A report as the export needs it: the figures for the card."""

    figures: dict[str, Any]

    def headline(self) -> dict[str, Any]:
        """Return the figures."""
        return self.figures


def _export(task: Task, paths: Paths, digests: Mapping[str, str]) -> Made:
    from pidgan.training.export import export_bundle

    judged = f"{task.bundle}.validate"
    record = Records(paths.output).read(judged) if judged in digests else None
    report = _Judged(record.result["headline"]) if record else None
    path = export_bundle(paths.model, paths.exported, report=report, overwrite=True)
    beside = path.with_name(f"{path.stem}.reference.parquet")
    files = [one for one in (path, beside) if one.is_file()]
    return Made(files=files, digest=digest_of([path]))


def _systematics(task: Task, paths: Paths, _: Mapping[str, str]) -> Made:
    from pidgan.bundle.bundle import open_bundle
    from pidgan.efficiency.systematics import run_systematics
    from pidgan.report.map_page import MapInput, write_map_report

    given = dict(task.settings)
    vary = given.pop("vary")
    variations = given.pop("variations")
    if variations is not None:
        variations = [name for name in variations if name != "none"]
    found = run_systematics(paths.exported, scales=vary, variations=variations, **given)
    files = found.save(paths.map, overwrite=True)
    nominal = MapInput(map=found, generator=open_bundle(paths.exported))
    page = write_map_report(nominal, paths.map_report, overwrite=True)
    return Made(files=[*files, page], digest=digest_of([paths.map]))


def _collect(task: Task, paths: Paths, digests: Mapping[str, str]) -> Made:
    from pidgan.bundle.collecting import collect

    bundles = [
        Paths(output=paths.output, bundle=name.rpartition(".")[0]).exported
        for name in task.perhaps
        if name in digests
    ]
    collect(bundles, paths.collection, overwrite=True, **task.settings)
    return Made(
        files=[paths.collection],
        digest=digest_of([paths.collection]),
        result={"bundles": len(bundles), "of": len(task.perhaps)},
    )
