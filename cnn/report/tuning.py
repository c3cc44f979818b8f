"""Searches in numbers: the trials, their cost, and the gain of the best one."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from cnn.settings.ranges import Range, Value
from cnn.text.plural import counted
from cnn.text.ratio import percent

Outcome = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True)
class Trial:
    """One training of a search; number 0 has the settings that were given.

    `point` has a value for each searched dimension. `epochs` of `epochs_asked` were run: fewer if
    the trial was stopped at a rung, failed, or ran out of patience. `accuracy` is its best on
    validation, 0..1, and `history` has the pair (epoch, accuracy) of each epoch; None and () if
    none was measured. `reason` says why it failed.
    """

    number: int
    point: Mapping[str, Value]
    outcome: Outcome
    epochs: int
    epochs_asked: int
    accuracy: float | None
    seconds: float
    reason: str | None = None
    history: tuple[tuple[int, float], ...] = ()

    @property
    def comparable(self) -> bool:
        """Whether it can be compared: a failed trial left no model, whatever its accuracy."""
        return self.outcome != "failed" and self.accuracy is not None

    @property
    def rank(self) -> tuple[bool, float, int]:
        """A sort key: the best trials first, those without a comparable accuracy last."""
        return not self.comparable, -(self.accuracy or 0.0), self.number


@dataclass(frozen=True)
class Tuning:
    """A finished search; number 0 is among its `trials`.

    `ranges` has the range of each dimension. `importances` (0..1, the largest first) has how much
    of the difference between trials each dimension explains; empty if that cannot be estimated.
    holds_given: whether trial 0 has the given settings, rather than the nearest in the space.
    """

    trials: Sequence[Trial]
    ranges: Mapping[str, Range]
    importances: Mapping[str, float]
    holds_given: bool = True

    @property
    def best(self) -> Trial | None:
        """The comparable trial with the best validation accuracy, the first of equals, or None."""
        return next((trial for trial in ranked(self.trials) if trial.comparable), None)

    @property
    def given(self) -> Trial:
        """Trial 0: the given settings, or the nearest in the space."""
        return next(trial for trial in self.trials if trial.number == 0)

    @property
    def first(self) -> str:
        """The settings of trial 0, in words."""
        nearest = "the settings nearest to those given that the space allows"
        return "the given settings" if self.holds_given else nearest

    @property
    def dimensions(self) -> list[str]:
        """The dimensions, the most important first."""
        return [*self.importances, *(name for name in self.ranges if name not in self.importances)]

    @property
    def cost(self) -> str:
        """The epochs that the search took, against those without early stopping, in words."""
        trials, outcomes = self.trials, Counter(trial.outcome for trial in self.trials)
        ends = [f"{outcomes['stopped'] or 'none'} stopped early"]
        ends += [f"{outcomes['failed']} failed"] if outcomes["failed"] else []
        run, asked = sum(t.epochs for t in trials), sum(t.epochs_asked for t in trials)
        return (
            f"{counted(len(trials), 'trial was', 'trials were')} run, "
            f"{', '.join(ends)}. The search took {counted(run, 'epoch')}; running every trial "
            f"to its end would have taken {asked:,}."
        )

    @property
    def gain(self) -> str:
        """The best trial compared with the given settings, as a sentence."""
        best, given = self.best, self.given
        if best is None or best.accuracy is None:
            return "No trial can be compared: none left a model with a validation accuracy."
        if best is given:
            return (
                f"No trial did better than {self.first} (trial 0), "
                f"with a validation accuracy of {percent(best.accuracy)}."
            )
        found = (
            f"Trial {best.number} did best, with a validation accuracy of {percent(best.accuracy)}"
        )
        if given.accuracy is None:
            return f"{found}; {self.first} (trial 0) reached no accuracy."
        end = f", {given.outcome} after {given.epochs} of {counted(given.epochs_asked, 'epoch')}"
        cut = "" if given.outcome == "finished" else end
        return f"{found} against the {percent(given.accuracy)} of {self.first} (trial 0{cut})."


def ranked(trials: Iterable[Trial]) -> list[Trial]:
    """The trials: the best first, those without a comparable accuracy last, equals by number."""
    return sorted(trials, key=lambda trial: trial.rank)


def leaderboard(trials: Iterable[Trial]) -> pd.DataFrame:
    """The content of leaderboard.csv: a row per trial, the best first.

    Columns: trial, outcome, epochs, epochs_asked, val_accuracy, seconds, one per dimension,
    reason. If epochs are searched, epochs_asked is that dimension, which has no second column.
    """
    rows = ranked(trials)
    table = pd.DataFrame(
        {
            "trial": [trial.number for trial in rows],
            "outcome": [trial.outcome for trial in rows],
            "epochs": [trial.epochs for trial in rows],
            "epochs_asked": [trial.epochs_asked for trial in rows],
            "val_accuracy": pd.Series([trial.accuracy for trial in rows], dtype=float),
            "seconds": [trial.seconds for trial in rows],
        }
    )
    for name in columns_of(name for trial in rows for name in trial.point):
        # As objects: a None in a column of integers would turn them into floats such as 3.0.
        table[name] = pd.Series([trial.point.get(name) for trial in rows], dtype=object)
    return table.assign(reason=[trial.reason for trial in rows])


def columns_of(dimensions: Iterable[str]) -> list[str]:
    """The dimensions, each once, that have their own column in a table of trials."""
    return [name for name in dict.fromkeys(dimensions) if name != "epochs"]
