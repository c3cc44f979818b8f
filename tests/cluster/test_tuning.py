"""Laws of tuning: the given settings run to their end, and a failing trial fails alone."""

import math
from pathlib import Path

import pytest
from ray.tune.experiment import Trial

from cnn import bundle, study
from cnn.cluster import training, tune_run, tuning
from cnn.cluster.halving import Halving, Rungs
from cnn.cluster.tuning import Proposals, TrialContext, Tried
from cnn.cluster.tuning_plan import TuningPlan
from cnn.cluster.watch import Watch
from cnn.config import Images, Resources, Search, TrainConfig
from cnn.console import Console
from cnn.prepared import Prepared
from cnn.ranges import Choice, LogUniform, Range
from cnn.run_folder import TuneFolder
from cnn.source import list_source
from cnn.space import Space

BASE = TrainConfig.model_validate(
    {
        "images": "digits",
        "data": {"image_size": 16},
        "augmentation": {"rotation": 0, "shift": 0, "zoom": 0, "flip": False},
        "network": {"filters": "8,16", "convolutions": 1},
        "training": {"epochs": 4, "batch_size": 32, "precision": "float32"},
    }
)


def search(
    dataset: Prepared,
    out: Path,
    ranges: dict[str, Range],
    settings: Search,
    plan: TuningPlan,
    base: TrainConfig = BASE,
) -> list[Tried]:
    task = TrialContext(Space(ranges, base), {16: dataset.folder}, plan, out)
    return tuning.search(task, settings, seed=4, console=Console())


@pytest.fixture(scope="module")
def tried(dataset: Prepared, tmp_path_factory: pytest.TempPathFactory) -> list[Tried]:
    """Six trials: rates that learn, that learn nothing, and one whose loss is not a number."""
    rates = Choice((3e-3, 1e-7, 1e30))
    settings = Search(trials=6, algorithm="random", grace=1, reduction=2)
    out, plan = tmp_path_factory.mktemp("search") / "run", TuningPlan(concurrent=2, workers=1)
    return search(dataset, out, {"lr": rates}, settings, plan)


def test_images_are_listed_again_only_for_other_sizes(digits: Path, tmp_path: Path) -> None:
    base = BASE.model_copy(update={"images": str(digits)})
    source = list_source(str(digits), base.data)
    space = Space({"image_size": Choice((16, 24))}, base)
    sources = tune_run.sources_of(source, base, space, TuneFolder(tmp_path / "run"))
    assert sources[16] is source
    other = list_source(str(digits), Images(image_size=24))
    assert (list(sources), sources[24].key) == ([16, 24], other.key)


def test_the_given_settings_are_tried_first_and_run_to_their_end(tried: list[Tried]) -> None:
    first = tried[0].trial
    assert (first.number, first.point, first.outcome) == (0, {"lr": 3e-3}, "finished")
    assert first.epochs == first.epochs_asked == 4


@pytest.mark.parametrize(("number", "action"), [(0, "CONTINUE"), (3, "STOP")])
def test_of_all_weak_trials_only_the_given_settings_continue(number: int, action: str) -> None:
    halving = Halving(time_attr="epoch", metric="val_accuracy", mode="max", max_t=9, grace_period=1)
    last = None
    for name, accuracy in ((1, 0.9), (2, 0.8), (number, 0.1)):
        trial = Trial("trial", config={"trial": name}, stub=True)
        halving.on_trial_add(None, trial)
        last = halving.on_trial_result(None, trial, {"epoch": 1, "val_accuracy": accuracy})
    assert last == action


def test_an_interrupted_search_keeps_its_rungs() -> None:
    def halving() -> Halving:
        return Halving.of(Search(grace=1, reduction=3), most_epochs=9)

    def seen(by: Halving, number: int, accuracies: list[float]) -> str:
        trial = Trial("trial", config={"trial": number}, stub=True, trial_id=str(number))
        by.on_trial_add(None, trial)
        last = ""
        for epoch, accuracy in enumerate(accuracies, start=1):
            last = by.on_trial_result(None, trial, {"epoch": epoch, "val_accuracy": accuracy})
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
        one.on_trial_result(None, trial, {"epoch": 4, "val_accuracy": 0.8})
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


def test_weak_trials_are_stopped_early_and_all_are_accounted_for(tried: list[Tried]) -> None:
    trials = [one.trial for one in tried]
    assert [trial.number for trial in trials] == list(range(6))
    assert {trial.outcome for trial in trials} == {"finished", "stopped", "failed"}
    assert all((trial.outcome == "finished") == (trial.epochs == 4) for trial in trials)
    assert all(len(trial.history) == trial.epochs for trial in trials)
    assert {trial.point["lr"] for trial in trials if trial.outcome == "stopped"} <= {1e-7, 3e-3}


def test_the_best_epoch_of_a_trial_is_kept(tried: list[Tried]) -> None:
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
    assert (run.path / "retrained" / training.CHECKPOINTS).is_dir()
    trained.best.save(run.model)
    assert bundle.load(run.model).card.trained["val_accuracy"] is None
    run.write_history(trained.history)
    assert run.read_history()["val_accuracy"].isna().all()
    assert f"{'-':>8}  {'-':>7}" in capsys.readouterr().err


def test_a_trial_that_raises_is_listed_with_its_reason_and_others_continue(
    tried: list[Tried],
) -> None:
    for trial in (one.trial for one in tried):
        assert (trial.outcome == "failed") == (trial.point["lr"] == 1e30)
        assert (trial.reason is not None) == (trial.outcome == "failed")
        assert trial.reason is None or "the loss became" in trial.reason


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
