"""Bounds of arguments that are whole numbers.

An argument has one meaning in all of the package, so its bounds stand here once. The
command line shows them in its help, for which it need not wait for numpy.
"""

MOST_SEED, MOST_COUNT = 2**63 - 1, 2**31 - 1
# Least and largest value of arguments that are whole numbers. More entries than those
# of `n` at a time need more memory than a machine has.
BOUNDS: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("seed", "start"), (0, MOST_SEED)),
    "n": (1, 10**8),
    **dict.fromkeys(("candidates", "splits", "seeds"), (2, MOST_COUNT)),
    **dict.fromkeys(("steps", "members", "ratio_steps"), (1, MOST_COUNT)),
    **dict.fromkeys(("trials", "trial_steps"), (1, MOST_COUNT)),
    **dict.fromkeys(
        ("chunk", "threads", "workers", "repeats", "processes"), (1, MOST_COUNT)
    ),
    **dict.fromkeys(("max_rows", "c2st_rows", "n_bins", "bins"), (1, MOST_COUNT)),
    **dict.fromkeys(("http_port", "grpc_port"), (0, 2**16 - 1)),
    "max_request": (1, 2000),  # MiB; gRPC has messages of at most 2 GiB
    "model_version": (1, MOST_COUNT),
}
