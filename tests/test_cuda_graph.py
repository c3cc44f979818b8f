"""Laws of CUDA graphs: a replay gives the function's result for the current inputs."""

from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cnn import config, network, optim
from cnn.bundle import Card
from cnn.loop import Loop, State
from cnn.training import checkpoint
from cnn.training.batches import EvaluationBatches, TrainingBatches
from cnn.training.cuda_graph import WARM_UP, Graphed, calls_to_warm_up
from cnn.training.history import Epoch

CPU, GPU = torch.device("cpu"), torch.device("cuda")
OPTIMIZERS = get_args(config.Training.model_fields["optimizer"].annotation)
NETWORK = config.Network(filters=(8, 16), convolutions=2, hidden=8, dropout=0.0)
WARPS = config.Augmentation(rotation=20, shift=0.2, zoom=0.2, flip=True)
CARD = Card(classes=["blue", "green", "red"], image_size=8, fit="squash", network=NETWORK)

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


def colours(device: torch.device) -> tuple[Tensor, Tensor]:
    """Noisy images of 8x8 pixels; the number of the brighter channel is the label."""
    generator, labels = torch.Generator().manual_seed(0), torch.arange(96) % 3
    images = torch.randint(0, 100, (96, 3, 8, 8), dtype=torch.uint8, generator=generator)
    images[torch.arange(96), labels] += 60
    return images.to(device), labels.to(device)


def fresh(settings: config.Training, device: torch.device) -> State:
    torch.manual_seed(0)
    plain = network.build(NETWORK, 8, 3).to(device)
    return State(plain, plain, optim.optimizer(plain, settings), settings.epochs)


def fit(state: State, settings: config.Training, device: torch.device) -> list[Epoch]:
    """Train to the end, six steps an epoch; a GPU replays the last three, or all."""
    images, labels = colours(device)
    train = TrainingBatches(images, labels, batch_size=16, augmentation=WARPS, seed=0)
    Loop(settings, device, seed=0).fit(state, train, EvaluationBatches(images, labels))
    return state.history


def sgd(**values: object) -> config.Training:
    """Settings that do not amplify rounding; Adam does, by making all first steps equally large."""
    given = {"epochs": 5, "optimizer": "sgd", "lr": 0.02, "precision": "float32"}
    return config.Training.model_validate(given | values)


def test_on_a_cpu_the_function_is_simply_called() -> None:
    calls: list[Tensor] = []
    graphed = Graphed(lambda x: calls.append(x) or x + 1, CPU)
    inputs = [torch.tensor(float(number)) for number in range(WARM_UP + 3)]
    assert [graphed(x).item() for x in inputs] == [x.item() + 1 for x in inputs]
    assert calls == inputs
    assert calls_to_warm_up(CPU) == 1


@on_a_gpu
def test_each_call_uses_its_own_inputs() -> None:
    calls = []
    graphed = Graphed(lambda x, y: calls.append(0) or x * 2 + y, GPU)
    for number in range(WARM_UP + 5):
        x = torch.full((3,), float(number), device=GPU)
        assert graphed(x, x + 1).tolist() == [3 * number + 1] * 3
    assert len(calls) == calls_to_warm_up(GPU) == WARM_UP + 1


@on_a_gpu
def test_dropout_differs_in_each_replay_and_follows_the_seed() -> None:
    graphed = Graphed(lambda x: functional.dropout(x, 0.5), GPU)
    ones = torch.ones(1000, device=GPU)
    seen = [graphed(ones).clone() for _ in range(WARM_UP + 4)]
    assert not any(torch.equal(one, other) for one, other in pairwise(seen))
    assert all(700 < one.sum() < 1300 for one in seen)
    torch.manual_seed(5)
    first = graphed(ones).clone()
    torch.manual_seed(5)
    assert torch.equal(graphed(ones), first)


@on_a_gpu
@pytest.mark.parametrize("growing", [0.0, 0.9])
def test_training_on_a_gpu_gives_the_losses_of_a_cpu(growing: float) -> None:
    settings = sgd(growing=growing)
    ones, others = (fit(fresh(settings, device), settings, device) for device in (CPU, GPU))
    assert len(ones) == settings.epochs
    for one, other in zip(ones, others, strict=True):
        assert other["train_loss"] == pytest.approx(one["train_loss"], rel=0.02)
        assert other["val_loss"] == pytest.approx(one["val_loss"], rel=0.02)
        assert other["side"] == one["side"]


@on_a_gpu
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_learns_on_a_gpu(name: str) -> None:
    plain = {"cutmix": 0.0, "label_smoothing": 0.0, "precision": "auto"}
    settings = sgd(optimizer=name, lr=0.003, epochs=16, **plain)
    history = fit(fresh(settings, GPU), settings, GPU)
    assert history[-1]["val_loss"] < 0.5 * history[0]["val_loss"]


@on_a_gpu
@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "mobilenet_v3_small", "swin_t"])
def test_torchvision_networks_can_be_captured(name: str) -> None:
    settings = config.Training(batch_size=16, cutmix=0.0, clip=10.0)
    torch.manual_seed(0)
    built = network.build(config.Network(network=name), 64, 3).to(GPU).train()
    state = State(built, built, optim.optimizer(built, settings), 1)
    loop, images = Loop(settings, GPU, seed=0), torch.rand(16, 3, 64, 64, device=GPU) * 99
    labels = torch.arange(16, device=GPU) % 3
    images[range(16), labels] += 99
    losses = []
    for _ in range(WARM_UP + 20):
        # After the loop: the weights before its last step.
        weights = [p.detach().clone() for p in built.parameters()]
        logits = loop.step(state, images.byte(), labels, 1e-4)
        losses.append(functional.cross_entropy(logits, labels).item())
    assert min(losses[-5:]) < 0.5 * losses[0]
    pairs = zip(weights, built.parameters(), strict=True)
    assert all(not torch.equal(before, after) for before, after in pairs)


@on_a_gpu
@pytest.mark.parametrize("first", [CPU, GPU])
def test_a_gpu_run_resumes_from_a_checkpoint_of_either_device(
    first: torch.device, tmp_path: Path
) -> None:
    settings = sgd(epochs=4)
    whole = fit(fresh(settings, GPU), settings, GPU)
    cut = fresh(settings, first)
    images, labels = colours(first)
    train = TrainingBatches(images, labels, batch_size=16, augmentation=WARPS, seed=0)
    validation = EvaluationBatches(images, labels)
    for _ in range(2):
        cut.history.append(Loop(settings, first, seed=0).run_epoch(cut, train, validation))
    checkpoint.save(tmp_path, cut, CARD)
    resumed = fresh(settings, GPU)
    checkpoint.load(tmp_path, resumed)
    assert fit(resumed, settings, GPU)[-1]["val_loss"] == pytest.approx(
        whole[-1]["val_loss"], rel=0.05
    )


@on_a_gpu
def test_a_captured_step_uses_the_current_learning_rate() -> None:
    line = nn.Linear(4, 1, bias=False).to(GPU)
    settings = sgd(weight_decay=0.0)
    chosen = optim.optimizer(line, settings)

    def step(x: Tensor) -> Tensor:
        chosen.zero_grad(set_to_none=True)
        loss = line(x).sum()
        loss.backward()
        chosen.step()
        return loss.detach()

    graphed = Graphed(step, GPU)
    for _ in range(WARM_UP + 1):
        graphed(torch.ones(2, 4, device=GPU))
    optim.set_rate(chosen, 0.0)
    before = line.weight.detach().clone()
    graphed(torch.ones(2, 4, device=GPU))
    assert torch.equal(line.weight, before)
    optim.set_rate(chosen, 0.1)
    graphed(torch.ones(2, 4, device=GPU))
    assert not torch.equal(line.weight, before)
