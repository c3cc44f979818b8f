"""A search in Optuna's terms: ranges as distributions, trials as a study."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from cnn.settings.ranges import Choice, Integer, LogUniform, Range, varies

Trials = Iterable[tuple[Mapping[str, Any], float]]
"""Points with the accuracy that they reached."""

# Fewer trials show nothing about any dimension, and TPE has nothing to learn from.
FEWEST = 4

# Random points to look at for one that is new: enough to find the last of a hundred.
DRAWS = 500


def distributions(ranges: Mapping[str, Range]) -> dict[str, BaseDistribution]:
    """The ranges as Optuna's distributions."""
    return {name: distribution(limits) for name, limits in ranges.items()}


def distribution(limits: Range) -> BaseDistribution:
    """One range as Optuna's distribution."""
    match limits:
        case Choice(values):
            return CategoricalDistribution(values)
        case Integer(low, high):
            return IntDistribution(low, high)
        case _:
            return FloatDistribution(limits.low, limits.high, log=isinstance(limits, LogUniform))


def unseen(
    space: Mapping[str, BaseDistribution], seen: Collection[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """A random point that is not among those `seen`; None if there seems to be none."""
    optuna_study = optuna.create_study(sampler=RandomSampler(seed=len(seen)))
    for _ in range(DRAWS):
        point = optuna_study.ask(dict(space)).params
        if point not in seen:
            return point
    return None


def sampler(algorithm: str, trials: int, seed: int) -> BaseSampler:
    """The sampler that proposes the next point: `random`, or else TPE.

    TPE: Bergstra et al., "Algorithms for Hyper-Parameter Optimization" (NeurIPS, 2011), after a
    third of the trials at random; `constant_liar`, because trials run in parallel.
    """
    if algorithm == "random":
        return RandomSampler(seed=seed)
    return TPESampler(
        n_startup_trials=max(FEWEST, trials // 3), multivariate=True, constant_liar=True, seed=seed
    )


def importances(ranges: Mapping[str, Range], trials: Trials, seed: int = 0) -> dict[str, float]:
    """How much of the variance between trials each dimension explains, 0..1, the largest first.

    Hutter et al., "An Efficient Approach for Assessing Hyperparameter Importance" (ICML, 2014).
    Empty if there are too few trials, if all were equally good, or if no setting differs.
    """
    trials = list(trials)
    known = distributions({name: limits for name, limits in ranges.items() if varies(limits)})
    if len(trials) < FEWEST or len({accuracy for _, accuracy in trials}) < 2 or not known:
        return {}
    with quiet():
        study = optuna.create_study(direction="maximize")
        for point, accuracy in trials:
            params = {name: point[name] for name in known}
            study.add_trial(optuna.create_trial(params=params, distributions=known, value=accuracy))
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
        try:
            return optuna.importance.get_param_importances(study, evaluator=evaluator)
        except RuntimeError:  # no tree found a difference between two values of a setting
            return {}


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps Optuna from logging that it created a study."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
