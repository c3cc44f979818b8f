"""The bundle: a folder with a network's weights and all that scoring needs, without pickles."""

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_weights
from safetensors.torch import save as save_weights
from torch import Tensor, nn

from cnn import config, network
from cnn.dataset.fit import Fit
from cnn.errors import UserError
from cnn.files.atomic import write_atomically
from cnn.files.place import Place

FORMAT_VERSION = 3
NAMES_OF_2 = {"side": "input_side", "soft": "blur", "flip": "test_time_flip"}
WEIGHTS, CARD = "model.safetensors", "model.json"


class BundleError(UserError):
    """The folder is not a usable bundle; the message says why in one line."""


class Card(BaseModel):
    """The content of model.json: how to rebuild the network and how to read its output."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = FORMAT_VERSION
    classes: list[str] = Field(min_length=2, description="names, in the order of the logits")
    image_size: int
    fit: Fit
    input_side: int | None = Field(
        None, description="side that images are shrunk to: their side in the epoch that was saved"
    )
    blur: bool = Field(False, description="blur images as much as the warps of training did")
    network: config.Network
    test_time_flip: bool = Field(
        False, description="average with the prediction for the mirror image"
    )
    temperature: float = Field(1.0, gt=0, description="what log-probabilities are divided by")
    trained: dict[str, Any] = Field(default_factory=dict, description="seed, epoch and figures")


@dataclass(frozen=True)
class Bundle:
    """A network and its card."""

    card: Card
    network: nn.Module

    @torch.inference_mode()
    def predict(self, images: Tensor) -> Tensor:
        """Class probabilities, float32 `(B, classes)`, of uint8 images `(B, 3, H, W)`.

        In float32 on every device, so that predictions agree; GPUs multiply in TF32, four times
        as fast, which changes confidences by up to 0.005.
        """
        self.network.eval()
        probabilities: Tensor = self.network(images).softmax(dim=1)
        if self.card.test_time_flip:
            mirrored = images.flip(dims=(3,))
            probabilities = (probabilities + self.network(mirrored).softmax(dim=1)) / 2
        # After the mean, so that no answer changes: see cnn/training/calibration.py.
        return (probabilities.log() / self.card.temperature).softmax(dim=1)

    def to(self, device: torch.device) -> "Bundle":
        """The bundle with its network on another device."""
        return replace(self, network=self.network.to(device))

    def with_test_time_flip(self, flip: bool | None) -> "Bundle":
        """The bundle that averages with the mirror image, or does not; None leaves it as it is."""
        chosen = self.card.test_time_flip if flip is None else flip
        return replace(self, card=self.card.model_copy(update={"test_time_flip": chosen}))

    def with_temperature(self, temperature: float) -> "Bundle":
        """The bundle with another temperature, such as that of a network trained alike."""
        return replace(self, card=self.card.model_copy(update={"temperature": temperature}))

    def save(self, folder: Place) -> None:
        """Write both files; the card last, so that a folder with a card is whole."""
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: value.contiguous() for name, value in self.network.state_dict().items()}
        write_atomically(folder / WEIGHTS, save_weights(weights))
        write_atomically(folder / CARD, self.card.model_dump_json(indent=2) + "\n")


def find(folder: Place) -> Place:
    """The bundle's folder: `model` in a run's folder, or else the folder given."""
    return folder / "model" if (folder / "model" / CARD).is_file() else folder


def load(folder: Place, device: torch.device | None = None) -> Bundle:
    """Read a bundle folder; BundleError names what is wrong."""
    card = read_card(folder)
    # The weights that training started from are not needed, and may be on another machine.
    settings = card.network.model_copy(update={"weights": None})
    try:
        empty = network.build(settings, card.image_size, len(card.classes))
        empty.load_state_dict(load_weights((folder / WEIGHTS).read_bytes()))
        scale = network.scale_of(empty)
        scale.blur = card.blur
        scale.resize_to(card.input_side or card.image_size)
    except network.NetworkError as error:
        raise BundleError(f"{folder / CARD}: {error}") from None
    except FileNotFoundError:
        raise BundleError(f"{folder} has no {WEIGHTS}: copy the whole bundle folder") from None
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{folder / WEIGHTS} is damaged ({error}): copy it again") from None
    except RuntimeError as error:
        mismatch = str(error).splitlines()[-1].strip()
        raise BundleError(f"{folder}: the weights do not fit {CARD}: {mismatch}") from None
    return Bundle(card, empty.eval()).to(device or torch.device("cpu"))


def read_card(folder: Place) -> Card:
    """The card of a bundle folder, checked."""
    path = folder / CARD
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise BundleError(f"{path} holds no JSON object: give the folder of a model")
        content = upgraded(content)
        if content.get("format_version") != FORMAT_VERSION:
            raise BundleError(
                f"{path} has format version {content.get('format_version')}; this program reads "
                f"{FORMAT_VERSION}: use the version of the program that wrote it"
            )
        return Card.model_validate(content)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise BundleError(
            f"{folder} is not a bundle (no {CARD}): give the folder of a model or of its run"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BundleError(f"{path}: {where}: {first['msg']}") from None
    except ValueError as error:
        raise BundleError(f"{path} is not readable as JSON: {error}") from None


def upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """A card of format 2, which had other names and no temperature, as one of format 3."""
    if content.get("format_version") != 2:
        return content
    return {NAMES_OF_2.get(name, name): value for name, value in content.items()} | {
        "format_version": 3
    }


def as_batch(images: np.ndarray) -> Tensor:
    """Images `(B, H, W, 3)` as a batch `(B, 3, H, W)`: a channels-last view, not a copy."""
    return torch.from_numpy(images).permute(0, 3, 1, 2)
