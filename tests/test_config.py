"""Laws of the settings: they never change, and each given value is used or refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from cnn.config import (
    GIB,
    Augmentation,
    Images,
    Network,
    PrepareConfig,
    Resources,
    Search,
    TrainConfig,
    Training,
    TuneConfig,
)
from cnn.runs.run_folder import flat
from cnn.settings.defaults import DIGITS, REGULARISERS, merged, regularisation

GROUPS: list[type[BaseModel]] = [Images, Augmentation, Network, Training, Resources]
NAMES = ["data", "augmentation", "network", "training", "resources"]

# Settings as a file may give them: some of the names and groups, and some names of each group.
numbers = st.dictionaries(st.sampled_from("abc"), st.integers())
page = st.fixed_dictionaries({}, optional={"one": numbers, "two": numbers, "seed": st.integers()})


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_has_valid_defaults(group: type[BaseModel]) -> None:
    assert group.model_validate(group().model_dump()) == group()


@pytest.mark.parametrize("group", GROUPS)
def test_settings_cannot_be_changed(group: type[BaseModel]) -> None:
    name = next(iter(group.model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(group(), name, getattr(group(), name))


@pytest.mark.parametrize("group", [*GROUPS, TrainConfig])
def test_unknown_names_are_refused(group: type[BaseModel]) -> None:
    with pytest.raises(ValidationError, match="colour"):
        group.model_validate({"colour": 1})


@pytest.mark.parametrize("config", [PrepareConfig, TrainConfig])
def test_every_setting_has_a_one_line_description(config: type[BaseModel]) -> None:
    for group in [config, *GROUPS]:
        for name, field in group.model_fields.items():
            if not isinstance(field.default, BaseModel):
                assert field.description, name
                assert len(field.description.splitlines()) == 1


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (
            lambda: TrainConfig(training=Training(batch_size=64), resources=Resources(workers=3)),
            "3",
        ),
        (lambda: Network(kernel_size=4), "odd"),
        (lambda: Network(network="cnn", weights="default"), "--network"),
        (lambda: Network(filters=()), "filters"),
        (lambda: Network(filters=(8, 0)), "filters"),
        (lambda: Network(dropout=1.0), "less than 1"),
        (lambda: Training(lr=0.0), "greater than 0"),
        (lambda: Training(max_minutes=float("inf")), "finite"),
        (lambda: Training(clip=float("nan")), "finite"),
        (lambda: Training(batch_size=1), "greater than or equal to 2"),
        (
            lambda: TuneConfig(search=Search(gpu_fraction=0.5), resources=Resources(workers=2)),
            "--gpu-fraction",
        ),
    ],
)
def test_impossible_settings_are_refused_with_a_hint(wrong: Callable[[], Any], hint: str) -> None:
    with pytest.raises(ValidationError, match=hint):
        wrong()


def test_a_weights_path_becomes_absolute_so_that_every_worker_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Network(network="resnet18", weights="w.pth").weights == str(tmp_path / "w.pth")
    assert Network(network="resnet18", weights="default").weights == "default"


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 99))
def test_the_workers_divide_a_batch_evenly_into_two_images_or_more_each(
    workers: int, batch_size: int
) -> None:
    values = {"training": {"batch_size": batch_size}, "resources": {"workers": workers}}
    if batch_size >= 2 * workers and batch_size % workers == 0:
        assert TrainConfig.model_validate(values).training.batch_size == batch_size
    else:
        with pytest.raises(ValidationError):
            TrainConfig.model_validate(values)


@settings(deadline=None)
@given(page, page)
def test_merging_takes_the_upper_values_and_keeps_all_others(
    below: dict[str, Any], above: dict[str, Any]
) -> None:
    assert flat(merged(below, above)) == flat(below) | flat(above)


def test_only_the_embedded_digits_bring_their_own_settings() -> None:
    digits, photos = TrainConfig().model_dump(), TrainConfig(images="photos").model_dump()
    plain = {name: group().model_dump() for name, group in zip(NAMES, GROUPS, strict=True)}
    assert {name: photos[name] for name in NAMES} == plain
    own = merged(merged(plain, regularisation(digits["training"]["epochs"], plain)), DIGITS)
    assert {name: digits[name] for name in NAMES} == own
    assert plain != merged(plain, DIGITS)


def regularisers(settings: TrainConfig) -> dict[tuple[str, str], float]:
    """The values of all settings that regularise."""
    values = settings.model_dump()
    return {
        (group, name): values[group][name] for group in REGULARISERS for name in REGULARISERS[group]
    }


@given(st.integers(1, 200), st.integers(1, 200))
def test_shorter_training_is_regularised_less(one: int, other: int) -> None:
    fewer, more = (
        regularisers(TrainConfig.model_validate({"images": "photos", "training": {"epochs": n}}))
        for n in sorted((one, other))
    )
    whole = regularisers(TrainConfig(images="photos"))
    assert all(0 < fewer[name] <= more[name] <= whole[name] for name in whole)
    assert (fewer == whole) == (min(one, other) >= Training().epochs)


@given(st.integers(1, 200))
def test_given_regularisation_is_used_unchanged(epochs: int) -> None:
    given = {"augmentation": {"rotation": 30.0}, "training": {"cutmix": 0.25, "epochs": epochs}}
    chosen = TrainConfig.model_validate({"images": "photos", **given})
    assert (chosen.augmentation.rotation, chosen.training.cutmix) == (30.0, 0.25)
    assert TrainConfig.model_validate(chosen.model_dump(mode="json")) == chosen


def test_the_users_settings_win_over_those_of_the_digits() -> None:
    given: dict[str, Any] = {
        "data": {"image_size": 8, "fit": "crop"},
        "network": {"filters": [4], "hidden": 7},
    }
    chosen = TrainConfig.model_validate(given)
    assert chosen.data == Images(image_size=8, fit="crop")
    assert (chosen.network.filters, chosen.network.hidden) == ((4,), 7)
    assert chosen.augmentation.flip == DIGITS["augmentation"]["flip"]


def test_saved_settings_of_the_digits_are_read_back_unchanged() -> None:
    other = TrainConfig.model_validate(
        {
            "data": {"image_size": 64},
            "augmentation": {"flip": True},
            "network": {"filters": [8, 8]},
        }
    )
    for chosen in (TrainConfig(), other):
        assert TrainConfig.model_validate(chosen.model_dump(mode="json")) == chosen


@settings(deadline=None)
@given(st.integers(1, 10**6), st.integers(8, 1024))
def test_a_worker_holds_images_exactly_if_they_fit_its_memory(images: int, image_size: int) -> None:
    size = images * image_size * image_size * 3
    assert Resources(memory=(size + 1) / GIB).fits_in_memory(images, image_size)
    assert not Resources(memory=(size - 1) / GIB).fits_in_memory(images, image_size)


@pytest.mark.parametrize("name", ["rotation", "shift", "zoom"])
def test_every_warp_except_mirroring_blurs(name: str) -> None:
    still = Augmentation(rotation=0, shift=0, zoom=0, flip=True, vertical_flip=True)
    assert not still.blurs
    assert still.model_copy(update={name: 0.1}).blurs
