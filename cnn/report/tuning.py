"""A search in numbers: its trials, what they cost, and what the best one gained."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from cnn.plural import counted
from cnn.ranges import Range, Value

Outcome = Literal["finished", "stopped", "failed"]


@dataclass(frozen=True)
class Trial:
    """One training of a search; number 0 has the settings that were given.

    `point` has a value for each searched dimension. `epochs` were run of `epochs_asked`: fewer
    where it was stopped at a rung, has failed, or lost patience. `accuracy` is its best on
    validation, 0..1, and `history` that of each epoch, as pairs (epoch, accuracy); None and ()
    where none was measured. `reason` says why it failed.
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
        """Whether it can be compared: a failed one left no model, whatever it had reached."""
        return self.outcome != "failed" and self.accuracy is not None

    @property
    def rank(self) -> tuple[bool, float, int]:
        """Sorts trials: the best first, those without a comparable accuracy last."""
        return not self.comparable, -(self.accuracy or 0.0), self.number


@dataclass(frozen=True)
class Tuning:
    """A search that is over; number 0 is among its `trials`.

    `ranges` are those of its dimensions; `importances` (0..1, the largest first) say how much of
    the difference between trials each explains, and are empty where nothing can be told.
    holds_given: whether trial 0 has the settings that were given, and not those nearest to them.
    """

    trials: Sequence[Trial]
    ranges: Mapping[str, Range]
    importances: Mapping[str, float]
    holds_given: bool = True

    @property
    def best(self) -> Trial | None:
        """The trial with the highest validation accuracy, the first of equals; None if none has."""
        return next((trial for trial in ranked(self.trials) if trial.comparable), None)

    @property
    def given(self) -> Trial:
        """The trial of the given settings."""
        return next(trial for trial in self.trials if trial.number == 0)

    @property
    def first(self) -> str:
        """What trial 0 has."""
        nearest = "the settings nearest to those given that the space allows"
        return "the given settings" if self.holds_given else nearest

    @property
    def dimensions(self) -> list[str]:
        """The dimensions, those that mattered most first."""
        return [*self.importances, *(name for name in self.ranges if name not in self.importances)]

    @property
    def cost(self) -> str:
        """What the search has spent and what it spared, as a sentence."""
        trials, outcomes = self.trials, Counter(trial.outcome for trial in self.trials)
        ends = [f"{outcomes['stopped'] or 'none'} stopped early"]
        ends += [f"{outcomes['failed']} failed"] if outcomes["failed"] else []
        run, asked = sum(t.epochs for t in trials), sum(t.epochs_asked for t in trials)
        return (
            f"{counted(len(trials), 'trial was', 'trials were')} run, "
            f"{', '.join(ends)}: {run:,} epochs of the {asked:,} that running all to the end "
            "would have taken."
        )

    @property
    def gain(self) -> str:
        """The best trial against the given settings, as a sentence."""
        best, given = self.best, self.given
        if best is None:
            return "No trial can be compared: none has left a model with a validation accuracy."
        if best is given:
            return (
                f"No trial did better than {self.first} (trial 0), "
                f"with a validation accuracy of {best.accuracy:.1%}."
            )
        found = f"Trial {best.number} did best, with a validation accuracy of {best.accuracy:.1%}"
        if given.accuracy is None:
            return f"{found}; {self.first} (trial 0) reached none."
        end = f", {given.outcome} after {given.epochs} of {given.epochs_asked} epochs"
        cut = "" if given.outcome == "finished" else end
        return f"{found} against the {given.accuracy:.1%} of {self.first} (trial 0{cut})."


def ranked(trials: Iterable[Trial]) -> list[Trial]:
    """The best first, those without a comparable accuracy last, equals by number."""
    return sorted(trials, key=lambda trial: trial.rank)


def leaderboard(trials: Iterable[Trial]) -> pd.DataFrame:
    """A row per trial, the best first; it becomes leaderboard.csv.

    Columns: trial, outcome, epochs, epochs_asked, val_accuracy, seconds, one per dimension,
    reason. Where epochs are searched, epochs_asked is that dimension: it has no second column.
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
        # As objects: a column with a None among its whole numbers would turn them into 3.0.
        table[name] = pd.Series([trial.point.get(name) for trial in rows], dtype=object)
    return table.assign(reason=[trial.reason for trial in rows])


def columns_of(dimensions: Iterable[str]) -> list[str]:
    """The dimensions, each once, that have a column of their own in a table of trials."""
    return [name for name in dict.fromkeys(dimensions) if name != "epochs"]
