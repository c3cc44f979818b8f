"""Laws of the network: any uint8 image gets a logit per class, and each setting shapes it."""

from pathlib import Path

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from cnn.augment import augment
from cnn.config import Augmentation, Network
from cnn.network import (
    NetworkError,
    Scale,
    Shortcut,
    blurred,
    build,
    parameter_count,
    scale_of,
    shapes,
    stage,
)

PLAIN = Network(
    network="cnn",
    filters=(4, 6),
    convolutions=2,
    residual=False,
    kernel_size=3,
    hidden=0,
    dropout=0.0,
    normalisation="batch",
)
TINY_TORCHVISION = "shufflenet_v2_x0_5"


def changed(**values: object) -> Network:
    """The plain network's settings with these changed, validated."""
    return Network.model_validate(PLAIN.model_dump() | values)


def photos(count: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def of_type(network: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, kind)]


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(("size", "classes"), [(8, 2), (13, 3), (16, 10)])
def test_uint8_images_of_any_size_get_one_logit_per_class(
    size: int, classes: int, residual: bool
) -> None:
    logits = build(changed(residual=residual), size, classes)(photos(5, size))
    assert logits.shape == (5, classes)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


def test_the_first_module_scales_bytes_as_torchvision_weights_expect() -> None:
    first = next(build(PLAIN, 8, 2).children())
    assert isinstance(first, Scale)
    standard = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    for byte in (0, 128, 255):
        scaled = first(torch.full((1, 3, 2, 2), byte, dtype=torch.uint8))
        for channel, (mean, std) in enumerate(zip(standard.mean, standard.std, strict=True)):
            assert scaled[0, channel].flatten().tolist() == pytest.approx(
                [(byte / 255 - mean) / std] * 4, abs=1e-5
            )


def test_the_blur_applies_in_evaluation_only() -> None:
    scale, images = Scale(8, smallest=2), photos(4, 8)
    sharp = scale(images)
    scale.blur = True
    assert torch.equal(scale(images), sharp)
    assert not torch.equal(scale.eval()(images), sharp)


def test_a_blurred_image_has_the_contrast_of_a_warped_one() -> None:
    wave = 127 + 100 * torch.sin(torch.arange(32) * 2 * torch.pi / 6)
    stripes = wave.round().to(torch.uint8).expand(500, 3, 32, 32)
    shifts = Augmentation(rotation=0, shift=0.1, zoom=0, flip=False, vertical_flip=False)
    warped = augment(stripes, shifts, torch.Generator().manual_seed(0)).float()

    def contrast(images: Tensor) -> float:
        return images[..., 4:-4].var(dim=3).mean().item()  # without the mirrored edge

    blurry = blurred(stripes[:1].float())
    assert contrast(blurry) == pytest.approx(contrast(warped), rel=0.03)
    assert contrast(blurry) < 0.9 * contrast(stripes[:1].float())


@examples(deadline=None, max_examples=20)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 255))
def test_the_blur_keeps_a_uniform_colour_and_commutes_with_mirroring(
    height: int, width: int, byte: int
) -> None:
    plain = torch.full((1, 3, height, width), float(byte))
    assert torch.allclose(blurred(plain), plain)
    noise = torch.rand(2, 3, height, width)
    assert torch.allclose(blurred(noise.flip(3)), blurred(noise).flip(3), atol=1e-6)
    assert torch.allclose(blurred(noise.mT), blurred(noise).mT, atol=1e-6)


def test_the_blur_spreads_a_pixel_with_variance_one_sixth_along_each_axis() -> None:
    spot = torch.zeros(1, 1, 7, 7)
    spot[0, 0, 3, 3] = 1
    offsets = torch.arange(7.0) - 3
    for axis in (2, 3):
        mass = blurred(spot).sum(dim=5 - axis).flatten()
        assert mass.sum().item() == pytest.approx(1)
        assert (mass * offsets).sum().item() == pytest.approx(0, abs=1e-6)
        assert (mass * offsets**2).sum().item() == pytest.approx(1 / 6)


def test_halving_the_side_averages_blocks_of_four_pixels() -> None:
    scale, images = Scale(8, smallest=2), photos(3, 8)
    whole = scale(images)
    scale.resize_to(4)
    assert torch.allclose(scale(images), functional.avg_pool2d(whole, 2), atol=1e-6)


@pytest.mark.parametrize(("whole", "side"), [(8, 4), (8, 6), (13, 7), (13, 10), (16, 12)])
def test_every_pixel_contributes_to_a_smaller_image(whole: int, side: int) -> None:
    scale = Scale(whole, smallest=2)
    scale.resize_to(side)
    images = torch.rand(1, 3, whole, whole, requires_grad=True)
    shrunk = scale(images)
    assert shrunk.shape == (1, 3, side, side)
    shrunk.sum().backward()
    assert images.grad is not None
    assert (images.grad > 0).all()


@pytest.mark.parametrize("residual", [False, True])
def test_a_network_accepts_image_sides_down_to_its_smallest(residual: bool) -> None:
    network = build(changed(residual=residual), 13, 3)
    scale = scale_of(network)
    for side in range(scale.smallest, 14):
        scale.resize_to(side)
        assert network(photos(2, 13)).shape == (2, 3)
    for side in (scale.smallest - 1, 14):
        with pytest.raises(NetworkError, match=rf"side {side} is not from 4 to 13"):
            scale.resize_to(side)


def test_a_torchvision_model_accepts_full_size_images_only() -> None:
    assert scale_of(build(Network(network=TINY_TORCHVISION), 32, 2)).smallest == 32


def test_pooling_before_relu_changes_nothing() -> None:
    features = torch.randn(2, 3, 8, 8)
    layers = stage(changed(convolutions=1, normalisation="none"), 3, 5)
    convolved = of_type(layers, nn.Conv2d)[0](features)
    assert torch.equal(layers(features), functional.max_pool2d(convolved.relu(), 2))


def test_in_evaluation_the_logits_of_an_image_do_not_depend_on_its_batch() -> None:
    network, images = build(changed(residual=True), 8, 3).eval(), photos(4, 8)
    apart = torch.cat([network(image[None]) for image in images])
    assert torch.allclose(network(images), apart, atol=1e-5)


@examples(deadline=None, max_examples=40)
@given(st.integers(8, 20), st.integers(1, 6))
def test_stages_may_halve_an_image_down_to_one_pixel_and_no_further(size: int, stages: int) -> None:
    settings = changed(filters=(2,) * stages, convolutions=1)
    if 2**stages <= size:
        assert build(settings, size, 2)(photos(2, size)).shape == (2, 2)
    else:
        with pytest.raises(NetworkError, match=r"--filters.*--image-size") as error:
            build(settings, size, 2)
        assert "\n" not in str(error.value)


def test_the_fixes_suggested_for_too_many_stages_work() -> None:
    with pytest.raises(NetworkError, match=r"at most 3 numbers to --filters.* --image-size 32"):
        build(changed(filters=(2,) * 5), 12, 2)
    assert build(changed(filters=(2,) * 3), 12, 2)(photos(2, 12)).shape == (2, 2)
    assert build(changed(filters=(2,) * 5), 32, 2)(photos(2, 32)).shape == (2, 2)


@pytest.mark.parametrize("convolutions", [1, 2, 3])
@pytest.mark.parametrize("size", [8, 11])
def test_plain_and_residual_stages_both_halve_the_side(convolutions: int, size: int) -> None:
    features = torch.randn(2, 3, size, size)
    for residual in (False, True):
        settings = changed(convolutions=convolutions, residual=residual)
        assert stage(settings, 3, 5)(features).shape == (2, 5, size // 2, size // 2)


def test_a_residual_network_has_one_shortcut_per_stage_and_a_plain_one_none() -> None:
    for residual, shortcuts in ((False, 0), (True, len(PLAIN.filters))):
        network = build(changed(convolutions=3, residual=residual), 8, 2)
        assert len(of_type(network, Shortcut)) == shortcuts


def test_a_shortcut_with_zero_weights_returns_its_input() -> None:
    shortcuts = of_type(build(changed(convolutions=3, residual=True), 8, 2), Shortcut)
    for shortcut, filters in zip(shortcuts, PLAIN.filters, strict=True):
        features = torch.randn(2, filters, 4, 4)
        assert not torch.equal(shortcut(features), features)
        for parameter in shortcut.parameters():
            nn.init.zeros_(parameter)
        assert torch.equal(shortcut(features), features)


@pytest.mark.parametrize("filters", [(4,), (4, 6), (2, 3, 5)])
@pytest.mark.parametrize("convolutions", [1, 3])
@pytest.mark.parametrize("residual", [False, True])
def test_filters_and_convolutions_match_the_settings(
    filters: tuple[int, ...], convolutions: int, residual: bool
) -> None:
    settings = changed(filters=filters, convolutions=convolutions, residual=residual)
    layers = of_type(build(settings, 8, 2), nn.Conv2d)
    asked = [number for number in filters for _ in range(convolutions)]
    assert [layer.out_channels for layer in layers] == asked


@pytest.mark.parametrize("side", [1, 3, 5])
def test_every_kernel_has_the_size_in_the_settings(side: int) -> None:
    network = build(changed(kernel_size=side), 8, 2)
    assert {layer.kernel_size for layer in of_type(network, nn.Conv2d)} == {(side, side)}
    assert shapes(network, 8) == shapes(build(PLAIN, 8, 2), 8)


def test_a_hidden_layer_precedes_the_output_if_the_settings_have_one() -> None:
    assert [layer.out_features for layer in of_type(build(PLAIN, 8, 3), nn.Linear)] == [3]
    hidden = of_type(build(changed(hidden=7), 8, 3), nn.Linear)
    assert [layer.out_features for layer in hidden] == [7, 3]


def test_each_convolution_is_normalised_or_has_a_bias() -> None:
    normalised, bare = (build(changed(normalisation=choice), 8, 2) for choice in ("batch", "none"))
    convolutions = len(of_type(normalised, nn.Conv2d))
    assert len(of_type(normalised, nn.BatchNorm2d)) == convolutions
    assert all(layer.bias is None for layer in of_type(normalised, nn.Conv2d))
    assert not of_type(bare, nn.BatchNorm2d)
    assert all(layer.bias is not None for layer in of_type(bare, nn.Conv2d))


@pytest.mark.parametrize("hidden", [0, 8])
def test_dropout_makes_training_random_but_not_evaluation(hidden: int) -> None:
    images = photos(4, 8)
    for dropout, same_in_training in ((0.0, True), (0.5, False)):
        network = build(changed(dropout=dropout, hidden=hidden, normalisation="none"), 8, 4)
        assert torch.equal(network(images), network(images)) == same_in_training
        network.eval()
        assert torch.equal(network(images), network(images))


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("normalisation", ["batch", "none"])
def test_every_weight_gets_a_gradient(residual: bool, normalisation: str) -> None:
    settings = changed(residual=residual, normalisation=normalisation, hidden=8, convolutions=3)
    network = build(settings, 8, 3)
    network(photos(16, 8)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_a_failed_download_of_weights_asks_for_a_weights_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(NetworkError, match="give a weights file"):
        build(Network(network="resnet18", weights="default"), 64, 2)


def test_equal_seeds_give_equal_weights_and_different_seeds_do_not() -> None:
    def weights(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return build(changed(hidden=8), 8, 2).state_dict()

    first, again, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    kernels = "body.stage1.0.0.weight"
    assert not torch.equal(first[kernels], other[kernels])


def test_kernels_are_channels_last() -> None:
    kernels = [p for p in build(PLAIN, 8, 2).parameters() if p.ndim == 4]
    assert kernels
    for kernel in kernels:
        assert kernel.is_contiguous(memory_format=torch.channels_last)
        assert not kernel.is_contiguous()


def test_the_parameter_count_is_exact_and_leaves_out_frozen_parameters() -> None:
    network = build(changed(filters=(4,), convolutions=1, normalisation="none"), 8, 2)
    kernel, output = 4 * 3 * 3 * 3 + 4, 2 * 4 + 2
    assert parameter_count(network) == kernel + output
    of_type(network, nn.Linear)[0].requires_grad_(False)
    assert parameter_count(network) == kernel


def test_shapes_lists_the_output_of_each_part() -> None:
    assert shapes(build(PLAIN, 17, 3), 17) == ["stage1 4x8x8", "stage2 6x4x4", "head 3"]


def test_shapes_does_not_change_the_network() -> None:
    network = build(PLAIN, 8, 2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    first = shapes(network, 8)
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    network(photos(2, 8))
    assert shapes(network, 8) == first


def test_a_torchvision_model_has_one_output_per_class() -> None:
    network = build(Network(network="resnet18"), 16, 3)
    assert network.eval()(photos(2, 16)).shape == (2, 3)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("resnet81", "resnet18"),
        ("mobilenet_v3_smal", "mobilenet_v3_small"),
        ("fcn_resnet18", "resnet18"),  # a segmentation model's name is closer, but of no use
        ("CNN", "cnn"),
    ],
)
def test_a_mistyped_network_name_gets_a_suggestion(typed: str, meant: str) -> None:
    with pytest.raises(NetworkError, match=rf"{typed}.* {meant}\b") as error:
        build(Network(network=typed), 16, 2)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def pretrained() -> nn.Module:
    """A torchvision model with 1000 outputs, as in its weights files."""
    torch.manual_seed(5)
    return torchvision.models.get_model(TINY_TORCHVISION)


def write_weights(model: nn.Module, path: Path) -> Network:
    """Settings that start from a file of this model's weights."""
    if path.suffix == ".safetensors":
        save_file(model.state_dict(), path)
    else:
        torch.save(model.state_dict(), path)
    return Network(network=TINY_TORCHVISION, weights=str(path))


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_fine_tuning_loads_all_weights_except_the_output_layer(
    pretrained: nn.Module, name: str, tmp_path: Path
) -> None:
    network = build(write_weights(pretrained, tmp_path / name), 32, 3)
    assert network.eval()(photos(2, 32)).shape == (2, 3)
    taken = network.get_submodule("body").state_dict()
    for part, value in pretrained.state_dict().items():
        assert part.startswith("fc.") or torch.equal(taken[part], value)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
@pytest.mark.parametrize("kept", [0, 100, 100_000])
def test_a_truncated_weights_file_is_named_in_a_one_line_error(
    pretrained: nn.Module, name: str, kept: int, tmp_path: Path
) -> None:
    settings = write_weights(pretrained, tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[:kept])
    with pytest.raises(NetworkError, match=name) as error:
        build(settings, 32, 3)
    assert "\n" not in str(error.value)


def test_a_missing_weights_file_is_named_in_the_error(tmp_path: Path) -> None:
    settings = Network(network=TINY_TORCHVISION, weights=str(tmp_path / "gone.safetensors"))
    with pytest.raises(NetworkError, match=r"--weights .*gone\.safetensors"):
        build(settings, 32, 3)


def test_weights_of_another_shape_are_named_in_a_one_line_error(
    pretrained: nn.Module, tmp_path: Path
) -> None:
    pretrained_elsewhere = torchvision.models.get_model(TINY_TORCHVISION, num_classes=7)
    settings = write_weights(pretrained_elsewhere, tmp_path / "seven.safetensors")
    with pytest.raises(NetworkError, match=r"seven\.safetensors.*fc\.") as error:
        build(settings, 32, 3)
    assert "\n" not in str(error.value)
