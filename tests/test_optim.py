"""Laws of the optimizer: each weight in one group, and a rate that rises, falls and never jumps."""

from typing import Literal, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from torch import nn

from cnn.config import Network, Training
from cnn.network import build
from cnn.optim import learning_rate, optimizer

OPTIMIZERS = get_args(Training.model_fields["optimizer"].annotation)
NORMALISATIONS: tuple[Literal["batch", "none"], ...] = ("batch", "none")
fractions = st.floats(0, 1)
warmups = st.floats(0, 0.95)


def schedule(warmup: float, lr: float = 1.0) -> Training:
    return Training(lr=lr, warmup=warmup)


def small(normalisation: Literal["batch", "none"]) -> nn.Module:
    return build(Network(filters=(3, 4), hidden=5, normalisation=normalisation), 8, 2)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_each_parameter_is_in_one_group_and_only_kernels_and_matrices_decay(
    name: Literal["adamw", "adam", "sgd", "rmsprop"], normalisation: Literal["batch", "none"]
) -> None:
    network = small(normalisation)
    chosen = optimizer(network, Training(optimizer=name, weight_decay=0.3))
    decays = {id(p): g["weight_decay"] for g in chosen.param_groups for p in g["params"]}
    assert sum(len(group["params"]) for group in chosen.param_groups) == len(decays)
    assert len(decays) == len(list(network.parameters()))
    for module in network.modules():
        for part, parameter in module.named_parameters(recurse=False):
            kept = part == "bias" or isinstance(module, nn.BatchNorm2d)
            assert decays[id(parameter)] == (0.0 if kept else 0.3)


def test_with_zero_gradients_only_kernels_and_matrices_shrink() -> None:
    network = small("batch")
    for parameter in network.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    optimizer(network, Training(optimizer="adamw", lr=0.1, weight_decay=0.5)).step()
    for parameter in network.parameters():
        expected = 0.95 if parameter.ndim > 1 else 1.0
        assert torch.allclose(parameter, torch.tensor(expected))


def test_a_frozen_weight_is_in_no_group() -> None:
    network = small("none")
    frozen = next(network.parameters()).requires_grad_(False)
    groups = optimizer(network, Training()).param_groups
    assert all(parameter is not frozen for group in groups for parameter in group["params"])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_reduces_the_loss(
    name: Literal["adamw", "adam", "sgd", "rmsprop"],
) -> None:
    torch.manual_seed(0)
    line = nn.Linear(4, 1)
    chosen = optimizer(line, Training(optimizer=name, lr=0.01, weight_decay=0.0))
    inputs = torch.randn(32, 4)
    losses = []
    for _ in range(100):
        loss = (line(inputs) - inputs.sum(dim=1, keepdim=True)).square().mean()
        chosen.zero_grad()
        loss.backward()
        chosen.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("lr", [1e-3, 0.5])
@pytest.mark.parametrize("warmup", [0.05, 0.5, 0.9])
def test_the_rate_starts_at_zero_peaks_after_warm_up_and_ends_at_zero(
    warmup: float, lr: float
) -> None:
    settings = schedule(warmup, lr)
    assert learning_rate(settings, 0) == 0
    assert learning_rate(settings, warmup / 2) == pytest.approx(lr / 2)
    assert learning_rate(settings, warmup) == pytest.approx(lr)
    assert learning_rate(settings, (1 + warmup) / 2) == pytest.approx(lr / 2)
    assert learning_rate(settings, (1 + 3 * warmup) / 4) == pytest.approx(lr * 3 / 4)
    assert learning_rate(settings, 1) == pytest.approx(0, abs=1e-12)


def test_without_warm_up_the_rate_starts_at_its_peak() -> None:
    assert learning_rate(schedule(0.0, 0.3), 0) == pytest.approx(0.3)
    assert learning_rate(schedule(0.0, 0.3), 1) == pytest.approx(0, abs=1e-12)


@examples(deadline=None)
@given(warmups, fractions, fractions)
def test_the_rate_rises_in_warm_up_and_falls_after_it(
    warmup: float, one: float, other: float
) -> None:
    early, late = sorted((one, other))
    before, after = (learning_rate(schedule(warmup), progress) for progress in (early, late))
    assert 0 <= before <= 1
    if late < warmup:
        assert before <= after
    if early >= warmup:
        assert before >= after


@examples(deadline=None)
@given(warmups, fractions)
def test_the_rate_never_jumps(warmup: float, progress: float) -> None:
    settings, step = schedule(warmup), 1e-6
    steepest = max(1 / max(warmup, step), 1 / (1 - warmup))
    here, there = learning_rate(settings, progress), learning_rate(settings, progress + step)
    assert progress + step > 1 or abs(there - here) <= steepest * step * 1.01
