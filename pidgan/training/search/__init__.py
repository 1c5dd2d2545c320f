"""A search for the settings of a family, by trainings that are compared.

Modules:
    scores: how well a generator describes rows, row by row.
    plan: what all processes of a search agree on.
    storage: the study in a file that many processes share; the only one with optuna.
    trials: one training of the search, and whether it goes on.
    comparison: the default and the best settings on rows that the search never saw.
"""
