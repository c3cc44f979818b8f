"""Laws of the search space: each point gives a network that fits; the given settings are one."""

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import torchvision
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn.config import TrainConfig
from cnn.errors import UserError
from cnn.network import build, check
from cnn.search.space import Space, default_space, dimensions, read_space
from cnn.search.study import distributions
from cnn.settings.ranges import Choice, Integer, LogUniform, Range, Value

SHAPES = [[32], [40, 40, 100], [64, 32], [16, 32, 64], [48, 96, 192], [8, 16, 32, 64, 128]]
PLAIN = TrainConfig(images="photos")


@st.composite
def bases(draw: st.DrawFn) -> TrainConfig:
    """Settings that a user may give: images of 8 to 256 pixels, and filters that fit them."""
    size = draw(st.integers(8, 256))
    shapes = [shape for shape in SHAPES if len(shape) < size.bit_length()]
    amounts = st.just(0.0) | st.floats(0, 0.99)
    workers = draw(st.integers(1, 4))
    training = {
        "epochs": draw(st.integers(1, 30)),
        "batch_size": workers * draw(st.integers(2, 50)),
        "optimizer": draw(st.sampled_from(["adam", "adamw", "sgd"])),
        "lr": draw(st.floats(1e-6, 1)),
        "weight_decay": draw(amounts),
    }
    network = {
        "network": draw(st.sampled_from(["cnn", "cnn", "resnet18"])),
        "filters": draw(st.sampled_from(shapes)),
        "convolutions": draw(st.integers(1, 6)),
        "dropout": draw(amounts),
    }
    augmentation = {"rotation": draw(st.floats(0, 180)), "shift": draw(amounts)}
    augmentation |= {"zoom": draw(amounts)} if draw(st.booleans()) else {"rotation": 0, "zoom": 0}
    return TrainConfig.model_validate(
        {
            "images": draw(st.sampled_from([None, "photos"])),
            "data": {"image_size": size},
            "augmentation": augmentation,
            "network": network,
            "training": training,
            "resources": {"workers": workers},
        }
    )


def values(limits: Range) -> st.SearchStrategy[Value]:
    if isinstance(limits, Choice):
        return st.sampled_from(limits.values)
    if isinstance(limits, Integer):
        return st.integers(limits.low, limits.high)
    return st.floats(limits.low, limits.high)


def points(space: Space) -> st.SearchStrategy[dict[str, Value]]:
    return st.fixed_dictionaries({name: values(limits) for name, limits in space.ranges.items()})


def prove(chosen: TrainConfig) -> None:
    """Build and check the network on shapes alone."""
    with torch.device("meta"):
        size = chosen.data.image_size
        check(build(chosen.network, size, classes=2), size)


def read(tmp_path: Path, content: Any, base: TrainConfig = PLAIN) -> Space:
    file = tmp_path / "space.yaml"
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return read_space(str(file), base)


def complaint(tmp_path: Path, content: Any, base: TrainConfig = PLAIN) -> str:
    """The one-line error for this space."""
    with pytest.raises(UserError) as caught:
        read(tmp_path, content, base)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"--space {tmp_path / 'space.yaml'}: ")
    return line


def base_of(**groups: Any) -> TrainConfig:
    return TrainConfig.model_validate({"images": "photos", **groups})


def test_a_space_knows_whether_it_holds_the_given_settings(tmp_path: Path) -> None:
    assert read(tmp_path, {"lr": {"loguniform": [1e-4, 1e-1]}}).holds_given
    assert not read(tmp_path, {"lr": {"loguniform": [1e-2, 1e-1]}}).holds_given


@settings(deadline=None)
@given(bases())
def test_the_given_settings_are_a_point_of_the_default_space(base: TrainConfig) -> None:
    space = default_space(base)
    assert space.settings(space.start) == base
    assert space.settings({}) == base
    known = distributions(space.ranges)
    assert optuna.create_trial(params=space.start, distributions=known, value=0.5)


@settings(deadline=None, max_examples=60)
@given(bases(), st.data())
def test_every_point_gives_settings_and_a_network_that_fits(
    base: TrainConfig, data: st.DataObject
) -> None:
    space = default_space(base)
    point = data.draw(points(space))
    prove(space.settings(point))
    assert space.settings(json.loads(json.dumps(point))) == space.settings(point)


@pytest.mark.parametrize("sizes", [[8], [256, 8], [64, 15, 16], [31, 128], [256]])
@pytest.mark.parametrize("stages", [{"int": [1, 9]}, {"choice": [9, 8, 7, 6, 5, 4, 3]}])
def test_the_smallest_image_size_limits_the_stages(
    tmp_path: Path, sizes: list[int], stages: dict[str, list[int]]
) -> None:
    base = base_of(data={"image_size": 256}, network={"filters": [40, 40, 100]})
    space = read(tmp_path, {"image_size": {"choice": sizes}, "stages": stages}, base)
    assert space.image_sizes == sorted(sizes)
    for size in sizes:
        for count in space.ranges["stages"].samples:
            prove(space.settings({"image_size": size, "stages": count}))
    with pytest.raises(UserError):  # one more stage does not fit
        prove(space.settings({"image_size": min(sizes), "stages": deepest(space) + 1}))


def deepest(space: Space) -> int:
    return max(count for count in space.ranges["stages"].samples if isinstance(count, int))


def test_filters_in_the_file_that_do_not_fit_are_not_proposed(tmp_path: Path) -> None:
    written = {"filters": {"choice": [[8, 8, 8, 8], [8, 8], 4]}, "image_size": {"choice": [8]}}
    assert read(tmp_path, written).ranges["filters"] == Choice(("8,8", "4"))


def test_filters_follow_stages_and_width_once_either_changes() -> None:
    space = default_space(base_of(network={"filters": [40, 40, 100]}))

    def filters(**changed: Value) -> tuple[int, ...]:
        return space.settings(space.start | changed).network.filters

    assert filters(lr=0.01) == (40, 40, 100)
    assert filters(stages=2) == (40, 80)
    assert filters(width=16) == (16, 32, 64)
    assert filters(width=16, stages=6) == (16, 32, 64, 128, 128, 128)


def test_strength_multiplies_the_augmentation_up_to_its_limits() -> None:
    mild = default_space(base_of(augmentation={"rotation": 10, "shift": 0.1, "zoom": 0}))
    found = mild.settings(mild.start | {"strength": 1.5}).augmentation
    assert (found.rotation, found.zoom) == (15, 0)
    assert found.shift == pytest.approx(0.15)
    strong = default_space(base_of(augmentation={"rotation": 170, "shift": 0.8, "zoom": 0.95}))
    found = strong.settings(strong.start | {"strength": 1.5}).augmentation
    assert (found.rotation, found.shift, found.zoom) == (180, 0.9, 0.95)


@pytest.mark.parametrize("base", [PLAIN, TrainConfig(), base_of(network={"network": "resnet18"})])
def test_every_dimension_of_the_default_space_changes_the_settings(base: TrainConfig) -> None:
    space = default_space(base)
    assert len(space.ranges) >= 5
    for name, limits in space.ranges.items():
        other = next(value for value in limits.samples if value != space.start[name])
        assert space.settings(space.start | {name: other}) != base, name


def test_the_shape_of_the_cnn_is_no_dimension_of_another_network() -> None:
    shape = {"stages", "width", "convolutions", "dropout"}
    assert shape <= default_space(PLAIN).ranges.keys()
    other = default_space(base_of(network={"network": "resnet18"}, data={"image_size": 8}))
    assert not shape & other.ranges.keys()


def test_settings_that_are_off_are_not_searched() -> None:
    off = {"rotation": 0, "shift": 0, "zoom": 0}
    space = default_space(base_of(augmentation=off, training={"weight_decay": 0, "epochs": 1}))
    assert not {"strength", "weight_decay", "epochs"} & space.ranges.keys()


def test_batches_that_the_workers_cannot_share_are_not_proposed() -> None:
    base = base_of(training={"batch_size": 96}, resources={"workers": 6})
    assert "batch_size" not in default_space(base).ranges
    for workers, shared in ((16, (32, 64, 128, 96)), (32, (64, 128, 96))):  # two images each
        base = base_of(training={"batch_size": 96}, resources={"workers": workers})
        assert default_space(base).ranges["batch_size"] == Choice(shared)


def test_given_settings_that_make_no_network_are_refused() -> None:
    with pytest.raises(UserError, match=r"5 stages halve images of 8 pixels .* at most 3"):
        default_space(base_of(data={"image_size": 8}))


def test_a_space_knows_its_most_epochs_and_its_image_sizes(tmp_path: Path) -> None:
    default = default_space(base_of(training={"epochs": 9}))
    assert (default.most_epochs, default.image_sizes) == (9, [64])
    assert default.ranges["epochs"] == Integer(5, 9)
    written = {"epochs": {"choice": [4, 30, 2]}, "image_size": {"choice": [96, 32]}}
    space = read(tmp_path, written)
    assert (space.most_epochs, space.image_sizes) == (30, [32, 96])
    assert read(tmp_path, {"lr": {"choice": [0.1]}}).most_epochs == PLAIN.training.epochs


def test_a_space_file_gives_exactly_its_ranges(tmp_path: Path) -> None:
    written = """
        lr: {loguniform: [1e-4, 1e-2]}
        weight_decay: {choice: [1e-3, 0.1, 0.001]}
        patience: {int: [2, 5]}
        flip: {choice: [true, false]}
        width: {int: [8, 24]}
        weights: {choice: [null]}
    """
    space = read(tmp_path, written)
    assert space.ranges == {
        "lr": LogUniform(1e-4, 1e-2),
        "weight_decay": Choice((0.001, 0.1)),
        "patience": Integer(2, 5),
        "flip": Choice((True, False)),
        "width": Integer(8, 24),
        "weights": Choice((None,)),
    }
    assert space.start == {
        "lr": 0.003,
        "weight_decay": 0.1,  # the nearest to the default of 0.15
        "patience": 2,
        "flip": True,
        "width": 24,
        "weights": None,
    }
    assert space.settings(space.start).network.filters == (24, 48, 96, 192, 192)
    known = distributions(space.ranges)
    assert optuna.create_trial(params=space.start, distributions=known, value=0.5)


@pytest.mark.parametrize("base", [PLAIN, TrainConfig(), base_of(network={"network": "resnet18"})])
def test_a_space_is_read_back_as_it_was_written(tmp_path: Path, base: TrainConfig) -> None:
    space = default_space(base)
    assert read(tmp_path, space.as_yaml(), base) == space
    chosen = read(tmp_path, {"filters": {"choice": [[8], [8, 16]]}, "patience": {"int": [1, 2]}})
    assert read(tmp_path, chosen.as_yaml()) == chosen


@pytest.mark.parametrize("name", dimensions())
def test_every_setting_rejects_invalid_values_in_a_space(tmp_path: Path, name: str) -> None:
    for wrong in (
        {"choice": ["perhaps"]},
        {"choice": [-1]},
        {"uniform": [-2, -1]},
        {"int": [-1, 0]},
    ):
        assert name in complaint(tmp_path, {name: wrong})


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ({"lrr": {"choice": [1]}}, ["no setting lrr", "did you mean lr?"]),
        ({"stage": {"int": [1, 2]}}, ["no setting stage", "did you mean stages?"]),
        ({"training": {"lr": {"choice": [1]}}}, ["no setting training", "without its group"]),
        ({"seed": {"int": [1, 2]}}, ["seed is the same for all trials"]),
        ({"fit": {"choice": ["crop", "squash"]}}, ["fit is the same for all trials"]),
        ({7: {"int": [1, 2]}}, ["no setting 7"]),
        ({"lr": 0.1}, ["lr: 0.1 is not a range"]),
        ({"lr": {"uniform": [2, 1]}}, ["lr: the range from 2 to 1 is empty"]),
        ({"lr": {"uniform": [0, 1]}}, ["lr: 0.0: ", "greater than 0"]),
        ({"lr": {"choice": [0.1, float("inf")]}}, ["lr: inf: ", "finite"]),
        ({"dropout": {"uniform": [0, 1]}}, ["dropout: 1.0: ", "less than 1"]),
        ({"epochs": {"uniform": [1, 9]}}, ["epochs: ", "whole numbers", "{int: [low, high]}"]),
        ({"stages": {"uniform": [1, 9]}}, ["stages: ", "whole numbers"]),
        ({"stages": {"choice": [2.5]}}, ["stages: 2.5: ", "valid integer"]),
        ({"flip": {"int": [0, 1]}}, ["flip: ", "{choice: [a, b]}"]),
        ({"epochs": {"choice": [True, 45]}}, ["epochs: True: give a number, not yes or no"]),
        ({"dropout": {"uniform": [False, 0.5]}}, ["dropout: ", "uniform"]),
        ({"optimizer": {"choice": ["adamx"]}}, ["optimizer: adamx: ", "'adamw'"]),
        ({"kernel_size": {"int": [3, 5]}}, ["kernel_size 4 is even"]),
        ({"image_size": {"int": [32, 64]}}, ["image_size: write {choice: [a, b]}"]),
        ({"filters": {"int": [32, 64]}}, ["filters: ", "write {choice: [a, b]}"]),
        ({"filters": {"choice": [[8, 0]]}}, ["filters: 8,0: ", "greater than or equal to 1"]),
        (
            {"filters": {"choice": [[8]]}, "width": {"choice": [8]}},
            ["filters, or stages and width"],
        ),
        ({"strength": {"uniform": [0, 1]}, "zoom": {"choice": [0]}}, ["strength, or rotation"]),
        ({"image_size": {"choice": [64, 16]}}, ["5 stages", "16 pixels", "at most 4"]),
        ({"stages": {"int": [7, 9]}}, ["7 stages", "64 pixels", "at most 6"]),
        ({"batch_size": {"choice": [64, 65]}}, ["batch_size 65", "2 workers"]),
        ({"weights": {"choice": ["default"]}}, ["weights", "--network resnet18"]),
        (
            {"network": {"choice": ["resnet18", "cnn"]}, "weights": {"choice": [None, "default"]}},
            ["weights", "--network resnet18"],
        ),
        ({"network": {"choice": ["cnn", "resnet81"]}}, ["resnet81", "did you mean resnet18?"]),
        (
            {"network": {"choice": ["resnet18", "vgg11"]}, "image_size": {"choice": [8, 64]}},
            ["vgg11", "8 pixels"],
        ),
        (
            {"network": {"choice": ["resnet18"]}, "stages": {"int": [1, 2]}},
            ["stages is for the cnn only", "resnet18", "leave it out"],
        ),
        (
            {"network": {"choice": ["resnet18"]}, "growing": {"choice": [0, 0.5]}},
            ["growing is for the cnn only", "leave it out"],
        ),
        ({"test_time_flip": {"choice": [True, False]}}, ["test_time_flip changes no accuracy"]),
        ("", ["holds no ranges"]),
        ("[3]", ["holds no ranges"]),
        ("lr: {uniform: [1", ["not YAML"]),
        ("\x00", ["not YAML"]),
    ],
)
def test_an_invalid_space_is_refused_in_one_line_that_names_the_fault(
    tmp_path: Path, content: Any, parts: list[str]
) -> None:
    line = complaint(tmp_path, content, base_of(resources={"workers": 2}))
    assert all(part in line for part in parts), line


def test_strength_is_refused_if_all_augmentation_is_off(tmp_path: Path) -> None:
    off = base_of(augmentation={"rotation": 0, "shift": 0, "zoom": 0})
    assert "all of them are 0" in complaint(tmp_path, {"strength": {"uniform": [0, 1]}}, off)


def test_a_missing_space_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--space no-such\.yaml: cannot be read: No such file"):
        read_space("no-such.yaml", PLAIN)


def test_more_trials_than_points_are_refused() -> None:
    space = Space({"batch_size": Choice((32, 64)), "epochs": Integer(1, 3)}, TrainConfig())
    space.require_points(6)
    with pytest.raises(UserError, match="has 6 points, fewer than --trials 7: give --trials 6"):
        space.require_points(7)
    Space({"lr": LogUniform(1e-3, 1e-2)}, TrainConfig()).require_points(10**6)


@pytest.mark.filterwarnings("error")
def test_weights_are_tried_with_each_network_of_the_space(tmp_path: Path) -> None:
    weights = tmp_path / "resnet18.pth"
    torch.save(torchvision.models.resnet18().state_dict(), weights)
    base = base_of(network={"network": "resnet18", "weights": str(weights)})
    for networks, fits in ((["resnet18"], True), (["resnet18", "resnet34"], False)):
        file = tmp_path / "space.yaml"
        file.write_text(yaml.safe_dump({"network": {"choice": networks}}))
        if fits:
            assert read_space(str(file), base).choices("network") == ("resnet18",)
        else:
            with pytest.raises(UserError, match=r"resnet34: --weights .* cannot be used"):
                read_space(str(file), base)


def test_the_default_space_around_a_wide_network_proposes_no_network_that_is_refused() -> None:
    space = default_space(base_of(network={"filters": (640, 640)}))
    assert space.settings({"stages": 4, "width": 640}).network.filters == (640, 1280, 2560, 4096)
