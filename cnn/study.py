"""What Optuna makes of a search: ranges as its distributions, trials as its study."""

from collections.abc import Iterable, Mapping
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from cnn.ranges import Choice, Integer, LogUniform, Range

Trials = Iterable[tuple[Mapping[str, Any], float]]
"""Points with the accuracy that they reached."""


def distributions(ranges: Mapping[str, Range]) -> dict[str, BaseDistribution]:
    """The ranges as Optuna writes them."""
    return {name: distribution(limits) for name, limits in ranges.items()}


def distribution(limits: Range) -> BaseDistribution:
    """One range as Optuna writes it."""
    match limits:
        case Choice(values):
            return CategoricalDistribution(values)
        case Integer(low, high):
            return IntDistribution(low, high)
        case _:
            return FloatDistribution(limits.low, limits.high, log=isinstance(limits, LogUniform))


def sampler(algorithm: str, trials: int, seed: int) -> BaseSampler:
    """Who proposes the next point.

    TPE: Bergstra et al., "Algorithms for Hyper-Parameter Optimization" (NeurIPS, 2011), after a
    third of the trials at random; `constant_liar`, because trials run beside one another.
    """
    if algorithm == "random":
        return RandomSampler(seed=seed)
    return TPESampler(
        n_startup_trials=max(4, trials // 3), multivariate=True, constant_liar=True, seed=seed
    )


def importances(ranges: Mapping[str, Range], trials: Trials, seed: int = 0) -> dict[str, float]:
    """How much of the trials' difference each dimension explains, 0..1, the largest first.

    Hutter et al., "An Efficient Approach for Assessing Hyperparameter Importance" (ICML, 2014).
    Empty where there are too few trials to tell, or where all were as good.
    """
    known = distributions({name: r for name, r in ranges.items() if varies(r)})
    study = optuna.create_study(direction="maximize")
    for point, accuracy in trials:
        study.add_trial(
            optuna.create_trial(
                params={name: point[name] for name in known},
                distributions=known,
                value=accuracy,
            )
        )
    values = {trial.value for trial in study.trials}
    if len(study.trials) < 4 or len(values) < 2 or not known:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def varies(limits: Range) -> bool:
    """Whether there is more than one value to take."""
    return len(limits.values) > 1 if isinstance(limits, Choice) else limits.low < limits.high
