"""Laws of the checks before a run: they estimate and warn, and say what they cannot know."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from faults import ROOT, faulty_decoder

from cnn.config import Images, Network, Resources, TrainConfig, Training
from cnn.dataset import digits
from cnn.dataset.census import Census, take_census
from cnn.dataset.splits import assign_splits
from cnn.errors import UserError
from cnn.loop import State
from cnn.manifest import COLUMNS, Manifest, hash_content
from cnn.network import scale_of
from cnn.runs import dry_run, preflight
from cnn.text.console import Console

SETTINGS = TrainConfig(images="photos", data=Images(image_size=8), network=Network(filters=(4,)))


READ_ALL = """
import sys
from cnn.config import Images
from cnn.text.console import Console
from cnn.files.folder import list_folder
from cnn.manifest import label_images
from cnn.runs.dry_run import read_all

manifest = label_images(list_folder(sys.argv[1]))
read = read_all(sys.argv[1], manifest, Images(image_size=8), Console()).table
print([(row["path"], row["error"]) for row in read.to_pylist() if row["error"]])
"""


def census(images: int = 200) -> Census:
    """Different images of two classes."""
    rows = [
        {"path": f"{n % 2}/{n}.jpg", "label": str(n % 2), "content_hash": hash_content(b"%d" % n)}
        for n in range(images)
    ]
    table = pa.Table.from_pylist(rows, schema=COLUMNS)
    return take_census(Manifest(assign_splits(table, 0), {}))


def test_the_time_is_estimated_from_measured_steps(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten epochs, four of them with images of half the side and three of three quarters."""

    def timed(settings: TrainConfig, state: State, classes: int, device: torch.device) -> float:
        return {8: 1.0, 12: 2.0, 16: 4.0}[scale_of(state.network).side]

    monkeypatch.setattr(dry_run, "timed_step", timed)
    training = Training(epochs=10, growing=0.7, batch_size=32)
    settings = SETTINGS.model_copy(update={"training": training, "data": Images(image_size=16)})
    dry_run.estimate(census(), settings, gpu=False, console=Console())
    steps = census().split_sizes["train"] // 32
    seconds = steps * (4 * 1 + 3 * 2 + 3 * 4)
    line = capsys.readouterr().err.splitlines()[1]
    assert line.startswith(f"time     about {seconds // 60}:{seconds % 60:02} for 10 epochs of")


def test_a_step_is_timed_by_training(capsys: pytest.CaptureFixture[str]) -> None:
    dry_run.estimate(census(), SETTINGS, gpu=False, console=Console())
    disk, time = capsys.readouterr().err.splitlines()
    assert disk.startswith("disk ") and time.startswith("time     about 0:0")
    assert " 0 ms each" not in time


def test_an_epoch_of_less_than_a_batch_is_one_step(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert census(40).split_sizes["train"] < SETTINGS.training.batch_size
    dry_run.estimate(census(40), SETTINGS, gpu=False, console=Console())
    assert "45 epochs of 1 step," in capsys.readouterr().err


def test_the_batch_that_is_timed_has_no_more_images_than_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = set[int]()

    def timed(settings: TrainConfig, state: State, classes: int, device: torch.device) -> float:
        sizes.add(settings.training.batch_size)
        return 1.0

    monkeypatch.setattr(dry_run, "timed_step", timed)
    settings = SETTINGS.model_copy(update={"training": Training(batch_size=2048)})
    dry_run.estimate(census(40), settings, gpu=False, console=Console())
    assert sizes == {census(40).split_sizes["train"]}


def test_a_run_of_very_few_steps_gives_a_warning() -> None:
    few = SETTINGS.model_copy(update={"training": Training(epochs=1)})
    assert preflight.too_short(census(40), few)[0].startswith("1 step in all")
    assert preflight.too_short(census(40), SETTINGS) == []


def test_sampling_of_streamed_images_gives_a_warning() -> None:
    sampling = SETTINGS.model_copy(update={"training": Training(balance="sampling")})
    streamed = sampling.model_copy(update={"resources": Resources(memory=0)})
    assert "--balance loss" in preflight.one_sided(census(40), streamed)[0]
    assert preflight.one_sided(census(40), sampling) == []


@pytest.mark.parametrize(
    ("network", "warnings"),
    [
        (Network(filters=(4,), hidden=8), []),
        (Network(network="resnet18"), []),
        (
            Network(network="resnet18", filters=(4,), hidden=8),
            ["resnet18 ignores --filters, --hidden: leave out settings of the cnn"],
        ),
    ],
)
def test_settings_that_the_network_ignores_are_reported(
    network: Network, warnings: list[str]
) -> None:
    assert preflight.ignored_settings(TrainConfig(images="photos", network=network)) == warnings


def test_more_classes_than_supported_are_refused() -> None:
    rows = [{"path": f"{n}/0.jpg", "label": str(n)} for n in range(preflight.MOST_CLASSES + 1)]
    manifest = Manifest(pa.Table.from_pylist(rows, schema=COLUMNS), {})
    with pytest.raises(UserError, match=r"5,001 classes, but at most 5,000 are supported"):
        preflight.check_network(SETTINGS.network, Images(image_size=8), manifest)


def test_a_file_that_crashes_its_decoder_is_reported(tmp_path: Path) -> None:
    images = digits.write(tmp_path / "images")
    (images / "3/poison.gif").write_bytes(b"GIF89a CRASH")
    environment = {"PYTHONPATH": f"{faulty_decoder(tmp_path)}:{ROOT}"}
    command = [sys.executable, "-c", READ_ALL, str(images)]
    printed = subprocess.check_output(command, env=environment, text=True)
    assert printed == "[('3/poison.gif', 'decoder_crashed')]\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_the_time_on_gpus_of_other_machines_is_not_guessed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    dry_run.estimate(census(), SETTINGS, gpu=True, console=Console())
    disk, time = capsys.readouterr().err.splitlines()
    assert disk.startswith("disk ") and time.endswith("not timed, because this machine has no GPU")
