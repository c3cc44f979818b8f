"""Accuracy and CPU-seconds on a labelled folder: other libraries at their defaults, and this one.

    uv venv peers && uv pip install --python peers torch torchvision timm fastai ultralytics
    peers/bin/python tests/benchmarks/peers.py timm IMAGES --epochs 2 [--image-size 64] [--seed 0]
    uv run python -m tests.benchmarks.peers cnn IMAGES --epochs 3 [--seed 0]

IMAGES holds `train` and `test`. The others run in their own environment, on one thread, from random
weights, with their own schedule fitted to the epochs: choose as many epochs as take the CPU-seconds
of the other side. They train on all of `train`; this project keeps a tenth of it back to choose its
epoch, and its CPU-seconds include all of Ray.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Task:
    """The task that every library gets."""

    images: Path
    epochs: int
    image_size: int
    seed: int


@dataclass(frozen=True)
class Outcome:
    """Accuracy on the test split, and all CPU-seconds that it took."""

    accuracy: float
    cpu_seconds: float


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("who", choices=sorted(WAYS))
    parser.add_argument("images", type=Path)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    task = Task(asked.images.resolve(), asked.epochs, asked.image_size, asked.seed)
    outcome = WAYS[asked.who](task)
    print(
        f"{asked.who:12} seed {task.seed}, {task.epochs} epochs at {task.image_size} px: "
        f"accuracy {outcome.accuracy:.3f} for {outcome.cpu_seconds:.0f} CPU-s"
    )


def cnn(task: Task) -> Outcome:
    """This project, as a user starts it."""
    from tests.benchmarks.processes import measure

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        options: dict[str, object] = {
            "--epochs": task.epochs,
            "--image-size": task.image_size,
            "--seed": task.seed,
            "--out": run,
        }
        flags = [part for option in options.items() for part in option]
        used = measure("-m", "jobs.train", task.images, *flags)
        evaluation = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    return Outcome(evaluation["accuracy"], used.cpu_seconds)


def alone(train: Callable[[Task], float]) -> Callable[[Task], Outcome]:
    """Another library, which trains in this process on one thread."""

    def way(task: Task) -> Outcome:
        torch.set_num_threads(1)
        torch.manual_seed(task.seed)
        accuracy = train(task)
        return Outcome(accuracy, time.process_time())

    return way


def torchvision(task: Task) -> float:
    """ResNet-18 by the reference script's defaults: SGD 0.1, batches of 32, rate / 10 per third."""
    from torchvision import models, transforms
    from torchvision.datasets import ImageFolder

    size = task.image_size
    as_tensor = [
        transforms.PILToTensor(),
        transforms.ConvertImageDtype(torch.float32),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
    crop = [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip()]
    centre = [transforms.Resize(size * 256 // 224), transforms.CenterCrop(size)]
    train = ImageFolder(str(task.images / "train"), transforms.Compose([*crop, *as_tensor]))
    test = ImageFolder(str(task.images / "test"), transforms.Compose([*centre, *as_tensor]))
    model = models.resnet18(num_classes=len(train.classes))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    # The script divides the rate by ten after 30 and 60 of its 90 epochs.
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, max(1, task.epochs // 3), gamma=0.1)
    batches = torch.utils.data.DataLoader(train, batch_size=32, shuffle=True)
    for _ in range(task.epochs):
        train_epoch(model, batches, nn.CrossEntropyLoss(), optimizer)
        schedule.step()
    return accuracy(model, torch.utils.data.DataLoader(test, batch_size=32))


def timm(task: Task) -> float:
    """ResNet-18 by the training script's defaults: SGD 0.05, batches of 128, cosine, smoothing."""
    from timm import create_model
    from timm.data import create_transform, resolve_data_config
    from timm.optim import create_optimizer_v2
    from timm.scheduler import CosineLRScheduler
    from torchvision.datasets import ImageFolder

    model = create_model("resnet18", num_classes=len(list((task.images / "train").iterdir())))
    config = resolve_data_config({"input_size": (3, task.image_size, task.image_size)}, model=model)
    changed = create_transform(**config, is_training=True, color_jitter=0.4)
    train = ImageFolder(str(task.images / "train"), changed)
    test = ImageFolder(str(task.images / "test"), create_transform(**config))
    optimizer = create_optimizer_v2(model, "sgd", lr=0.05, weight_decay=2e-5, momentum=0.9)
    # The script warms up for 5 of its 300 epochs; with so few epochs, for one.
    schedule = CosineLRScheduler(
        optimizer, t_initial=task.epochs, warmup_t=1, warmup_lr_init=1e-5, warmup_prefix=False
    )
    batches = torch.utils.data.DataLoader(train, batch_size=128, shuffle=True, drop_last=True)
    for epoch in range(task.epochs):
        schedule.step(epoch)
        train_epoch(model, batches, nn.CrossEntropyLoss(label_smoothing=0.1), optimizer)
    return accuracy(model, torch.utils.data.DataLoader(test, batch_size=128))


def fastai(task: Task) -> float:
    """ResNet-18 as in the tutorials: one cycle, batches of 64, `aug_transforms`."""
    from fastai.vision import all as fast

    data = fast.ImageDataLoaders.from_folder(
        task.images,
        train="train",
        valid="test",
        seed=task.seed,
        item_tfms=fast.Resize(task.image_size),
        batch_tfms=fast.aug_transforms(),
        num_workers=0,
        device=torch.device("cpu"),
    )
    learner = fast.vision_learner(data, fast.resnet18, pretrained=False, metrics=fast.accuracy)
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(task.epochs)
        return float(learner.validate()[1])


def ultralytics(task: Task) -> float:
    """The smallest classifier at its defaults; the best epoch on the test images counts."""
    from ultralytics import YOLO

    with tempfile.TemporaryDirectory() as folder:
        model = YOLO("yolo26n-cls.yaml")
        found: Any = model.train(
            data=str(task.images),
            epochs=task.epochs,
            imgsz=task.image_size,
            seed=task.seed,
            pretrained=False,
            device="cpu",
            workers=0,
            plots=False,
            verbose=False,
            project=folder,
        )
    return float(found.top1)


def train_epoch(
    model: nn.Module, batches: Iterable[Any], loss: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """One plain pass over the batches."""
    model.train()
    for images, labels in batches:
        optimizer.zero_grad()
        loss(model(images), labels).backward()
        optimizer.step()


@torch.inference_mode()
def accuracy(model: nn.Module, batches: Iterable[Any]) -> float:
    model.eval()
    right = [model(images).argmax(dim=1) == labels for images, labels in batches]
    return torch.cat(right).float().mean().item()


WAYS: dict[str, Callable[[Task], Outcome]] = {
    "cnn": cnn,
    "torchvision": alone(torchvision),
    "timm": alone(timm),
    "fastai": alone(fastai),
    "ultralytics": alone(ultralytics),
}


if __name__ == "__main__":
    main()
