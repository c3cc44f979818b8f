"""The law of data-parallel training: two workers do together what one does alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn

from cnn import optim
from cnn.config import Augmentation, Training
from cnn.loop import Loop, State
from cnn.network import Scale
from cnn.training.batches import EvaluationBatches, Share, TrainingBatches
from cnn.training.history import Epoch

OFF = Augmentation(rotation=0, shift=0, zoom=0, flip=False, vertical_flip=False)
SETTINGS = Training(
    epochs=2,
    batch_size=8,
    optimizer="sgd",  # Adam would amplify rounding: it divides by the gradient's size
    lr=0.05,
    weight_decay=0.01,
    warmup=0.0,
    clip=0.5,
    label_smoothing=0.1,
    cutmix=0.0,  # each worker would mix only its own images
    max_minutes=60,
    precision="float32",
)
WEIGHTS = torch.tensor([0.5, 1.0, 1.5])


def tiny(normalised: bool) -> nn.Module:
    torch.manual_seed(0)
    middle = nn.BatchNorm2d(4) if normalised else nn.Identity()
    network = nn.Sequential()
    network.add_module("scale", Scale(image_size=8, smallest=8))
    body = nn.Conv2d(3, 4, 3, padding=1), middle, nn.ReLU(), nn.Flatten(), nn.Linear(256, 3)
    network.add_module("body", nn.Sequential(*body))
    return network


def images_and_labels(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, 3, (count,), generator=generator)


def run(share: Share, normalised: bool) -> tuple[dict[str, Tensor], list[Epoch]]:
    """One worker's weights and history after two epochs of two steps."""
    plain = tiny(normalised)
    parallel: nn.Module = plain
    if distributed.is_initialized():
        parallel = nn.parallel.DistributedDataParallel(plain)
    state = State(plain, parallel, optim.optimizer(plain, SETTINGS), SETTINGS.epochs)
    train = TrainingBatches(
        *images_and_labels(16), batch_size=8, augmentation=OFF, seed=0, share=share
    )
    # An odd number: the workers evaluate 4 and 3.
    validation = EvaluationBatches(*images_and_labels(7), share)
    Loop(SETTINGS, torch.device("cpu"), 0, share, WEIGHTS).fit(state, train, validation)
    return plain.state_dict(), state.history


def epochs_by_own_clock(rank: int) -> int:
    """How many epochs a worker plans if its clock measured another pace than its peer's."""
    settings = SETTINGS.model_copy(update={"epochs": 1000, "max_minutes": 1.0})
    plain = tiny(normalised=False)
    state = State(plain, plain, optim.optimizer(plain, settings), settings.epochs)
    state.history = [
        Epoch(
            epoch=1,
            train_loss=1.0,
            train_accuracy=0.5,
            val_loss=1.0,
            val_accuracy=0.5,
            temperature=1.0,
            side=8,
            lr=0.1,
            seconds=7.0 + 13.0 * rank,
            images_per_second=1.0,
            data_wait=0.0,
        )
    ]
    return Loop(settings, torch.device("cpu"), 0).epochs_that_fit(state)


def work(rank: int, folder: Path) -> None:
    """One of two workers: saves its results in its own file."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/meet", world_size=2, rank=rank)
    share = Share(rank, 2)
    found = {
        "plain": run(share, normalised=False),
        "normalised": run(share, normalised=True),
        "epochs": epochs_by_own_clock(rank),
    }
    torch.save(found, folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The results of two real worker processes."""
    folder = tmp_path_factory.mktemp("workers")
    multiprocessing.spawn(work, args=(folder,), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def figures(history: list[Epoch], names: Callable[[str], bool]) -> list[float]:
    found = [value for row in history for name, value in row.items() if names(name)]
    assert found
    return found  # type: ignore[return-value]


def measured(name: str) -> bool:
    return name.endswith(("loss", "accuracy", "temperature", "lr"))


def test_two_workers_reach_the_same_weights_as_one(workers: list[dict[str, Any]]) -> None:
    alone, _ = run(Share(), normalised=False)
    untrained = dict(tiny(normalised=False).named_parameters())
    for found in workers:
        together, _ = found["plain"]
        assert together.keys() == alone.keys()
        for name in untrained:
            value = alone[name]
            assert torch.allclose(together[name], value, atol=1e-5)
            assert not torch.allclose(untrained[name], value, atol=1e-3)


def test_two_workers_report_the_sums_of_all_images(workers: list[dict[str, Any]]) -> None:
    _, alone = run(Share(), normalised=False)
    for found in workers:
        _, together = found["plain"]
        assert figures(together, measured) == pytest.approx(figures(alone, measured), abs=1e-5)


def test_workers_agree_bit_for_bit_also_on_batch_norm_statistics(
    workers: list[dict[str, Any]],
) -> None:
    (one, one_history), (other, other_history) = (found["normalised"] for found in workers)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert figures(one_history, measured) == figures(other_history, measured)


def test_workers_with_different_clocks_plan_by_the_clock_of_rank_0(
    workers: list[dict[str, Any]],
) -> None:
    assert [found["epochs"] for found in workers] == [1 + (60 - 7) // 7] * 2
