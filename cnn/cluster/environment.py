"""What Ray and its workers read from the environment as they start; set before that, by jobs."""

import os

# A batch's activations are of tens of MB each. The C library would ask the system for each of
# them, and hand it back at once: a fifth of a network's time on a CPU, for clearing pages. So a
# process keeps up to 256 MiB for the next one, in one heap for all of its threads.
ARITHMETIC = {
    "MALLOC_MMAP_THRESHOLD_": str(256 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "MALLOC_TOP_PAD_": str(64 << 20),
    "MALLOC_ARENA_MAX": "1",
}

SETTINGS = {
    **ARITHMETIC,
    # A driver started by `uv run` would otherwise zip its folder and build a second virtual
    # environment on this same machine: 43 s to the first task, instead of a few.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # The Parquet reader's default starts 32 actors for each pass over the data.
    "RAY_DATA_USE_DATASOURCE_V2": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # What it would call an error is raised as well, to those who can tell it in one line.
    "RAY_DATA_LOG_LEVEL": "CRITICAL",
    # Tune's newer console speaks whatever it is told, and of folders that nobody asked for.
    "RAY_AIR_NEW_OUTPUT": "0",
    # A killed search forgets what its trials did in so many seconds, and does it again.
    "TUNE_GLOBAL_CHECKPOINT_S": "2",
    # A machine under load takes longer than Ray's default 60 s to start a Python process.
    "RAY_worker_register_timeout_seconds": "300",
    # Ray starts its workers at nice 15: beside any other work on the machine they would starve.
    "RAY_worker_niceness": "0",
    # Ray Train looks for reports so often, and a worker that reports waits until it is seen: with
    # the default of 2 s an epoch of half a second takes two and a half.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # Ray would put its raylets' word of lost workers and nodes among a job's results, on standard
    # output. What the loss means for the job, the job says itself.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed|has been marked dead",
    # What a job tells its cluster's workers may have been told them by its submission already.
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",
    # Messages that a user cannot act on.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "PYTHONWARNINGS": "ignore",
}


def set_defaults() -> None:
    """Set each variable that the user has not set.

    In a submitted job the uv hook stays as the cluster has it: there it carries the environment.
    """
    for name, value in SETTINGS.items():
        if name == "RAY_ENABLE_UV_RUN_RUNTIME_ENV" and "RAY_ADDRESS" in os.environ:
            continue
        os.environ.setdefault(name, value)


def of_workers() -> dict[str, str]:
    """What the workers of a cluster must be told: its machines have none of it by themselves."""
    return {name: os.environ.get(name, value) for name, value in ARITHMETIC.items()}
