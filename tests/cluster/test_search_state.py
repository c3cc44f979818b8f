"""Laws of a search's state: read whole before Tune reads it, or refused in one line."""

import json
import pickle
from pathlib import Path

import pytest

from cnn.cluster import tuning_plan
from cnn.cluster.search_state import NOTHING, SearchState, read_state
from cnn.config import TuneConfig
from cnn.errors import UserError
from cnn.text.console import Console


@pytest.fixture
def trials(tmp_path: Path) -> Path:
    """A folder as Tune leaves it after two sessions; the second one counts."""
    for session, statuses in (("1", ["RUNNING"]), ("2", ["TERMINATED", "ERROR", "RUNNING"])):
        data = [[json.dumps({"status": status}), "{}"] for status in statuses]
        (tmp_path / f"experiment_state-{session}.json").write_text(json.dumps({"trial_data": data}))
        for name in ("searcher-state", "callback-states"):
            (tmp_path / f"{name}-{session}.pkl").write_bytes(pickle.dumps({"of": session}))
        generator = {"name:ConcurrencyLimiter": {"max_concurrent": int(session)}}
        (tmp_path / f"search_gen_state-{session}.json").write_bytes(pickle.dumps(generator))
    return tmp_path


def test_the_last_session_counts(trials: Path) -> None:
    state = read_state(trials)
    assert (state.ended, state.unfinished, state.concurrent) == (2, 1, 2)


def test_a_search_without_saved_state_starts_from_the_beginning(tmp_path: Path) -> None:
    assert read_state(tmp_path / "nowhere") == NOTHING
    (tmp_path / "tuner.pkl").write_bytes(b"written first")
    assert read_state(tmp_path) == NOTHING


@pytest.mark.parametrize(
    "name", ["experiment_state-2.json", "searcher-state-2.pkl", "callback-states-2.pkl"]
)
def test_a_state_file_that_a_kill_truncated_is_named(trials: Path, name: str) -> None:
    file = trials / name
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(UserError, match=f"{name} cannot be read .*give another --out"):
        read_state(trials)


def test_all_interrupted_trials_get_room_for_their_workers() -> None:
    before = SearchState(["RUNNING"] * 4 + ["TERMINATED"])
    for workers, at_once in ((1, 1), (2, 4)):
        settings = TuneConfig.model_validate({"resources": {"workers": workers}})
        assert tuning_plan.at_once(settings, 1, before) == at_once
        assert tuning_plan.at_once(settings, 1, NOTHING) == 1


def test_the_state_of_an_older_version_is_refused(trials: Path) -> None:
    """It kept the number of its proposals, and not the proposals."""
    (trials / "searcher-state-2.pkl").write_bytes(pickle.dumps({"proposed": 3}))
    with pytest.raises(UserError, match="cannot resume: give another --out"):
        read_state(trials)


def test_a_resumed_search_plans_as_many_trials_at_once_as_tune_will_run() -> None:
    settings = TuneConfig.model_validate({"search": {"trials": 20}})
    before = SearchState(["RUNNING"], concurrent=2)
    assert [tuning_plan.at_once(settings, most, before) for most in (1, 2, 8)] == [1, 2, 2]
    assert tuning_plan.at_once(settings, 8, NOTHING) == 8


def test_trials_at_once_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning_plan, "cores", lambda: 16)
    monkeypatch.setattr(tuning_plan, "free_memory", lambda: 16 * 2**30)
    rooms = {(1, 0): 16, (1, 3 * 2**30): 4, (2, 3 * 2**30): 2, (16, 3 * 2**30): 1, (1, 2**40): 1}
    assert {given: tuning_plan.own_room(*given) for given in rooms} == rooms


def test_no_trial_takes_parts_of_two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning_plan, "gpus", lambda: 2)
    rooms = {0.25: 8, 0.4: 4, 0.6: 2, 1.0: 2}
    for fraction, most in rooms.items():
        assert tuning_plan.TuningPlan(most, 1, fraction).fits()
        assert not tuning_plan.TuningPlan(most + 1, 1, fraction).fits()
    assert tuning_plan.TuningPlan(9, 1, 0.0).fits()


def test_a_search_that_does_not_fit_is_told_what_would() -> None:
    """This Ray has 6 CPUs: a trial of two workers takes 3."""
    values = {"resources": {"gpu": False, "workers": 2}, "search": {"concurrent": 3}}
    settings = TuneConfig.model_validate(values)
    with pytest.raises(UserError, match=r"^3 trials at once .* 9 CPUs are needed.*--concurrent"):
        tuning_plan.plan(settings, held=1, console=Console())
    before = SearchState(["RUNNING"] * 3, concurrent=3)
    with pytest.raises(UserError, match=r"^the interrupted search needs 9 CPUs.*there are 6"):
        tuning_plan.plan(settings, held=1, console=Console(), before=before)
