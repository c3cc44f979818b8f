"""Laws of the settings: they never change, and what the user says is obeyed or refused."""

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
from cnn.defaults import DIGITS, REGULARISERS, merged, regularisation
from cnn.run_folder import flat

GROUPS: list[type[BaseModel]] = [Images, Augmentation, Network, Training, Resources]
NAMES = ["data", "augmentation", "network", "training", "resources"]

# A page of settings as a file may give it: some of the names, some of the groups, some of theirs.
numbers = st.dictionaries(st.sampled_from("abc"), st.integers())
page = st.fixed_dictionaries({}, optional={"one": numbers, "two": numbers, "seed": st.integers()})


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_has_defaults_and_they_pass_their_own_checks(group: type[BaseModel]) -> None:
    assert group.model_validate(group().model_dump()) == group()


@pytest.mark.parametrize("group", GROUPS)
def test_settings_never_change_once_read(group: type[BaseModel]) -> None:
    name = next(iter(group.model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(group(), name, getattr(group(), name))


@pytest.mark.parametrize("group", [*GROUPS, TrainConfig])
def test_unknown_names_are_refused(group: type[BaseModel]) -> None:
    with pytest.raises(ValidationError, match="colour"):
        group.model_validate({"colour": 1})


@pytest.mark.parametrize("config", [PrepareConfig, TrainConfig])
def test_every_setting_says_what_it_is_on_one_line(config: type[BaseModel]) -> None:
    for group in [config, *GROUPS]:
        for name, field in group.model_fields.items():
            if not isinstance(field.default, BaseModel):
                assert field.description, name
                assert len(field.description.splitlines()) == 1


@pytest.mark.parametrize(
    ("wrong", "mend"),
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
def test_what_cannot_be_is_refused_with_the_mend(wrong: Callable[[], Any], mend: str) -> None:
    with pytest.raises(ValidationError, match=mend):
        wrong()


def test_a_weights_file_is_the_same_wherever_a_worker_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Network(network="resnet18", weights="w.pth").weights == str(tmp_path / "w.pth")
    assert Network(network="resnet18", weights="default").weights == "default"


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 99))
def test_a_batch_is_shared_by_the_workers_without_a_rest_two_images_each_or_more(
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
def test_of_merged_settings_the_upper_win_and_no_other_is_lost(
    below: dict[str, Any], above: dict[str, Any]
) -> None:
    assert flat(merged(below, above)) == flat(below) | flat(above)


def test_the_embedded_digits_bring_settings_that_images_do_not() -> None:
    digits, photos = TrainConfig().model_dump(), TrainConfig(images="photos").model_dump()
    plain = {name: group().model_dump() for name, group in zip(NAMES, GROUPS, strict=True)}
    assert {name: photos[name] for name in NAMES} == plain
    own = merged(merged(plain, regularisation(digits["training"]["epochs"], plain)), DIGITS)
    assert {name: digits[name] for name in NAMES} == own
    assert plain != merged(plain, DIGITS)


def regularisers(settings: TrainConfig) -> dict[tuple[str, str], float]:
    """The values of all that makes training harder."""
    values = settings.model_dump()
    return {
        (group, name): values[group][name] for group in REGULARISERS for name in REGULARISERS[group]
    }


@given(st.integers(1, 200), st.integers(1, 200))
def test_the_shorter_a_training_the_less_it_is_regularised(one: int, other: int) -> None:
    fewer, more = (
        regularisers(TrainConfig.model_validate({"images": "photos", "training": {"epochs": n}}))
        for n in sorted((one, other))
    )
    whole = regularisers(TrainConfig(images="photos"))
    assert all(0 < fewer[name] <= more[name] <= whole[name] for name in whole)
    assert (fewer == whole) == (min(one, other) >= Training().epochs)


@given(st.integers(1, 200))
def test_regularisation_that_is_given_is_taken_as_it_is(epochs: int) -> None:
    given = {"augmentation": {"rotation": 30.0}, "training": {"cutmix": 0.25, "epochs": epochs}}
    chosen = TrainConfig.model_validate({"images": "photos", **given})
    assert (chosen.augmentation.rotation, chosen.training.cutmix) == (30.0, 0.25)
    assert TrainConfig.model_validate(chosen.model_dump(mode="json")) == chosen


def test_over_the_settings_of_the_digits_the_users_own_win() -> None:
    given: dict[str, Any] = {
        "data": {"image_size": 8, "fit": "crop"},
        "network": {"filters": [4], "hidden": 7},
    }
    chosen = TrainConfig.model_validate(given)
    assert chosen.data == Images(image_size=8, fit="crop")
    assert (chosen.network.filters, chosen.network.hidden) == ((4,), 7)
    assert chosen.augmentation.flip == DIGITS["augmentation"]["flip"]


def test_saved_settings_of_the_digits_are_read_back_as_they_were() -> None:
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
def test_a_worker_holds_just_what_fits_its_memory(images: int, image_size: int) -> None:
    size = images * image_size * image_size * 3
    assert Resources(memory=(size + 1) / GIB).hold(images, image_size)
    assert not Resources(memory=(size - 1) / GIB).hold(images, image_size)


@pytest.mark.parametrize("name", ["rotation", "shift", "zoom"])
def test_all_warps_but_mirroring_blur(name: str) -> None:
    still = Augmentation(rotation=0, shift=0, zoom=0, flip=True, vertical_flip=True)
    assert not still.blurs
    assert still.model_copy(update={name: 0.1}).blurs
