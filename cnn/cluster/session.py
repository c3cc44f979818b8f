"""A session with Ray: the cluster that RAY_ADDRESS names, or a local Ray."""

import logging
import os
import re
import signal
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import ray
import ray._private.services as ray_services
import ray._private.utils as ray_utils
from ray._private.node import Node
from ray.util.annotations import RayDeprecationWarning

from cnn.cluster import environment
from cnn.cluster.capacity import own_gpus
from cnn.cluster.token import keep_token_private
from cnn.errors import UserError
from cnn.machine import cores

START_ATTEMPTS = 2

# What Ctrl-C sends, and what `kill` sends.
STOPS = (signal.SIGINT, signal.SIGTERM)

_HOST_AND_PORT = re.compile(r"[^\s/]+:\d+")
ALONE = "unset RAY_ADDRESS to run on this machine only"


@contextmanager
def session(logical_cpus: int, searching: bool = False) -> Iterator[None]:
    """Connect to Ray for the length of a `with` block; an already connected session is kept.

    A local Ray has at least `logical_cpus` CPUs, whatever the machine has. They only limit what
    runs at once: a training worker and the data tasks that feed it must both fit, or each would
    wait for the other for ever. It has a dashboard if `searching`.
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
        # Threads that still wait for Ray would log errors after the job's last message.
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        # After Ctrl-C a thread may be in a call to Ray. If Ray were shut down, that thread would
        # start it again, or end the process with 1: `cnn.settings.command` kills Ray's processes
        # instead.
        if not stopped:
            ray.shutdown()


@contextmanager
def joined() -> Iterator[None]:
    """A session with the cluster that RAY_ADDRESS names; without RAY_ADDRESS, does nothing."""
    if "RAY_ADDRESS" not in os.environ:
        yield
        return
    with session(0):
        yield


@contextmanager
def handler_kept() -> Iterator[None]:
    """Keep this process's own handler of SIGTERM.

    At its start Ray installs one that ends the process silently, with the signal's number.
    """
    setter = ray_utils.set_sigterm_handler
    ray_utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        ray_utils.set_sigterm_handler = setter


@contextmanager
def loopback_kept() -> Iterator[None]:
    """Keep the address 127.0.0.1 that Ray is given: it would then listen on no other.

    It replaces that address by the machine's own, so that other machines could join, and listens
    on all interfaces.
    """
    resolver = ray_services.resolve_ip_for_localhost
    ray_services.resolve_ip_for_localhost = lambda host: host
    try:
        yield
    finally:
        ray_services.resolve_ip_for_localhost = resolver


@contextmanager
def logs_unread() -> Iterator[None]:
    """Start Ray without the process that reads all its logs ten times a second, for nobody here."""
    starter = Node.start_log_monitor
    Node.start_log_monitor = lambda node: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Node.start_log_monitor = starter  # type: ignore[method-assign]


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Delay Ctrl-C and SIGTERM until the end of a `with` block that starts processes.

    Python drops an exception that a handler raises during a fork, and never releases the lock of
    `logging`, which it holds meanwhile: the job would neither stop nor continue.
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
    """Connect to the cluster that RAY_ADDRESS names; UserError if none answers."""
    require_listener(os.environ["RAY_ADDRESS"])
    try:
        with handler_kept():
            ray.init(
                logging_level=logging.ERROR,
                log_to_driver=False,
                runtime_env={"env_vars": environment.of_workers()},
            )
    except ConnectionError:
        raise no_answer(os.environ["RAY_ADDRESS"]) from None


def require_listener(address: str) -> None:
    """UserError if this is no address, or nothing listens there: Ray would try for minutes."""
    if address == "auto" or address.startswith("ray://"):  # Ray itself gives up, and says why
        return
    try:
        if not _HOST_AND_PORT.fullmatch(address):
            raise ValueError(address)
        # Ray's own reading of it: this machine's address instead of `localhost`.
        canonical = ray_services.canonicalize_bootstrap_address_or_die(address)
        found = ray_services.extract_ip_port(canonical)
    except ValueError:
        raise UserError(
            f"RAY_ADDRESS={address} is not the address of a Ray: give HOST:6379, or {ALONE}"
        ) from None
    try:
        socket.create_connection(found, timeout=5).close()
    except (OSError, UnicodeError):  # the second: no host can have this name
        raise no_answer(address) from None


def no_answer(address: str) -> UserError:
    """The error for a cluster that cannot be reached, or refuses this client."""
    return UserError(
        f"no Ray answers at RAY_ADDRESS={address}, or it has another token: check both, or {ALONE}"
    )


def start_local(cpus: int, dashboard: bool) -> None:
    """Start Ray on this machine, reachable only from this machine and with the token.

    Its dashboard costs a short job 3 CPU-seconds, and 3% of a core. Only a search needs it: Ray's
    cleaner of a stopped trial's placement groups asks the dashboard which actors are alive.
    """
    keep_token_private()
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            with signals_deferred(), handler_kept(), loopback_kept(), logs_unread():
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
        except Exception as error:  # Ray raises one if its raylet is not up in 30 s, a fixed limit
            ray.shutdown()
            if "AF_UNIX path length" in str(error):
                raise UserError(
                    "the folder of Ray's sockets has too long a path: "
                    "set RAY_TMPDIR to a short one, such as /tmp"
                ) from None
            if attempt == START_ATTEMPTS:
                raise


def quiet_loggers() -> None:
    """Keep Ray's log messages off the console, except errors that nothing else reports."""
    warnings.filterwarnings("ignore", category=RayDeprecationWarning)
    for name in ("ray", "ray.train", "optuna"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # These log errors, with nested tracebacks, that they also raise or report at a search's end.
    for name in ("ray.data", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
