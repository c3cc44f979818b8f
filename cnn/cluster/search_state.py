"""The state that Tune keeps of a search, read before Tune reads it.

Tune says nothing of a state that it cannot read: it starts again, with one trial, or waits for
trials that do not exist.
"""

import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cnn.errors import UserError
from cnn.files.place import Place

STATE = "experiment_state-"
GENERATOR = "search_gen_state-"  # pickled, although its name ends in .json
PICKLES = ("searcher-state-", "callback-states-", GENERATOR)

ENDED = ("TERMINATED", "ERROR")  # Tune's words for a trial that is over


@dataclass(frozen=True)
class SearchState:
    """The trials of an interrupted search, by their status.

    concurrent: how many ran at once, and will again: Tune restores this number. None if unknown.
    """

    statuses: Sequence[str]
    concurrent: int | None = None

    @property
    def ended(self) -> int:
        """Trials that are over."""
        return sum(status in ENDED for status in self.statuses)

    @property
    def unfinished(self) -> int:
        """Trials that Tune starts again at once, all together."""
        return len(self.statuses) - self.ended


NOTHING = SearchState(())


def read_state(folder: Place) -> SearchState:
    """The state of the search in `folder`, without trials if there is none yet.

    Raises UserError if a kill truncated it.
    """
    last = newest(folder, STATE)
    if last is None:
        return NOTHING
    try:
        content = json.loads(last.read_text(encoding="utf-8"))
        statuses = [json.loads(trial)["status"] for trial, _ in content["trial_data"]]
        state: Any = {}
        for prefix in PICKLES:
            last = newest(folder, prefix) or last
            if last.name.startswith(prefix):
                state = pickle.loads(last.read_bytes())
                require_own(state)
        limiter = state.get("name:ConcurrencyLimiter", {})
    except Exception as error:  # a truncated pickle may raise anything
        raise UserError(
            f"{last} cannot be read ({type(error).__name__}), so the search cannot resume: "
            "give another --out"
        ) from None
    return SearchState(statuses, limiter.get("max_concurrent"))


def require_own(state: Any) -> None:
    """Raises TypeError if a searcher's state is of a version that only counted its proposals."""
    if isinstance(state, dict) and isinstance(state.get("proposed", ()), int):
        raise TypeError("an older version's")


def newest(folder: Place, prefix: str) -> Place | None:
    """The last file of this kind: their names end in the time at which their session began."""
    if not folder.is_dir():
        return None
    files = [file for file in folder.iterdir() if file.name.startswith(prefix)]
    return max(files, key=lambda file: file.name, default=None)
