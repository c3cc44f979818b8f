"""Laws of augmentation: each image gets its own random warp, within the limits."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from cnn.augment import augment, cutmix, draw, draw_squares, mixed_labels, sampling_grid
from cnn.config import Augmentation

OFF = Augmentation(rotation=0, shift=0, zoom=0, flip=False, vertical_flip=False)
STRONG = Augmentation(rotation=40, shift=0.3, zoom=0.5, flip=True, vertical_flip=True)


def only(**strength: float) -> Augmentation:
    """These changes and no others."""
    return Augmentation.model_validate(OFF.model_dump() | strength)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int, size: int) -> Tensor:
    """Images of unrelated pixels, channels-last as prepared datasets give them."""
    shape = (count, size, size, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=seeded()).permute(0, 3, 1, 2)


def repeated(image: Tensor, count: int) -> Tensor:
    return image.expand(count, -1, -1, -1)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 6), st.integers(1, 33), st.integers(0, 99))
def test_zero_strength_changes_nothing(count: int, size: int, seed: int) -> None:
    images = noise(count, size)
    assert torch.equal(augment(images, OFF, seeded(seed)), images)


@pytest.mark.parametrize("options", [OFF, STRONG])
def test_a_batch_stays_a_channels_last_batch_of_bytes(options: Augmentation) -> None:
    before = noise(5, 9)
    untouched = before.clone()
    after = augment(before, options, seeded())
    assert (after.shape, after.dtype) == (before.shape, torch.uint8)
    assert after.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(before, untouched)


def test_the_sampling_grid_equals_the_affine_grid_of_torch() -> None:
    matrices = draw(7, STRONG, seeded(3))
    expected = functional.affine_grid(matrices, [7, 3, 12, 20], align_corners=False)
    assert torch.allclose(sampling_grid(matrices, 12, 20), expected, atol=1e-6)


def test_the_generator_alone_determines_the_result() -> None:
    images = noise(4, 8)
    first = augment(images, STRONG, seeded(1))
    torch.rand(3)  # the global generator has no effect
    assert torch.equal(augment(images, STRONG, seeded(1)), first)
    assert not torch.equal(augment(images, STRONG, seeded(2)), first)


def test_a_generator_draws_differently_for_the_next_batch() -> None:
    images, generator = noise(4, 8), seeded()
    first = augment(images, STRONG, generator)
    assert not torch.equal(augment(images, STRONG, generator), first)


@pytest.mark.parametrize(
    "options", [only(rotation=30), only(shift=0.2), only(zoom=0.4), STRONG], ids=str
)
def test_each_image_gets_its_own_draw(options: Augmentation) -> None:
    copies = augment(repeated(noise(1, 12), 8), options, seeded())
    assert len({copy.numpy().tobytes() for copy in copies}) == 8


@pytest.mark.parametrize(("side", "axis"), [("flip", 3), ("vertical_flip", 2)])
def test_a_flip_mirrors_about_half_of_the_images_and_keeps_the_others(side: str, axis: int) -> None:
    image = noise(1, 7)
    copies = augment(repeated(image, 200), only(**{side: True}), seeded())
    same = (copies == image).flatten(1).all(dim=1)
    mirrored = (copies == image.flip(axis)).flatten(1).all(dim=1)
    assert (same ^ mirrored).all()
    assert 70 <= same.sum() <= 130


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 255), st.integers(8, 20), st.integers(0, 99))
def test_a_warp_adds_no_border_so_an_image_of_one_colour_is_unchanged(
    byte: int, size: int, seed: int
) -> None:
    images = torch.full((3, 3, size, size), byte, dtype=torch.uint8)
    assert torch.equal(augment(images, STRONG, seeded(seed)), images)


def test_a_batch_roughly_keeps_its_brightness() -> None:
    ramp = torch.linspace(0, 255, 16).round().to(torch.uint8)
    images = repeated(ramp.expand(1, 3, 16, 16), 100)
    brightness = augment(images, STRONG, seeded()).float().mean()
    assert brightness == pytest.approx(127.5, rel=0.05)


def parts(matrices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Angles in degrees, scales and shifts of inverse warps that mirror nothing."""
    across = matrices[:, :, 0]
    angles = torch.atan2(across[:, 1], across[:, 0]).rad2deg()
    return angles, across.norm(dim=1), matrices[:, :, 2]


def test_draws_fill_the_limits_and_stay_within_them() -> None:
    options = only(rotation=25, shift=0.2, zoom=0.5)
    angles, scales, shifts = parts(draw(2000, options, seeded()))
    # The image spans -1..1, so a shift by its whole side is 2.
    for values, limit in ((angles, 25), (scales.log(), math.log(1.5)), (shifts, 0.4)):
        assert values.abs().max() <= limit * (1 + 1e-5)
        assert values.max() > 0.98 * limit
        assert values.min() < -0.98 * limit
        assert values.mean().abs() < 0.05 * limit


def test_shifts_across_and_down_are_independent() -> None:
    across, down = draw(500, only(shift=0.2), seeded())[:, :, 2].T
    assert np.corrcoef(across, down)[0, 1] == pytest.approx(0, abs=0.15)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 99))
def test_a_warp_never_shears_or_stretches(seed: int) -> None:
    square = draw(4, STRONG, seeded(seed))[:, :, :2]
    gram = square.transpose(1, 2) @ square
    scale = gram[:, 0, 0]
    assert torch.allclose(gram, scale[:, None, None] * torch.eye(2), atol=1e-5)


SIDE = 32


def blob(across: float, down: float) -> Tensor:
    """A bright spot on black; the image spans -1..1."""
    centres = (torch.arange(SIDE) + 0.5) * 2 / SIDE - 1
    distance = (centres[None, :] - across) ** 2 + (centres[:, None] - down) ** 2
    return (255 * torch.exp(-distance / 0.02)).round().to(torch.uint8).expand(1, 3, SIDE, SIDE)


def places(images: Tensor) -> Tensor:
    """Where the spots' centres of mass are: `(B, 2)`, across and down."""
    centres = (torch.arange(SIDE) + 0.5) * 2 / SIDE - 1
    mass = images[:, 0].float() / images[:, 0].float().sum(dim=(1, 2), keepdim=True)
    return torch.stack([(mass.sum(dim=1) @ centres), (mass.sum(dim=2) @ centres)], dim=1)


@pytest.mark.parametrize(
    "options",
    [
        only(rotation=90),
        only(shift=0.15),
        only(zoom=0.5),
        only(flip=True),
        only(vertical_flip=True),
        only(rotation=30, shift=0.1, zoom=0.2, flip=True, vertical_flip=True),
    ],
    ids=str,
)
def test_a_spot_moves_by_its_drawn_warp(options: Augmentation) -> None:
    start = torch.tensor([0.3, -0.15])
    moved = places(augment(repeated(blob(*start.tolist()), 20), options, seeded(3)))
    # A draw maps each target to its source, so the spot moves the other way.
    warps = draw(20, options, seeded(3))
    expected = torch.linalg.solve(warps[:, :, :2], start - warps[:, :, 2])
    assert torch.allclose(moved, expected, atol=0.02)
    assert (moved - start).norm(dim=1).max() > 0.1


def test_a_rotation_turns_about_the_centre_by_the_drawn_angle() -> None:
    start = torch.tensor([0.3, 0.0])
    moved = places(augment(repeated(blob(0.3, 0.0), 20), only(rotation=60), seeded()))
    angles, _, _ = parts(draw(20, only(rotation=60), seeded()))
    turned = torch.atan2(moved[:, 1], moved[:, 0]).rad2deg()
    assert torch.allclose(moved.norm(dim=1), start.norm(), atol=0.02)
    assert torch.allclose(turned, -angles, atol=2)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 6), st.integers(2, 20), st.integers(0, 99))
def test_cutmix_pastes_a_rectangle_of_the_previous_image_into_each(
    count: int, size: int, seed: int
) -> None:
    # Every pixel of image n is the byte n + 1, which shows where it comes from.
    bytes_of = torch.arange(1, count + 1, dtype=torch.uint8)
    images = bytes_of[:, None, None, None].expand(-1, 3, size, size)
    mixed, parts = cutmix(images, draw_squares(count, 1.0, seeded(seed)))
    own = mixed == images
    assert (own | (mixed == images.roll(1, dims=0))).all()
    assert (~own[:, 0]).float().mean(dim=(1, 2)).tolist() == pytest.approx(parts.tolist())
    assert (parts <= 0.5 + 2 / size).all()
    for inside in ~own[:, 0]:
        rows, columns = inside.any(dim=1), inside.any(dim=0)
        assert torch.equal(inside, rows[:, None] & columns[None, :])  # one rectangle


def test_mixed_labels_hold_the_part_of_each_image() -> None:
    labels, part = torch.tensor([0, 2, 2]), torch.tensor([0.25, 0.5, 0.3])
    expected = torch.tensor([[0.75, 0, 0.25, 0], [0.5, 0, 0.5, 0], [0, 0, 1, 0]])
    assert torch.allclose(mixed_labels(labels, part, 4), expected)


def test_squares_are_anywhere_in_the_image_and_of_any_area_up_to_a_half() -> None:
    side, down, across = draw_squares(2000, 1.0, seeded()).unbind(dim=1)
    places = [(centre - side / 2) / (1 - side) for centre in (down, across)]
    drawn = torch.stack([2 * side**2, *places])
    assert drawn.min() >= -1e-5 and drawn.max() <= 1 + 1e-5
    even = torch.tensor([0.1, 0.5, 0.9])
    assert torch.allclose(drawn.quantile(even, dim=1), even[:, None], atol=0.04)
    assert torch.allclose(drawn.corrcoef(), torch.eye(3), atol=0.1)


def test_cutmix_keeps_its_input_and_the_channels_last_layout() -> None:
    images = noise(4, 8)
    before = images.clone()
    mixed, parts = cutmix(images, draw_squares(4, 1.0, seeded()))
    assert (parts > 0).any()
    assert torch.equal(images, before)
    assert mixed.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_cutmix_changes_images_with_the_given_probability(probability: float) -> None:
    squares = draw_squares(2000, probability, seeded())
    _, parts = cutmix(noise(2000, 16), squares)
    assert (squares[:, 0] > 0).float().mean().item() == pytest.approx(probability, abs=0.04)
    assert parts.max() <= 0.5 + 2 / 16
    assert parts.mean().item() == pytest.approx(probability / 4, abs=0.02)
