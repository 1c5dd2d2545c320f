"""Generators learnt from datasets: families, the loop, the export.

- `budget`: durations, and trainings that keep to one.
- `chain`: several generators of which each makes its targets given those before.
- `classical`: parametrisations of showers that are fitted, not trained.
- `correction`, `corrector`: simulated targets mapped to those of data.
- `course`: the steps of one training, done and wanted.
- `export`: a trained model written as a bundle.
- `families`: the ways to learn a generator, one file each.
- `hybrid`: learnt showers that a parametrisation takes to other energies.
- `joining`: which process of a training this one is, where several share it.
- `loop`: the one training loop.
- `members`: models of one sample that differ in their seed.
- `mending`: energies of cells of generated showers, mended.
- `model`: a trained model.
- `networks`: networks that families are made of.
- `record`: the losses and the progress of a training.
- `refinement`: a model corrected by a classifier.
- `separate_links`: models of different samples joined to a chain.
- `search`: a search for settings, by trainings that are compared.
- `setup`: what a training needs before its first step.
- `targets`: kinds of target, as networks see them.
"""

__all__ = [
    "budget",
    "chain",
    "classical",
    "correction",
    "corrector",
    "course",
    "export",
    "families",
    "hybrid",
    "joining",
    "loop",
    "members",
    "mending",
    "model",
    "networks",
    "record",
    "refinement",
    "search",
    "separate_links",
    "setup",
    "targets",
]
