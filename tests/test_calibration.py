"""Laws of calibration: the temperature makes confidence what accuracy is, and changes no answer."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from cnn import config, network
from cnn.bundle import Bundle, Card
from cnn.training.calibration import TEMPERATURES, best_temperature, losses, zero

CPU = torch.device("cpu")


def answers(images: int, temperature: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits, and labels drawn with the probabilities that they have at this temperature."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(images, 10, generator=generator)
    chances = (logits / temperature).softmax(dim=1)
    return logits, torch.multinomial(chances, 1, generator=generator)[:, 0]


def calibrated(logits: Tensor, labels: Tensor) -> Tensor:
    """Probabilities at the temperature that suits these labels best."""
    best = best_temperature(losses(logits, labels), len(labels))
    return (logits / best).softmax(dim=1)


@pytest.mark.parametrize("temperature", TEMPERATURES[6:27:5])
def test_the_temperature_by_which_labels_were_drawn_is_found(temperature: float) -> None:
    logits, labels = answers(20_000, temperature)
    found = best_temperature(losses(logits, labels), len(labels))
    assert abs(TEMPERATURES.index(found) - TEMPERATURES.index(temperature)) <= 1


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_confidence_is_then_the_accuracy(temperature: float) -> None:
    logits, labels = answers(20_000, temperature)
    accuracy = (logits.argmax(dim=1) == labels).float().mean()
    assert (logits.softmax(dim=1).amax(dim=1).mean() - accuracy).abs() > 0.1
    assert (calibrated(logits, labels).amax(dim=1).mean() - accuracy).abs() < 0.02


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=5), st.integers(0, 99))
def test_the_sums_of_batches_add_up_to_those_of_their_union(sizes: list[int], seed: int) -> None:
    logits, labels = answers(1 + sum(sizes), 1.0, seed)
    parts = zip(logits.split([1, *sizes]), labels.split([1, *sizes]), strict=True)
    added = sum((losses(*part) for part in parts), start=zero(CPU))
    assert torch.allclose(added, losses(logits, labels), rtol=1e-4)


def test_the_sums_at_temperature_1_are_cross_entropies() -> None:
    logits, labels = answers(50, 1.0)
    own, alike = losses(logits, labels)[:, TEMPERATURES.index(1.0)]
    assert own == pytest.approx(functional.cross_entropy(logits, labels, reduction="sum").item())
    even = torch.full_like(logits, 0.1)
    assert alike == pytest.approx(functional.cross_entropy(logits, even, reduction="sum").item())


@pytest.mark.parametrize("images", [3, 10, 100, 1000])
def test_images_that_are_all_recognised_do_not_make_it_certain(images: int) -> None:
    labels = torch.arange(images) % 10
    logits = 4 * functional.one_hot(labels, 10).float()
    confidence = calibrated(logits, labels).amax(dim=1).mean().item()
    assert 0.8 * images / (images + 2) < confidence < 1 - 0.5 / (images + 2)


def test_a_temperature_changes_confidence_and_no_answer() -> None:
    small = config.Network(filters=(4,))
    card = Card(
        classes=["a", "b", "c"], image_size=8, fit="squash", network=small, test_time_flip=True
    )
    torch.manual_seed(0)
    plain = Bundle(card, network.build(small, 8, 3))
    images = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8)
    before, after = plain.predict(images), plain.with_temperature(0.5).predict(images)
    assert torch.allclose(after.sum(dim=1), torch.ones(40))
    assert (after.amax(dim=1) > before.amax(dim=1)).all()
    assert torch.equal(after.argmax(dim=1), before.argmax(dim=1))
