"""Laws of bundles and checkpoints: what is loaded is what was saved, or one line says why not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cnn import bundle, config, network, optim
from cnn.bundle import CARD, WEIGHTS, Bundle, BundleError, Card, as_batch
from cnn.errors import UserError
from cnn.loop import State
from cnn.training import checkpoint
from cnn.training.history import Epoch

CLASSES = ["NA", "01", "Zürich / 猫"]
NETWORK = config.Network(
    network="cnn",
    filters=(4, 6),
    convolutions=2,
    residual=True,
    kernel_size=3,
    hidden=8,
    dropout=0.4,
    normalisation="batch",
)
CHOSEN = Card(
    classes=CLASSES,
    image_size=8,
    fit="crop",
    network=NETWORK,
    temperature=0.7,
    trained={"seed": 3, "val_accuracy": 0.5},
)


def photos(count: int, size: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def used(card: Card = CHOSEN, seed: int = 0) -> Bundle:
    """A bundle whose batch norms have seen images."""
    torch.manual_seed(seed)
    built = network.build(card.network, card.image_size, len(card.classes))
    built.train()(photos(16, card.image_size))
    return Bundle(card, built)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved bundle."""
    used().save(tmp_path / "model")
    return tmp_path / "model"


def test_a_loaded_bundle_predicts_the_same_as_the_saved_one(tmp_path: Path) -> None:
    saved, images = used(), photos(6)
    saved.save(tmp_path / "deep" / "model")
    loaded = bundle.load(tmp_path / "deep" / "model")
    assert torch.equal(loaded.predict(images), saved.predict(images))
    assert loaded.card == CHOSEN
    assert loaded.card.classes == CLASSES


def test_a_bundle_trained_on_warped_images_blurs_its_input(tmp_path: Path) -> None:
    saved, images = used(CHOSEN.model_copy(update={"blur": True})), photos(6)
    sharp = saved.predict(images)
    network.scale_of(saved.network).blur = True
    saved.save(tmp_path)
    blurred = bundle.load(tmp_path).predict(images)
    assert torch.equal(blurred, saved.predict(images))
    assert not torch.equal(blurred, sharp)


def test_saving_leaves_the_network_unchanged(tmp_path: Path) -> None:
    saved = used()
    saved.save(tmp_path)
    kernels = [p for p in saved.network.parameters() if p.ndim == 4]
    assert kernels and all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)
    assert saved.network.training


def test_a_later_bundle_replaces_an_earlier_one(folder: Path) -> None:
    later = used(CHOSEN.model_copy(update={"trained": {"seed": 4}}), seed=9)
    later.save(folder)
    loaded = bundle.load(folder)
    assert loaded.card == later.card
    assert torch.equal(loaded.predict(photos(3)), later.predict(photos(3)))


def test_a_run_folder_is_loaded_as_the_bundle_in_it(folder: Path) -> None:
    images = photos(3)
    inside, outside = (bundle.load(bundle.find(place)) for place in (folder, folder.parent))
    assert outside.card == inside.card
    assert torch.equal(outside.predict(images), inside.predict(images))


def test_a_bundle_is_two_files_and_neither_is_a_pickle(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted([CARD, WEIGHTS])
    json.loads((folder / CARD).read_text(encoding="utf-8"))
    load_file(folder / WEIGHTS)


def test_probabilities_are_positive_and_sum_to_one() -> None:
    probabilities = used().predict(photos(20))
    assert probabilities.shape == (20, 3)
    assert probabilities.dtype == torch.float32
    assert (probabilities >= 0).all()
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(20), atol=1e-6)


def test_predictions_are_deterministic_even_if_the_network_is_in_training_mode() -> None:
    chosen, images = used(), photos(4)
    first = chosen.predict(images)
    chosen.network.train()
    assert torch.equal(chosen.predict(images), first)


def test_test_time_flip_gives_the_mean_of_an_image_and_its_mirror_image() -> None:
    images = photos(6)
    mirrored = images.flip(dims=(3,))
    card = CHOSEN.model_copy(update={"temperature": 1.0})
    plain, flipping = used(card), used(card.model_copy(update={"test_time_flip": True}))
    both, one, other = flipping.predict(images), plain.predict(images), plain.predict(mirrored)
    assert torch.allclose(flipping.predict(mirrored), both, atol=1e-6)
    assert torch.allclose(both, (one + other) / 2, atol=1e-6)
    assert not torch.allclose(one, other, atol=1e-3)
    assert torch.equal(flipping.with_test_time_flip(False).predict(images), one)
    assert torch.equal(flipping.with_test_time_flip(None).predict(images), both)


def rewrite(folder: Path, **changes: Any) -> None:
    """Change fields of the card; None removes a field."""
    card = json.loads((folder / CARD).read_text()) | changes
    kept = {name: value for name, value in card.items() if value is not None}
    (folder / CARD).write_text(json.dumps(kept))


def cut(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])


def drop_a_weight(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    weights.pop(next(name for name in weights if name.endswith("running_mean")))
    save_file(weights, folder / WEIGHTS)


Damage = Callable[[Path], object]
DAMAGES: list[tuple[str, Damage, str]] = [
    ("gone", shutil.rmtree, "is not a bundle"),
    ("no card", lambda folder: (folder / CARD).unlink(), "is not a bundle"),
    ("no weights", lambda folder: (folder / WEIGHTS).unlink(), WEIGHTS),
    ("empty weights", lambda folder: cut(folder / WEIGHTS, 0), "damaged"),
    ("weights cut in the header", lambda folder: cut(folder / WEIGHTS, 100), "damaged"),
    ("weights cut in a tensor", lambda folder: cut(folder / WEIGHTS, 4000), "damaged"),
    ("weights of something else", drop_a_weight, "do not fit.*running_mean"),
    ("later format", lambda folder: rewrite(folder, format_version=4), "version 4"),
    ("no format", lambda folder: rewrite(folder, format_version=None), "version"),
    ("a class too many", lambda folder: rewrite(folder, classes=list("abcd")), "do not fit.*head"),
    ("a class too few", lambda folder: rewrite(folder, classes=list("ab")), "do not fit.*head"),
    ("one class", lambda folder: rewrite(folder, classes=["a"]), "classes"),
    ("no classes", lambda folder: rewrite(folder, classes=None), "classes"),
    ("no image size", lambda folder: rewrite(folder, image_size=None), "image_size"),
    ("tiny side", lambda folder: rewrite(folder, input_side=1), "side 1"),
    ("tiny image size", lambda folder: rewrite(folder, image_size=2), "stages"),
    ("unknown fit", lambda folder: rewrite(folder, fit="stretch"), "fit"),
    ("unknown field", lambda folder: rewrite(folder, colour="red"), "colour"),
    ("unknown network", lambda folder: rewrite(folder, network={"network": "resnet81"}), "named"),
    ("even kernel", lambda folder: rewrite(folder, network={"kernel_size": 4}), "kernel_size"),
    ("card cut", lambda folder: cut(folder / CARD, 50), "JSON"),
    ("empty card", lambda folder: cut(folder / CARD, 0), "JSON"),
    ("card a list", lambda folder: (folder / CARD).write_text("[1]"), "holds no JSON object"),
    ("card a number", lambda folder: (folder / CARD).write_text("1"), "holds no JSON object"),
    ("card not text", lambda folder: (folder / CARD).write_bytes(b"\xff\xfe{"), "JSON"),
]


@pytest.mark.parametrize(
    ("damage", "message"), [row[1:] for row in DAMAGES], ids=[row[0] for row in DAMAGES]
)
def test_a_damaged_bundle_gives_a_one_line_error_that_names_the_folder(
    folder: Path, damage: Damage, message: str
) -> None:
    damage(folder)
    with pytest.raises(BundleError, match=message) as error:
        bundle.load(folder)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_card_of_format_2_is_read(folder: Path) -> None:
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    for name in ("input_side", "blur", "test_time_flip", "temperature"):
        del card[name]
    older = card | {"format_version": 2, "side": 4, "soft": True, "flip": True}
    (folder / CARD).write_text(json.dumps(older), encoding="utf-8")
    read = bundle.read_card(folder)
    assert (read.input_side, read.blur, read.test_time_flip) == (4, True, True)
    assert read.temperature == 1.0


def test_a_file_is_not_a_bundle(folder: Path) -> None:
    with pytest.raises(BundleError, match="is not a bundle"):
        bundle.load(folder / WEIGHTS)


def test_a_fine_tuned_bundle_loads_without_its_pretrained_weights_file(tmp_path: Path) -> None:
    name, start = "shufflenet_v2_x0_5", tmp_path / "start.safetensors"
    save_file(torchvision.models.get_model(name).state_dict(), start)
    tuned = config.Network(network=name, weights=str(start))
    saved, images = (
        used(CHOSEN.model_copy(update={"image_size": 32, "network": tuned})),
        photos(2, 32),
    )
    saved.save(tmp_path / "model")
    start.unlink()
    loaded = bundle.load(tmp_path / "model")
    assert torch.equal(loaded.predict(images), saved.predict(images))


def test_a_batch_is_a_channels_last_view_of_the_same_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    batch = as_batch(images)
    assert batch.shape == (2, 3, 4, 5)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert batch[1, 2, 3, 4] == images[1, 3, 4, 2]
    assert batch.data_ptr() == images.ctypes.data


TRAINING = config.Training(optimizer="sgd", lr=0.05, weight_decay=0.01)


def state_of(plain: nn.Module, epochs: int) -> State:
    return State(plain, plain, optim.optimizer(plain, TRAINING), epochs)


def stepped(state: State, seed: int) -> None:
    """One step of the optimizer, the same for the same seed."""
    torch.manual_seed(seed)
    state.optimizer.zero_grad()
    state.network.train()(photos(8)).square().sum().backward()
    state.optimizer.step()


@pytest.fixture
def saved_state(folder: Path) -> State:
    """Training after one step, with a checkpoint of it in `folder`."""
    state = state_of(used().network, epochs=7)
    stepped(state, 1)
    state.history.append(
        Epoch(
            epoch=1,
            train_loss=1.5,
            train_accuracy=0.25,
            val_loss=1.0,
            val_accuracy=0.5,
            temperature=1.0,
            side=8,
            lr=0.1,
            seconds=2.0,
            images_per_second=3.5,
            data_wait=0.1,
        )
    )
    checkpoint.save(folder, state, CHOSEN)
    return state


def test_a_checkpoint_restores_network_optimizer_schedule_and_history(
    folder: Path, saved_state: State
) -> None:
    restored = state_of(used(seed=5).network, epochs=20)
    checkpoint.load(folder, restored)
    assert restored.history == saved_state.history
    assert restored.epochs == 7
    # The next step tests the momentum: without it the weights would differ.
    for state in (saved_state, restored):
        stepped(state, 2)
    ones, others = (state.network.state_dict() for state in (saved_state, restored))
    assert all(torch.equal(ones[name], others[name]) for name in ones)


def test_the_best_checkpoint_is_complete_and_the_last_of_equals(tmp_path: Path) -> None:
    for epoch, accuracy in enumerate([0.4, 0.5, 0.5, 0.3], start=1):
        trained = {"epoch": epoch, "val_accuracy": accuracy}
        small = network.build(NETWORK, 8, len(CLASSES))
        Bundle(CHOSEN.model_copy(update={"trained": trained}), small).save(tmp_path / str(epoch))
    (tmp_path / "3" / WEIGHTS).write_bytes(b"half a copy")
    found = checkpoint.best(sorted(tmp_path.iterdir()), "val_accuracy")
    assert found.card.trained["epoch"] == 2
    shutil.copy(tmp_path / "2" / WEIGHTS, tmp_path / "3" / WEIGHTS)
    found = checkpoint.best(sorted(tmp_path.iterdir()), "val_accuracy")
    assert found.card.trained["epoch"] == 3


def test_a_checkpoint_loads_as_a_bundle_without_its_training_state(
    folder: Path, saved_state: State
) -> None:
    (folder / checkpoint.TRAINING).unlink()
    images = photos(3)
    expected = Bundle(CHOSEN, saved_state.network).predict(images)
    assert torch.equal(bundle.load(folder).predict(images), expected)


class Trap:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.trace,)


def test_loading_a_foreign_checkpoint_runs_no_code(folder: Path, saved_state: State) -> None:
    trace = folder.parent / "run"
    torch.save(Trap(trace), folder / checkpoint.TRAINING)
    bundle.load(folder)
    with pytest.raises(UserError, match="UnpicklingError"):
        checkpoint.load(folder, saved_state)
    assert not trace.exists()
