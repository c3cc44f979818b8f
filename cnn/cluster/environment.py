"""Environment variables that Ray and its workers read at start-up; jobs set them before that."""

import os

# A batch's activations take tens of MB each. By default the C library requests each of them from
# the system and returns it at once: clearing the pages costs a fifth of a network's time on a CPU.
# With these settings a process keeps up to 256 MiB to reuse, in one heap for all its threads.
ARITHMETIC = {
    "MALLOC_MMAP_THRESHOLD_": str(256 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "MALLOC_TOP_PAD_": str(64 << 20),
    "MALLOC_ARENA_MAX": "1",
}

SETTINGS = {
    **ARITHMETIC,
    # Otherwise a driver started by `uv run` zips its folder and builds a second virtual environment
    # on the same machine: the first task starts after 43 s, instead of a few.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # The Parquet reader's default starts 32 actors for each pass over the data.
    "RAY_DATA_USE_DATASOURCE_V2": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # Ray Data also raises what it logs as an error, and the job then prints it in one line.
    "RAY_DATA_LOG_LEVEL": "CRITICAL",
    # Tune's newer console output prints at any verbosity, and names folders of no use to the user.
    "RAY_AIR_NEW_OUTPUT": "0",
    # Seconds between saves of a search's state: what a killed search loses and does again.
    "TUNE_GLOBAL_CHECKPOINT_S": "2",
    # A machine under load takes longer than Ray's default 60 s to start a Python process.
    "RAY_worker_register_timeout_seconds": "300",
    # Ray starts its workers at nice 15: next to other work on the machine they would starve.
    "RAY_worker_niceness": "0",
    # Ray starts a worker for each CPU before it knows what for. A training needs others, with an
    # environment of their own; these would wake up a hundred times a second until its end.
    "RAY_prestart_worker_first_driver": "0",
    # Ray would print its raylets' messages about lost workers and nodes on standard output, among a
    # job's results. The job itself reports what the loss means.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed|has been marked dead",
    # The submission may already have set a variable that the job sets for its workers: Ray would
    # refuse the conflict, and now the job's value counts.
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",
    # Messages that a user cannot act on.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "PYTHONWARNINGS": "ignore",
}


def set_defaults() -> None:
    """Set each variable that the user has not set.

    In a submitted job Ray's uv hook is left as it is: it brings the environment to the workers.
    An empty RAY_ADDRESS, as from an unset variable in a script, names no cluster, and neither does
    `local`: Ray would start one of its own, with none of this program's choices: not private.
    Ray takes only an absolute RAY_TMPDIR; an empty one is none.
    """
    if os.environ.get("RAY_ADDRESS", "").strip() in ("", "local"):
        os.environ.pop("RAY_ADDRESS", None)
    if folder := os.environ.pop("RAY_TMPDIR", None):
        os.environ["RAY_TMPDIR"] = os.path.abspath(folder)
    for name, value in SETTINGS.items():
        if name == "RAY_ENABLE_UV_RUN_RUNTIME_ENV" and "RAY_ADDRESS" in os.environ:
            continue
        os.environ.setdefault(name, value)


def of_workers() -> dict[str, str]:
    """The variables to send to a cluster's workers, whose machines do not set them."""
    return {name: os.environ.get(name, value) for name, value in ARITHMETIC.items()}
