"""The console output of a running search: a row for each trial that has ended."""

import re
from collections.abc import Callable
from typing import Any, ClassVar

from ray import tune
from ray.tune.experiment import Trial as TuneTrial

from cnn.cluster.search_state import ENDED
from cnn.cluster.trials import METRIC, NUMBER, point_of
from cnn.errors import is_full_gpu
from cnn.report.tuning import Outcome
from cnn.search.space import Point
from cnn.text.console import Advance, Console

TABLE = "{trial:>7}  {outcome:>8}  {epochs:>6}  {accuracy:>7}  {best:>12}  {states:>20}  {point}"
TABLE_HEAD = TABLE.format(
    trial="trial", outcome="outcome", epochs="epochs", accuracy="val acc", best="best (trial)",
    states="running/stopped/done", point="settings",
)  # fmt: skip


# The name of an exception before its message, in a traceback.
EXCEPTION = re.compile(r"^(?:\w+\.)*\w+: (?=.)")


def ending(done: int, epochs: int) -> Outcome:
    """How a trial that did not fail has ended, from its epochs and those of its schedule."""
    return "finished" if done and done == epochs else "stopped"


def reached(trial: TuneTrial) -> Outcome:
    """The same from its last report."""
    last = trial.last_result or {}
    return ending(last.get("epoch", 0), last.get("epochs", 0))


class Watch(tune.Callback):
    """Prints a row on the console for each trial as it ends."""

    here: ClassVar["Watch"]

    def __init__(self, trials: int, console: Console, advance: Advance) -> None:
        self.trials, self.console, self.advance = trials, console, advance

    @classmethod
    def current(cls) -> "Watch":
        """The watch of this process."""
        return cls.here

    def __reduce__(self) -> tuple[Callable[[], "Watch"], tuple[()]]:
        # Tune pickles its callbacks with the search, but a console belongs to one process: a
        # restored search uses the watch of its own process.
        return Watch.current, ()

    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        self.tell(trials, trial, reached(trial))

    def on_trial_error(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        self.tell(trials, trial, "failed")
        if reason := reason_of(trial.get_error()):
            self.console.say(f"         {reason}")

    def tell(self, trials: list[TuneTrial], trial: TuneTrial, outcome: Outcome) -> None:
        """Print the row of a trial that has ended."""
        # Tune calls this before it changes the trial's status.
        others = [one for one in trials if one is not trial]
        done = 1 + sum(one.status in ENDED for one in others)
        ends = [reached(one) for one in others if one.status == "TERMINATED"]
        running = sum(one.status == "RUNNING" for one in others)
        stopped = [*ends, outcome].count("stopped")
        failed = [one for one in others if one.status == "ERROR"]
        failed += [trial] if outcome == "failed" else []
        compared = [one for one in trials if one not in failed]
        best = max(compared, key=best_of, default=None)
        self.console.say(
            TABLE.format(
                trial=trial.config[NUMBER],
                outcome=outcome,
                epochs=int((trial.last_result or {}).get("epoch", 0)),
                accuracy=f"{best_of(trial):.3f}" if trial.metric_analysis else "-",
                best=f"{best_of(best):.3f} ({best.config[NUMBER]})" if best else "none",
                states=f"{running} / {stopped} / {done}",
                point=point_text(point_of(trial.config)),
            )
        )
        self.advance(done, self.trials)


def reason_of(error: Exception | None) -> str | None:
    """Why a trial failed: the last line of its error, without the exception's name."""
    if error is not None and is_full_gpu(error):
        return "a GPU's memory is too small: search smaller networks, or raise --gpu-fraction"
    lines = [line for line in str(error).splitlines() if line.strip()] if error else []
    return EXCEPTION.sub("", lines[-1].strip()) if lines else None


def best_of(trial: TuneTrial) -> float:
    """The best validation accuracy that a trial has reached so far."""
    return float(trial.metric_analysis.get(METRIC, {}).get("max", 0.0))


def point_text(point: Point) -> str:
    """A point on one line."""
    return " ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in point.items()
    )
