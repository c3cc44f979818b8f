"""A session with Ray: the cluster that RAY_ADDRESS names, or one of this machine's own."""

import logging
import os
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import ray
import ray._private.utils as ray_utils
from ray.util.annotations import RayDeprecationWarning

from cnn.cluster import environment
from cnn.cluster.capacity import own_gpus
from cnn.cluster.token import keep_token_private
from cnn.errors import UserError
from cnn.machine import cores

START_ATTEMPTS = 2

# Ctrl-C, and what ends a process that is not asked.
STOPS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def session(logical_cpus: int, searching: bool = False) -> Iterator[None]:
    """Connect to Ray for the length of a `with` block; an already connected session is kept.

    A Ray of our own is told of at least `logical_cpus` CPUs, whatever the machine has: they only
    count what runs at once, and a training worker and the data tasks that feed it must both fit,
    or each would wait for the other for ever. It has a dashboard where a search needs it.
    """
    if ray.is_initialized():
        yield
        return
    stopped = False
    try:
        if "RAY_ADDRESS" in os.environ:
            join_cluster()
        else:
            start_local(max(logical_cpus, cores()), searching)
        quiet_loggers()
        yield
    except KeyboardInterrupt:
        stopped = True
        raise
    finally:
        # Threads that still wait for Ray would complain after the job's own last word.
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        # A stopped job has a thread amid its calls of Ray, which would start another Ray where this
        # one is gone, or end the process with 1: whoever stops the job ends Ray's processes too.
        if not stopped:
            ray.shutdown()


@contextmanager
def joined() -> Iterator[None]:
    """A session with the cluster that RAY_ADDRESS names; without one nothing is started."""
    if "RAY_ADDRESS" not in os.environ:
        yield
        return
    with session(0):
        yield


@contextmanager
def handler_kept() -> Iterator[None]:
    """Keep this process's own handler of SIGTERM.

    Ray sets one as it starts, which ends the process without a word, and with the signal's number.
    """
    setter = ray_utils.set_sigterm_handler
    ray_utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        ray_utils.set_sigterm_handler = setter


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait for the end of a `with` block in which processes are started.

    What a handler raises while Python forks is dropped, and the lock of `logging`, which is held
    meanwhile, is never released: the job would neither stop nor go on.
    """
    came: list[int] = []
    kept = {stop: signal.signal(stop, lambda number, frame: came.append(number)) for stop in STOPS}
    try:
        yield
    finally:
        for stop, handler in kept.items():
            signal.signal(stop, handler)
        for number in came[:1]:
            signal.raise_signal(number)


def join_cluster() -> None:
    """Connect to the cluster that RAY_ADDRESS names; UserError where there is none."""
    try:
        with handler_kept():
            ray.init(
                logging_level=logging.ERROR,
                log_to_driver=False,
                runtime_env={"env_vars": environment.of_workers()},
            )
    except ConnectionError:
        raise UserError(
            f"no Ray answers at RAY_ADDRESS={os.environ['RAY_ADDRESS']}, or it has another token: "
            "start one there, or unset RAY_ADDRESS to run on this machine alone"
        ) from None


def start_local(cpus: int, dashboard: bool) -> None:
    """Start Ray on this machine, reachable from this machine alone, by whoever has the token.

    Its dashboard, which nobody has asked for here, takes 3 CPU-seconds of a short job, and 3% of
    a core. What removes the reservations of a stopped trial asks it which actors are alive.
    """
    keep_token_private()
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            with signals_deferred(), handler_kept():
                ray.init(
                    address="local",
                    num_cpus=cpus,
                    num_gpus=own_gpus(),
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                    include_dashboard=dashboard,
                    _node_ip_address="127.0.0.1",
                    _temp_dir=os.environ.get("RAY_TMPDIR"),
                )
            return
        except Exception:  # what Ray raises where its raylet is not there after 30 s, a fixed time
            ray.shutdown()
            if attempt == START_ATTEMPTS:
                raise


def quiet_loggers() -> None:
    """Keep Ray's own chatter off the console; errors still reach it."""
    warnings.filterwarnings("ignore", category=RayDeprecationWarning)
    for name in ("ray", "ray.train", "optuna"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # These log what they raise, or keep for the search's end, with a traceback of its own inside.
    for name in ("ray.data", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
