"""Laws of the study: Optuna accepts every range, is repeatable, and finds what matters."""

import random

import optuna
import pytest

from cnn.config import TrainConfig
from cnn.search import study
from cnn.search.space import default_space
from cnn.settings.ranges import Choice, Integer, LogUniform, Range, Uniform, Value

RANGES: dict[str, Range] = {
    "optimizer": Choice(("adamw", "sgd", None)),
    "lr": LogUniform(1e-4, 1e-1),
    "dropout": Uniform(0.0, 0.5),
    "convolutions": Integer(1, 4),
    "width": Choice((16,)),  # nothing to choose
}
POINTS = 16


def proposals(algorithm: str, seed: int) -> list[dict[str, Value]]:
    """What a study proposes if the accuracy is the dropout."""
    known = study.distributions(RANGES)
    asked = optuna.create_study(
        direction="maximize", sampler=study.sampler(algorithm, trials=POINTS, seed=seed)
    )
    for _ in range(POINTS):
        trial = asked.ask(known)
        asked.tell(trial, trial.params["dropout"])
    return [trial.params for trial in asked.trials]


def trials(matters: str, count: int = 40) -> list[tuple[dict[str, Value], float]]:
    """Random points whose accuracy depends on one dimension alone."""
    dice = random.Random(0)
    points: list[dict[str, Value]] = [
        {
            "optimizer": dice.choice(["adamw", "sgd", None]),
            "lr": 10 ** dice.uniform(-4, -1),
            "dropout": dice.uniform(0, 0.5),
            "convolutions": dice.randint(1, 4),
            "width": 16,
        }
        for _ in range(count)
    ]
    return [(point, accuracy_of(point[matters])) for point in points]


def accuracy_of(value: Value) -> float:
    """The accuracy from 0 to 1 for this value."""
    if isinstance(value, int | float):
        return value / (1 + value)
    return {"adamw": 0.9, "sgd": 0.5, None: 0.1}[value]


@pytest.mark.parametrize("algorithm", ["tpe", "random"])
def test_equal_seeds_propose_equal_points_and_different_seeds_do_not(algorithm: str) -> None:
    assert proposals(algorithm, seed=1) == proposals(algorithm, seed=1)
    assert proposals(algorithm, seed=1) != proposals(algorithm, seed=2)


def test_tpe_learns_from_the_trials_and_random_does_not() -> None:
    def late(algorithm: str) -> float:
        found = [point["dropout"] for seed in range(3) for point in proposals(algorithm, seed)[8:]]
        return sum(value for value in found if isinstance(value, float)) / len(found)

    assert late("tpe") > late("random")
    assert len({str(point) for point in proposals("tpe", seed=0)}) == POINTS


def test_proposals_stay_in_their_ranges_and_keep_their_types() -> None:
    for point in proposals("tpe", seed=0):
        assert point["optimizer"] in ("adamw", "sgd", None)
        assert isinstance(point["convolutions"], int) and 1 <= point["convolutions"] <= 4
        assert isinstance(point["lr"], float) and 1e-4 <= point["lr"] <= 1e-1
        assert point["width"] == 16


def test_a_loguniform_range_is_sampled_on_a_log_scale() -> None:
    rates = [point["lr"] for seed in range(8) for point in proposals("random", seed)]
    below = sum(isinstance(rate, float) and rate < 10**-2.5 for rate in rates)
    assert 0.3 < below / len(rates) < 0.7


@pytest.mark.parametrize("matters", ["optimizer", "lr", "dropout", "convolutions"])
def test_the_one_dimension_that_matters_comes_first(matters: str) -> None:
    found = study.importances(RANGES, trials(matters))
    assert next(iter(found)) == matters
    assert found[matters] > 0.8
    assert sum(found.values()) == pytest.approx(1)
    assert found.keys() == RANGES.keys() - {"width"}
    assert found == study.importances(RANGES, iter(trials(matters)))


def test_too_few_equal_or_repeated_trials_give_no_importances() -> None:
    assert study.importances(RANGES, []) == {}
    assert study.importances(RANGES, trials("lr", count=study.FEWEST - 1)) == {}
    assert study.importances(RANGES, [(point, 0.5) for point, _ in trials("lr")]) == {}
    assert study.importances({"width": Choice((16,))}, trials("lr")) == {}
    again = [({"batch_size": 64}, accuracy) for accuracy in (0.80, 0.81, 0.80, 0.79)]
    assert study.importances({"batch_size": Choice((64, 8192))}, again) == {}
    assert study.importances(RANGES, trials("lr", count=study.FEWEST)) != {}


def test_computing_importances_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()
    study.importances(RANGES, trials("lr"))
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == before


def test_optuna_accepts_the_start_of_a_search() -> None:
    space = default_space(TrainConfig())
    known = study.distributions(space.ranges)
    trial = optuna.create_trial(params=space.start, distributions=known, value=0.5)
    assert trial.params == space.start
