"""Laws of tuning: the given settings run to their end, and a failing trial fails alone."""

import math
import shutil
from pathlib import Path

import pytest
import torch
from ray.tune.experiment import Trial

from cnn import bundle
from cnn.cluster import tune_run, tuning, worker
from cnn.cluster.checkpoints import CHECKPOINTS, TRIAL, kept, restore
from cnn.cluster.halving import Halving, Rungs
from cnn.cluster.training import Trained
from cnn.cluster.tuning import EndedTrial, Proposals, TrialContext
from cnn.cluster.tuning_plan import TuningPlan
from cnn.cluster.watch import Watch
from cnn.config import Resources, Search, TrainConfig
from cnn.dataset.prepared import Prepared
from cnn.runs.run_folder import TuneFolder
from cnn.search import study
from cnn.search.space import Space
from cnn.settings.ranges import Choice, LogUniform, Range
from cnn.text.console import Console
from cnn.training import checkpoint, history
from cnn.training.history import Epoch

BASE = TrainConfig.model_validate(
    {
        "images": "digits",
        "data": {"image_size": 16},
        "augmentation": {"rotation": 0, "shift": 0, "zoom": 0, "flip": False},
        "network": {"filters": "8,16", "convolutions": 1},
        "training": {"epochs": 4, "batch_size": 32, "precision": "float32"},
    }
)

ROW = Epoch(
    epoch=1, train_loss=1.0, train_accuracy=0.5, val_loss=1.0, val_accuracy=0.5, temperature=1.0,
    side=16, lr=0.1, seconds=1.0, images_per_second=9.0, data_wait=0.0,
)  # fmt: skip


def search(
    dataset: Prepared,
    out: Path,
    ranges: dict[str, Range],
    settings: Search,
    plan: TuningPlan,
    base: TrainConfig = BASE,
) -> list[EndedTrial]:
    task = TrialContext(Space(ranges, base), {16: dataset.folder}, plan, out)
    return tuning.search(task, settings, seed=4, console=Console())


@pytest.fixture(scope="module")
def tried(dataset: Prepared, tmp_path_factory: pytest.TempPathFactory) -> list[EndedTrial]:
    """Six trials: rates that learn, that learn nothing, and one whose loss is not a number."""
    rates = Choice((3e-3, 1e-7, 1e30))
    settings = Search(trials=6, algorithm="random", grace=1, reduction=2)
    out, plan = tmp_path_factory.mktemp("search") / "run", TuningPlan(concurrent=2, workers=1)
    return search(dataset, out, {"lr": rates}, settings, plan)


def test_the_given_settings_are_tried_first_and_run_to_their_end(tried: list[EndedTrial]) -> None:
    first = tried[0].trial
    assert (first.number, first.point, first.outcome) == (0, {"lr": 3e-3}, "finished")
    assert first.epochs == first.epochs_asked == 4


@pytest.mark.parametrize(("number", "action"), [(0, "CONTINUE"), (3, "STOP")])
def test_of_all_weak_trials_only_the_given_settings_continue(number: int, action: str) -> None:
    halving = Halving.of(Search(grace=1, reduction=4), most_epochs=9)
    last = None
    for name, accuracy in ((1, 0.9), (2, 0.8), (number, 0.1)):
        trial = Trial("trial", config={"trial": name}, stub=True)
        halving.on_trial_add(None, trial)
        result = {"epoch": 1, "epochs": 9, "val_accuracy": accuracy}
        last = halving.on_trial_result(None, trial, result)
    assert last == action


def test_trials_are_compared_at_the_same_fraction_of_their_schedules() -> None:
    """A short trial is ahead at each epoch, and behind at each fraction of its schedule."""
    halving = Halving.of(Search(grace=3, reduction=3), most_epochs=30)
    ends = {}
    for number, epochs, accuracies in ((1, 30, (0.1, 0.3, 0.6)), (2, 10, (0.5, 0.5, 0.5))):
        trial = Trial("trial", config={"trial": number}, stub=True)
        halving.on_trial_add(None, trial)
        for part, accuracy in zip((0.1, 0.3, 0.9), accuracies, strict=True):
            result = {"epoch": int(part * epochs), "epochs": epochs, "val_accuracy": accuracy}
            ends[number, part] = halving.on_trial_result(None, trial, result)
    assert [sorted(rung.values()) for rung in halving.rungs] == [[0.5, 0.6], [0.3, 0.5], [0.1, 0.5]]
    assert ends[2, 0.9] == "STOP"


def test_an_epoch_that_skips_a_rung_is_never_compared_there() -> None:
    """Its accuracy has had more training than those of the trials that reached the rung."""
    halving = Halving.of(Search(grace=3, reduction=3), most_epochs=45)
    trial = Trial("trial", config={"trial": 1}, stub=True)
    halving.on_trial_add(None, trial)
    for epoch, accuracy in enumerate((0.3, 0.6, 0.7, 0.75, 0.8), start=1):
        result = {"epoch": epoch, "epochs": 5, "val_accuracy": accuracy}
        halving.on_trial_result(None, trial, result)
    # Of 5 epochs, the first is as far as 9 of 45, the third as far as 27.
    assert [list(rung.values()) for rung in halving.rungs] == [[0.7], [0.3], []]


def test_an_interrupted_search_keeps_its_rungs() -> None:
    def halving() -> Halving:
        return Halving.of(Search(grace=1, reduction=3), most_epochs=9)

    def seen(by: Halving, number: int, accuracies: list[float]) -> str:
        trial = Trial("trial", config={"trial": number}, stub=True, trial_id=str(number))
        by.on_trial_add(None, trial)
        last = ""
        for epoch, accuracy in enumerate(accuracies, start=1):
            result = {"epoch": epoch, "epochs": 9, "val_accuracy": accuracy}
            last = by.on_trial_result(None, trial, result)
        return last

    whole, before, after = halving(), halving(), halving()
    for one in (whole, before):
        seen(one, 0, [0.1, 0.5, 0.7])
    Rungs(after).set_state(Rungs(before).get_state())
    # Trial 0 resumes; then new trials start, which must be compared with its first epoch.
    again = Trial("trial", config={"trial": 0}, stub=True, trial_id="0")
    after.on_trial_add(None, again)
    for one in (whole, after):
        trial = again if one is after else Trial("trial", config={"trial": 0}, stub=True)
        trial.trial_id = "0"
        one.on_trial_result(None, trial, {"epoch": 4, "epochs": 9, "val_accuracy": 0.8})
    assert whole.rungs == after.rungs == [{}, {"0": 0.7}, {"0": 0.1}]
    assert seen(whole, 1, [0.2]) == seen(after, 1, [0.2]) == "CONTINUE"
    assert seen(whole, 2, [0.05]) == seen(after, 2, [0.05]) == "STOP"


def test_a_failed_trial_is_never_the_best(capsys: pytest.CaptureFixture[str]) -> None:
    trials = [Trial("trial", config={"trial": number}, stub=True) for number in range(2)]
    for trial, accuracy in zip(trials, (0.99, 0.9), strict=True):
        trial.run_metadata.last_result = {"epoch": 4, "epochs": 4}
        trial.run_metadata.metric_analysis = {"val_accuracy": {"max": accuracy}}
    trials[0].set_status("ERROR")
    Watch(2, Console(), lambda done, total: None).on_trial_complete(1, trials, trials[1])
    assert "0.900 (1)" in capsys.readouterr().err
    Watch(2, Console(), lambda done, total: None).tell(trials[:1], trials[0], "failed")
    assert "none" in capsys.readouterr().err


def test_no_point_is_tried_twice(tmp_path: Path) -> None:
    """TPE tends to propose the best point again, which teaches nothing new."""
    ranges: dict[str, Range] = {"a": Choice((1, 2, 3)), "b": Choice(("x", "y"))}
    for algorithm in ("tpe", "random"):
        proposals = Proposals(
            space=study.distributions(ranges),
            metric="val_accuracy",
            mode="max",
            points_to_evaluate=[{"a": 1, "b": "x"}],
            sampler=study.sampler(algorithm, 6, 0),
        )
        points = []
        for number in range(6):
            point = proposals.suggest(str(number))
            assert point is not None
            proposals.on_trial_complete(str(number), {"val_accuracy": 1 / point["a"]})
            points.append((point["a"], point["b"], point["trial"]))
        assert points[0] == (1, "x", 0)
        assert len({point[:2] for point in points}) == 6
        assert [point[2] for point in points] == list(range(6))


def test_a_resumed_search_counts_its_stopped_trials_and_no_failures(
    capsys: pytest.CaptureFixture[str],
) -> None:
    trials = [Trial("trial", config={"trial": number}, stub=True) for number in range(4)]
    ends = [("TERMINATED", 2), ("TERMINATED", 4), ("ERROR", 1), ("RUNNING", 3)]
    for trial, (status, epoch) in zip(trials, ends, strict=True):
        trial.run_metadata.last_result = {"epoch": epoch, "epochs": 4}
        trial.set_status(status)
    Watch(9, Console(), lambda done, total: None).on_trial_complete(1, trials, trials[3])
    assert "0 / 2 / 4" in capsys.readouterr().err  # the first, and the one that has just ended


def test_weak_trials_are_stopped_early_and_all_are_accounted_for(tried: list[EndedTrial]) -> None:
    trials = [one.trial for one in tried]
    assert [trial.number for trial in trials] == list(range(6))
    assert {trial.outcome for trial in trials} == {"finished", "stopped", "failed"}
    assert all((trial.outcome == "finished") == (trial.epochs == 4) for trial in trials)
    assert all(len(trial.history) == trial.epochs for trial in trials)
    assert {trial.point["lr"] for trial in trials if trial.outcome == "stopped"} <= {1e-7, 3e-3}


def test_the_best_epoch_of_a_trial_is_kept(tried: list[EndedTrial]) -> None:
    for one in tried:
        if one.trial.comparable:
            assert one.best().card.trained["val_accuracy"] == one.trial.accuracy
            assert one.trial.accuracy == max(accuracy for _, accuracy in one.trial.history)


def test_retraining_ends_with_the_last_epoch_and_no_accuracy_on_validation(
    dataset: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    impatient = BASE.model_copy(
        update={"training": BASE.training.model_copy(update={"patience": 1, "lr": 1e-9})}
    )
    plan = TuningPlan(concurrent=1, workers=1)
    run = TuneFolder(tmp_path / "run")
    trained = tune_run.retrain(impatient, dataset, run, plan, Console())
    assert trained.best.card.trained["epoch"] == len(trained.history) == 4
    assert all(math.isnan(row["val_accuracy"] + row["val_loss"]) for row in trained.history)
    assert (run.path / "retrained" / CHECKPOINTS).is_dir()
    trained.best.save(run.model)
    assert bundle.load(run.model).card.trained["val_accuracy"] is None
    history.write(run.history, trained.history)
    assert history.read(run.history)["val_accuracy"].isna().all()
    assert f"{'-':>8}  {'-':>7}" in capsys.readouterr().err


def test_a_retrained_model_has_the_confidence_of_the_best_trial(tried: list[EndedTrial]) -> None:
    winner = next(one for one in tried if one.trial.outcome != "failed")
    own = winner.best()
    retrained = Trained(own.with_temperature(3.0), [])
    found = tune_run.calibrated(retrained, winner).best.card.temperature
    assert found == own.card.temperature != 3


def test_a_trial_that_raises_is_listed_with_its_reason_and_others_continue(
    tried: list[EndedTrial],
) -> None:
    for trial in (one.trial for one in tried):
        assert (trial.outcome == "failed") == (trial.point["lr"] == 1e30)
        assert (trial.reason is not None) == (trial.outcome == "failed")
        assert trial.reason is None or trial.reason.startswith("the loss became")


def test_a_trial_has_the_epochs_of_its_checkpoints_if_logs_are_lost(
    tried: list[EndedTrial], dataset: Prepared, tmp_path: Path
) -> None:
    """Tune begins the logs of a trial with workers of its own anew when a search resumes."""
    shutil.copytree(tried[0].folder.parent, tmp_path / "run")
    for number in range(6):
        (folder,) = (tmp_path / "run").glob(f"{number:04d}-*")
        for log, head in (("result.json", 0), ("progress.csv", 1)):
            lines = (folder / log).read_text().splitlines() if (folder / log).is_file() else []
            (folder / log).write_text("\n".join([*lines[:head], *lines[head:][-1:]]) + "\n")
    settings = Search(trials=6, algorithm="random", grace=1, reduction=2)
    plan = TuningPlan(concurrent=2, workers=1)
    again = search(dataset, tmp_path / "run", {"lr": Choice((3e-3, 1e-7, 1e30))}, settings, plan)
    assert [one.trial for one in again] == [one.trial for one in tried]


def test_a_trial_resumes_from_its_last_whole_checkpoint(dataset: Prepared, tmp_path: Path) -> None:
    """A kill may leave half of the last one, and Tune's record may name one that is gone."""
    device = torch.device("cpu")
    for number in range(3):
        state = worker.initial_state(BASE, dataset, device)
        state.history = [ROW | {"epoch": epoch + 1} for epoch in range(number + 1)]
        card = worker.card(BASE, dataset, state.history[-1])
        (tmp_path / f"{TRIAL}{number:06d}").mkdir()
        checkpoint.save(tmp_path / f"{TRIAL}{number:06d}", state, card)
    last = tmp_path / f"{TRIAL}000002" / checkpoint.TRAINING
    last.write_bytes(last.read_bytes()[:1000])
    state = worker.initial_state(BASE, dataset, device)
    assert restore(state, kept(tmp_path, TRIAL)) is None
    assert len(state.history) == 2
    fresh = worker.initial_state(BASE, dataset, device)
    assert restore(fresh, kept(tmp_path / "none", TRIAL)) is None
    assert fresh.history == []


def test_trials_at_once_share_the_threads() -> None:
    plan = TuningPlan(concurrent=4, workers=2)
    assert plan.training_plan.at_once == 1  # also of the retraining, which runs alone
    assert plan.trial_plan.at_once == 4


@pytest.mark.slow
def test_a_trial_of_two_streaming_workers_finishes_and_keeps_its_best(
    dataset: Prepared, tmp_path: Path
) -> None:
    streamed = BASE.model_copy(update={"resources": Resources(memory=0)})
    plan = TuningPlan(concurrent=1, workers=2, streamed=True)
    rates, once = {"lr": LogUniform(1e-3, 1e-2)}, Search(trials=1)
    (found,) = search(dataset, tmp_path / "run", rates, once, plan, streamed)
    assert found.trial.outcome == "finished"
    assert found.best().card.trained["val_accuracy"] == found.trial.accuracy
