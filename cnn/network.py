"""The network: uint8 images in, one logit per class out."""

from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from textwrap import shorten

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from cnn import config
from cnn.errors import UserError
from cnn.text.spelling import nearest

# Per-channel mean and standard deviation of ImageNet's photos on the 0..1 scale: torchvision's
# weights were trained with them, and other photos are close enough.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class NetworkError(UserError):
    """Settings from which no network can be built; the message says what to change."""


class Scale(nn.Module):
    """Pixels 0..255 (uint8) to 0..1, normalised per channel, the image shrunk to `side` pixels.

    A part of the network, so that no caller can forget it, and so that uint8 is copied to the
    device: a quarter of float32's bytes. Training uses smaller images first; a saved model keeps
    the side with which it was evaluated.

    Warping interpolates, which blurs: where training images are warped, images to predict would be
    sharper than all of them. `blur` blurs them as much; at 64 pixels that is 5 points of accuracy.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, image_size: int, smallest: int) -> None:
        super().__init__()
        self.side = self.image_size = image_size
        self.smallest = smallest
        self.blur = False
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1))

    def resize_to(self, side: int) -> None:
        """Shrink images to this side from now on; NetworkError if it is too small or too large."""
        if not self.smallest <= side <= self.image_size:
            raise NetworkError(f"side {side} is not from {self.smallest} to {self.image_size}")
        self.side = side

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.float()
        if self.blur and not self.training:
            pixels = blurred(pixels)
        if self.side != self.image_size:
            # Needs no antialiasing: down to half the side, every pixel still contributes to one.
            pixels = functional.interpolate(pixels, self.side, mode="bilinear")
        return (pixels / 255 - self.mean) / self.std


def blurred(images: Tensor) -> Tensor:
    """Float images `(B, C, H, W)` blurred as much as bilinear interpolation does on average.

    Interpolating at a fraction t between two pixels spreads a pixel by a variance of t(1 - t): a
    sixth on average along each axis, as do weights of 1, 10 and 1 twelfths. Edges are repeated.
    """
    for axis in (2, 3):
        size = images.shape[axis]
        edges = images.narrow(axis, 0, 1), images.narrow(axis, size - 1, 1)
        padded = torch.cat([edges[0], images, edges[1]], dim=axis)
        images = (padded.narrow(axis, 0, size) + 10 * images + padded.narrow(axis, 2, size)) / 12
    return images


def build(settings: config.Network, image_size: int, classes: int) -> nn.Sequential:
    """The network for square `image_size` images: uint8 `(B, 3, H, W)` → logits `(B, classes)`.

    Its modules are `scale` and `body`; it is channels-last, which trains 1.4 to 1.8 times
    faster on a CPU and is the layout of a GPU's tensor cores.
    """
    if settings.network == "cnn":
        body: nn.Module = convolutional(settings, image_size, classes)
        smallest = 1 << len(settings.filters)
    else:
        # Some architectures take one size only, and weights are trained for one.
        body, smallest = torchvision_model(settings, classes), image_size
    network = nn.Sequential()
    network.add_module("scale", Scale(image_size, smallest))
    network.add_module("body", body)
    return network.to(memory_format=torch.channels_last)


def scale_of(network: nn.Module) -> Scale:
    """The first module of a network that `build` made."""
    scale = network.get_submodule("scale")
    assert isinstance(scale, Scale)
    return scale


def convolutional(settings: config.Network, image_size: int, classes: int) -> nn.Sequential:
    """Stages of convolutions, each halved by max-pooling; then fully connected layers."""
    if image_size >> len(settings.filters) < 1:
        raise NetworkError(
            f"{len(settings.filters)} stages halve an image of {image_size} pixels to nothing: "
            f"give at most {image_size.bit_length() - 1} numbers to --filters, "
            f"or --image-size {1 << len(settings.filters)} and more"
        )
    layers = nn.Sequential()
    channels = 3
    for number, filters in enumerate(settings.filters, start=1):
        layers.add_module(f"stage{number}", stage(settings, channels, filters))
        channels = filters
    layers.add_module("head", head(settings, channels, classes))
    layers.apply(initialise)
    return layers


def stage(settings: config.Network, channels: int, filters: int) -> nn.Sequential:
    """Convolutions, one of them pooled: `(B, channels, H, W)` → `(B, filters, H/2, W/2)`.

    Plain: the last is pooled. Residual: the first, and the others have a shortcut around them
    (He et al. 2016); most of the arithmetic is then done on a quarter of the pixels.
    """
    pooled = 0 if settings.residual else settings.convolutions - 1
    layers = [
        convolution(settings, filters if number else channels, filters, number == pooled)
        for number in range(settings.convolutions)
    ]
    if settings.residual and layers[1:]:
        return nn.Sequential(layers[0], Shortcut(*layers[1:]))
    return nn.Sequential(*layers)


def convolution(
    settings: config.Network, channels: int, filters: int, pooled: bool
) -> nn.Sequential:
    """Convolution, 2x2 max-pooling if asked for, batch norm, ReLU.

    ReLU and max-pooling give the same in either order. With pooling first, only a quarter of the
    values is normalised: a step costs 0.9 of what it would.
    """
    batch_norm = settings.normalisation == "batch"
    # A batch norm's own shift makes the convolution's bias redundant.
    layers: list[nn.Module] = [
        nn.Conv2d(channels, filters, settings.kernel_size, padding="same", bias=not batch_norm)
    ]
    if pooled:
        layers.append(nn.MaxPool2d(2))
    if batch_norm:
        layers.append(nn.BatchNorm2d(filters))
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


class Shortcut(nn.Sequential):
    """Layers with a shortcut around them: they learn what to add to their input."""

    def forward(self, images: Tensor) -> Tensor:
        added = images
        for layer in self:
            added = layer(added)
        return images + added


def head(settings: config.Network, features: int, classes: int) -> nn.Sequential:
    """Max-pooling to one pixel, flatten, a hidden layer with dropout (if any), output."""
    layers: list[nn.Module] = [nn.AdaptiveMaxPool2d(1), nn.Flatten()]
    if settings.hidden:
        layers += [
            nn.Dropout(settings.dropout),
            nn.Linear(features, settings.hidden),
            nn.ReLU(inplace=True),
        ]
        features = settings.hidden
    return nn.Sequential(*layers, nn.Dropout(settings.dropout), nn.Linear(features, classes))


def initialise(layer: nn.Module) -> None:
    """He initialisation (He et al. 2015), made for ReLU."""
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def torchvision_model(settings: config.Network, classes: int) -> nn.Module:
    """A torchvision architecture by name, its output layer fitted to `classes`."""
    import torchvision  # late: it costs 1.5 CPU-seconds in every process; cnn needs none

    known = torchvision.models.list_models(module=torchvision.models)
    if settings.network not in known:
        near = nearest(settings.network, known)
        hint = f"did you mean {near}?" if near else "take cnn, or a name such as resnet18"
        raise NetworkError(f"no network is named {settings.network}: {hint}")
    download = "DEFAULT" if settings.weights == "default" else None
    try:
        model: nn.Module = torchvision.models.get_model(settings.network, weights=download)
    except (OSError, RuntimeError) as error:  # raised by a failed download
        reason = shorten(str(error), 240)
        raise NetworkError(
            f"--weights default cannot be downloaded ({reason}): give a weights file"
        ) from None
    if settings.weights not in (None, "default"):
        load_weights(model, Path(settings.weights))
    replace_output(model, classes)
    return model


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a local weights file (safetensors or a torch file of plain tensors) for fine-tuning."""
    try:
        if path.suffix == ".safetensors":
            weights = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(weights)
    except (OSError, EOFError, RuntimeError, TypeError, UnpicklingError, SafetensorError) as error:
        reason = shorten(str(error) or "the file is incomplete", 240)
        raise NetworkError(f"--weights {path} cannot be used for this network: {reason}") from None


def replace_output(model: nn.Module, classes: int) -> None:
    """Replace the model's last linear layer by a new one with `classes` outputs."""
    linear = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    if not linear:
        raise NetworkError("this architecture has no linear layer: give another, such as resnet18")
    name, last = linear[-1]
    output = nn.Linear(last.in_features, classes)
    initialise(output)
    model.set_submodule(name, output)


def check(network: nn.Sequential, image_size: int) -> None:
    """Raise NetworkError unless the network can be trained on square images of this size.

    Some of torchvision's architectures take one size only, or return more than logits.
    """
    try:
        logits = network(torch.zeros(2, 3, image_size, image_size, dtype=torch.uint8))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = shorten(str(error), 240)
        raise NetworkError(
            f"this network cannot take images of {image_size} pixels ({reason}): "
            "give another --image-size or --network"
        ) from None
    if not isinstance(logits, Tensor):
        raise NetworkError("this architecture has several outputs: give another, such as resnet18")


def shapes(network: nn.Sequential, image_size: int) -> list[str]:
    """The output shape of each top-level part of the body, such as `stage1 32x32x32`."""
    found: list[str] = []

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                found.append(f"{name} {'x'.join(map(str, output.shape[1:]))}")

        return hook

    body = network.get_submodule("body")
    hooks = [part.register_forward_hook(note(name)) for name, part in body.named_children()]
    was_training = network.training
    with torch.inference_mode():
        network.eval()(torch.zeros(1, 3, image_size, image_size, dtype=torch.uint8))
    network.train(was_training)
    for hook in hooks:
        hook.remove()
    return found


def parameter_count(network: nn.Module) -> int:
    """The number of trainable values."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
