"""What a user of jobs.tune sees: the outcome of a search, even if it was killed."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from runs import console_lines, kill, wait_for

from cnn.cluster.search_state import newest
from cnn.config import TrainConfig
from cnn.settings.command import parse

Command = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]
Refused = Callable[..., str]
Here = Callable[..., tuple[int, str, str]]

CONTRACT = {
    "leaderboard.csv", "best.yaml", "space.yaml", "trials", "model", "evaluation.json",
    "report.html", "history.csv", "predictions.parquet", "suspects.csv", "manifest.parquet",
    "config.yaml",
}  # fmt: skip


def progress(run: Path) -> dict[str, str]:
    """What each trial has reported so far."""
    files = run.glob("trials/*/progress.csv")
    return {file.parent.name: file.read_text() for file in files}


def ended(run: Path) -> list[str]:
    """The trials that have ended, as Tune has saved it: a kill loses later changes."""
    state = newest(run / "trials", "experiment_state-")
    if state is None:
        return []
    try:
        content = json.loads(state.read_text())
    except ValueError:  # Tune is writing it
        return []
    trials = [json.loads(trial) for trial, _ in content["trial_data"]]
    over = {trial["trial_id"] for trial in trials if trial["status"] == "TERMINATED"}
    return [name for name in progress(run) if name.split("-")[1] in over]


@pytest.fixture(scope="module")
def killed(start: Start, runs: Path) -> tuple[list[object], dict[str, str], list[str]]:
    """A search whose driver was killed after its first trial's end: its command and its state."""
    arguments = ["tune", "--out", runs / "search", "--trials", 3, "--epochs", 3, "--seed", 1]
    arguments += ["--filters", "16,32"]
    process = start(*arguments)
    wait_for(process, lambda: len(ended(runs / "search")) >= 1)
    kill(process)
    return arguments, progress(runs / "search"), ended(runs / "search")


@pytest.fixture(scope="module")
def done(
    command: Command, killed: tuple[list[object], dict[str, str], list[str]]
) -> subprocess.CompletedProcess[str]:
    """The same command again."""
    return command(*killed[0])


def test_a_killed_search_resumes_and_finished_trials_do_not_run_again(
    done: subprocess.CompletedProcess[str],
    killed: tuple[list[object], dict[str, str], list[str]],
    runs: Path,
) -> None:
    assert done.returncode == 0, done.stderr
    _, before, finished = killed
    now = progress(runs / "search")
    assert len(now) == 3
    assert finished and all(now[name] == before[name] for name in finished)
    board = pd.read_csv(runs / "search/leaderboard.csv")
    assert sorted(board["trial"]) == [0, 1, 2]
    assert board["val_accuracy"].is_monotonic_decreasing
    assert board.set_index("trial").loc[0, "epochs"] == 3


def test_the_run_folder_holds_the_documented_files(
    done: subprocess.CompletedProcess[str], runs: Path
) -> None:
    run = runs / "search"
    assert {entry.name for entry in run.iterdir()} == CONTRACT
    headline, last = done.stdout.splitlines()
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert headline.startswith(f"test accuracy {evaluation['accuracy']:.3f}")
    assert last == f"wrote {run}"
    first_words = [line.split()[0] for line in console_lines(done.stderr)]
    known = {"prepared", "data", "network", "plan", "trial", "0", "1", "2"}
    assert "plan" in first_words and set(first_words) <= known, done.stderr


def test_best_yaml_holds_the_settings_of_a_training_run(
    done: subprocess.CompletedProcess[str], runs: Path
) -> None:
    best = parse(TrainConfig, ["--config", str(runs / "search/best.yaml")])
    board = pd.read_csv(runs / "search/leaderboard.csv")
    assert best.training.lr == pytest.approx(board["lr"][0])
    card = json.loads((runs / "search/model/model.json").read_text())
    assert card["trained"]["val_accuracy"] == pytest.approx(board["val_accuracy"][0])
    assert tuple(card["network"]["filters"]) == best.network.filters


def test_a_finished_search_is_left_alone_and_another_space_is_refused(
    done: subprocess.CompletedProcess[str],
    killed: tuple[list[object], dict[str, str], list[str]],
    here: Here,
    refused: Refused,
    runs: Path,
    tmp_path: Path,
) -> None:
    code, out, err = here(*killed[0])
    assert (code, out) == (0, done.stdout) and "finished: nothing to do" in err
    space = tmp_path / "space.yaml"
    space.write_text("lr: {loguniform: [1e-3, 1e-2]}\n")
    assert "another space" in refused(*killed[0], "--space", space)
    space.write_text("lrr: {loguniform: [1e-3, 1e-2]}\n")
    assert "did you mean lr?" in refused(*killed[0], "--space", space)
    space.write_text("lr: {loguniform: [1e-2, 1e-3]}\n")
    assert "is empty" in refused(*killed[0], "--space", space)


@pytest.mark.slow
def test_a_killed_search_keeps_the_epochs_of_trials_with_several_workers(
    start: Start, command: Command, runs: Path
) -> None:
    run = runs / "together"
    arguments = ["tune", "--out", run, "--trials", 1, "--epochs", 8, "--workers", 2]
    process = start(*arguments, "--filters", "16,32")
    wait_for(process, lambda: any(run.glob("trials/*/checkpoints/epoch-0003/model.json")))
    kill(process)
    done = command(*arguments, "--filters", "16,32")
    assert done.returncode == 0, done.stderr
    (trial,) = pd.read_csv(run / "leaderboard.csv").to_dict("records")
    assert (trial["outcome"], trial["epochs"]) == ("finished", 8)
    history = pd.read_csv(run / "history.csv")
    assert history["epoch"].tolist() == list(range(1, 9))
    assert trial["val_accuracy"] == pytest.approx(history["val_accuracy"].max())
