"""Augmentation: a random warp of each image, and CutMix."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from cnn.config import Augmentation


def augment(images: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Warp each image of a batch at random: uint8 `(B, 3, H, W)` → the same.

    `generator` draws on the CPU, so that all devices warp alike.
    """
    return warp(images, draw(len(images), settings, generator).to(images.device))


def warp(images: Tensor, matrices: Tensor) -> Tensor:
    """Warp each image by its matrix from `draw`: uint8 `(B, 3, H, W)` → the same.

    All changes of an image are one matrix, so each pixel is interpolated only once and nothing is
    blurred twice. Beyond its edges, the image is mirrored.
    """
    warped = functional.grid_sample(
        images.float(),
        sampling_grid(matrices, *images.shape[2:]),
        mode="bilinear",
        padding_mode="reflection",
        align_corners=False,
    )
    return warped.round_().to(torch.uint8, memory_format=torch.channels_last)


def sampling_grid(matrices: Tensor, height: int, width: int) -> Tensor:
    """Where each target pixel comes from, float32 `(B, height, width, 2)`, as from `affine_grid`.

    Computed as the sum of a row term and a column term: `affine_grid` multiplies matrices for
    each pixel, which takes as long as the whole interpolation.
    """
    # The centres of the pixels.
    across, down = (
        torch.linspace(1 / size - 1, 1 - 1 / size, size, device=matrices.device)
        for size in (width, height)
    )
    columns = matrices[:, :, 0, None] * across
    rows = matrices[:, :, 1, None] * down + matrices[:, :, 2, None]
    return (columns[:, :, None] + rows[..., None]).permute(0, 2, 3, 1)


def draw(count: int, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Random inverse warps, float32 `(count, 2, 3)`, in coordinates where the image spans -1..1.

    A matrix maps each target pixel to its source, as for `affine_grid`. Zooms are drawn on a log
    scale, so that 10% larger is as likely as 10% smaller.
    """

    def uniform(limit: float) -> Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * limit

    def sign(flips: bool) -> Tensor:
        coin = torch.rand(count, generator=generator) < 0.5
        return torch.where(coin & flips, -1.0, 1.0)

    angle = uniform(math.radians(settings.rotation))
    scale = torch.exp(uniform(math.log1p(settings.zoom)))
    # A shift by a fraction of the side is twice that in coordinates of -1..1.
    across, down = uniform(2 * settings.shift), uniform(2 * settings.shift)
    mirror, turn = sign(settings.flip), sign(settings.vertical_flip)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = [torch.stack([cos * mirror, -sin * turn, across], dim=1)]
    rows += [torch.stack([sin * mirror, cos * turn, down], dim=1)]
    return torch.stack(rows, dim=1)


def draw_squares(count: int, probability: float, generator: torch.Generator) -> Tensor:
    """Random squares for CutMix: side and centre (down, across), float32 `(count, 3)`.

    In fractions of the image's side. An image gets a square with this probability, of up to half
    its area and wholly inside it; otherwise the side is 0. `generator` draws on the CPU, so that
    all devices mix alike.
    """
    lot, area, down, across = torch.rand(4, count, generator=generator)
    side = torch.sqrt(area / 2) * (lot < probability)
    return torch.stack([side, *(side / 2 + place * (1 - side) for place in (down, across))], dim=1)


def cutmix(images: Tensor, squares: Tensor) -> tuple[Tensor, Tensor]:
    """Paste a square of the previous image into each: uint8 `(B, 3, S, S)`, from `draw_squares`.

    Returns the images, and what fraction of each is pasted, float32 `(B,)` (Yun et al. 2019,
    "CutMix"). With a square for each image, not one for the whole batch, tiny20 is recognised 0.8
    points better.
    """
    pasted = inside(squares, images.shape[3])
    # Bytes wrap around, so this is exact; with this mask, `torch.where` takes twice as long.
    mixed = images + (images.roll(1, dims=0) - images) * pasted
    return mixed, pasted.mean(dim=(1, 2, 3), dtype=torch.float32)


def inside(squares: Tensor, size: int) -> Tensor:
    """1 for the pixels whose centres are in their image's square: uint8 `(B, 1, size, size)`."""
    half, centres = squares[:, :1, None] / 2, squares[:, 1:, None]
    pixels = torch.linspace(0.5 / size, 1 - 0.5 / size, size, device=squares.device)
    rows, columns = ((pixels - centres).abs() < half).unbind(dim=1)
    return (rows[:, None, :, None] & columns[:, None, None, :]).view(torch.uint8)


def mixed_labels(labels: Tensor, part: Tensor, classes: int) -> Tensor:
    """What `cutmix` makes of labels `(B,)`: the fraction of each class, float32 `(B, classes)`.

    `part` is the fraction of the image that is pasted from the previous one.
    """
    both = torch.stack([labels, labels.roll(1)], dim=1)
    parts = torch.stack([1 - part, part], dim=1)
    return parts.new_zeros(len(labels), classes).scatter_add_(1, both, parts)
