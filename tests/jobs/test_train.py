"""What a user of jobs.train sees: results, refusals, and runs that resume after a kill."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest
import yaml
from faults import faulty_decoder
from runs import EPOCHS, console_lines, wait_for

from cnn.dataset import digits

Command = Callable[..., subprocess.CompletedProcess[str]]
Refused = Callable[..., str]
Start = Callable[..., subprocess.Popen[str]]
Here = Callable[..., tuple[int, str, str]]

CONTRACT = {
    "model", "config.yaml", "history.csv", "manifest.parquet", "predictions.parquet",
    "suspects.csv", "evaluation.json", "report.html", "checkpoints",
}  # fmt: skip
HISTORY = [
    "epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "temperature", "side",
    "lr", "seconds", "images_per_second", "data_wait",
]  # fmt: skip


def test_training_on_the_embedded_digits_reaches_97_percent(
    finished: subprocess.CompletedProcess[str], runs: Path
) -> None:
    assert finished.returncode == 0, finished.stderr
    evaluation = json.loads((runs / "digits/evaluation.json").read_text())
    assert evaluation["accuracy"] >= 0.97
    headline, last = finished.stdout.splitlines()
    assert headline.startswith(f"test accuracy {evaluation['accuracy']:.3f}")
    assert last == f"wrote {runs / 'digits'}"


def test_the_console_shows_only_what_matters(finished: subprocess.CompletedProcess[str]) -> None:
    lines = console_lines(finished.stderr)
    assert "nothing to decode" in lines[0]
    first_words = [line.split()[0] for line in lines]
    epochs = [word for word in first_words if "/" in word]
    rest = [word for word in first_words if "/" not in word]
    assert rest == ["prepared", "data", "network", "plan", "epoch"]
    # It was killed after at least three epochs, and may have lost one or two of them.
    assert 1 < 9 - len(epochs) <= 8
    assert epochs == [f"{n}/8" for n in range(9 - len(epochs), 9)]


def test_the_run_folder_holds_the_documented_files(
    finished: subprocess.CompletedProcess[str], runs: Path
) -> None:
    run = runs / "digits"
    assert {entry.name for entry in run.iterdir()} == CONTRACT
    history = pd.read_csv(run / "history.csv")
    assert list(history.columns) == HISTORY
    assert list(history["epoch"]) == list(range(1, 9))
    kept = {entry.name for entry in (run / "checkpoints").iterdir() if entry.is_dir()}
    # The best and the last, and one that Ray may have lost track of when it was killed.
    assert f"epoch-{len(history):04d}" in kept and len(kept) <= 3


def test_the_report_names_the_epoch_of_the_model(
    finished: subprocess.CompletedProcess[str], runs: Path
) -> None:
    card = json.loads((runs / "digits/model/model.json").read_text())
    history = pd.read_csv(runs / "digits/history.csv")
    assert card["trained"]["val_accuracy"] == history["val_accuracy"].max()
    sentence = f"The model is from epoch {card['trained']['epoch']}, the best"
    assert sentence in (runs / "digits/report.html").read_text()


def test_each_image_is_in_one_split_and_each_test_image_is_evaluated_once(
    finished: subprocess.CompletedProcess[str], runs: Path
) -> None:
    manifest = pq.read_table(runs / "digits/manifest.parquet").to_pandas()
    assert len(manifest) == 1797 and manifest["split"].notna().all()
    predictions = pq.read_table(runs / "digits/predictions.parquet").to_pandas()
    assert list(predictions["path"]) == list(manifest[manifest["split"] == "test"]["path"])
    evaluation = json.loads((runs / "digits/evaluation.json").read_text())
    right = (predictions["label"] == predictions["predicted"]).mean()
    assert evaluation["accuracy"] == pytest.approx(right)
    assert sum(map(sum, evaluation["confusion_matrix"])) == len(predictions)


def test_a_finished_run_is_left_alone_also_with_its_saved_settings(
    finished: subprocess.CompletedProcess[str], here: Here, runs: Path
) -> None:
    before = (runs / "digits/report.html").stat().st_mtime_ns
    for arguments in (
        ["--out", runs / "digits", *EPOCHS],
        ["--config", runs / "digits/config.yaml"],
    ):
        code, out, err = here("train", *arguments)
        assert (code, out) == (0, finished.stdout)
        assert "finished: nothing to do" in err
    assert (runs / "digits/report.html").stat().st_mtime_ns == before


def test_a_run_from_prepared_images_saves_their_size_and_can_be_repeated(
    finished: subprocess.CompletedProcess[str], here: Here, runs: Path, tmp_path: Path
) -> None:
    (prepared,) = (runs / "prepared").iterdir()
    run = tmp_path / "run"
    shape = ["--epochs", 1, "--filters", "8,8", "--batch-size", 256]
    code, out, err = here("train", prepared, "--out", run, *shape)
    assert code == 0, err
    warned = "5 steps in all, too few to train"
    assert warned in err and warned in (run / "report.html").read_text()
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["image_size"] == 16
    assert here("train", "--config", run / "config.yaml")[:2] == (0, out)
    assert here("train", prepared, "--image-size", 16, "--out", run, *shape)[:2] == (0, out)


def test_a_preview_is_one_page_beside_the_run_and_nothing_else(here: Here, tmp_path: Path) -> None:
    images = digits.write(tmp_path / "images")
    code, out, err = here("train", images, "--out", tmp_path / "run", "--preview")
    page = tmp_path / "run-preview.html"
    assert (code, out) == (0, f"wrote {page}\n"), err
    assert page.read_text().count("data:image/") > 10
    assert sorted(tmp_path.iterdir()) == [images, page]


def test_too_long_a_folder_for_rays_sockets_is_named(command: Command, tmp_path: Path) -> None:
    images = digits.write(tmp_path / "images")
    arguments = ["prepare", images, "--out", tmp_path / "prepared"]
    done = command(*arguments, environment={"RAY_TMPDIR": str(tmp_path / ("x" * 90))})
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: the folder of Ray's sockets")


@pytest.mark.parametrize("address", ["foo", "http://127.0.0.1:8265", "127.0.0.1:{}"])
def test_an_address_without_a_ray_is_refused_in_one_line(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    with socket.create_server(("", 0)) as server:
        closed = address.format(server.getsockname()[1])
    monkeypatch.setenv("RAY_ADDRESS", closed)
    images = digits.write(tmp_path / "images")
    assert f"RAY_ADDRESS={closed}" in refused("prepare", images, "--out", tmp_path / "prepared")


def test_other_settings_are_refused(
    finished: subprocess.CompletedProcess[str], refused: Refused, runs: Path
) -> None:
    assert "lr 0.003, not 0.5" in refused("train", "--out", runs / "digits", *EPOCHS, "--lr", "0.5")


def test_a_dry_run_reports_without_writing_files_or_starting_ray(
    here: Here, tmp_path: Path
) -> None:
    images = digits.write(tmp_path / "images")
    (images / "0/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (images / "0/copy.png").write_bytes((images / "0/0000.png").read_bytes())
    other = tmp_path / "run/other.txt"  # no run could start here
    other.parent.mkdir()
    other.touch()
    small = ["--image-size", 32, "--filters", "8,8"]
    code, out, err = here("train", images, "--out", tmp_path / "run", "--dry-run", *small)
    assert (code, out) == (0, ""), err
    assert not [one for one in psutil.Process().children() if one.name() == "raylet"]
    for text in (
        "1,798 images in 10 classes", "1 unreadable", "0/broken.png", "1 duplicates",
        "time     about",
    ):  # fmt: skip
        assert text in err
    assert sorted(tmp_path.iterdir()) == [images, other.parent]
    assert list(other.parent.iterdir()) == [other]


@pytest.mark.parametrize("look", ["--dry-run", "--preview"])
def test_ctrl_c_ends_a_look_at_the_images_in_one_line(
    start: Start,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    look: str,
) -> None:
    """A terminal sends it to the processes that decode as well, and nothing is to be resumed.

    One of these hangs, for a minute if it were waited for.
    """
    faulty = faulty_decoder(tmp_path_factory.mktemp("decoder"))
    monkeypatch.setenv("PYTHONPATH", str(faulty), prepend=os.pathsep)
    images = digits.write(tmp_path / "images")
    (images / "0" / "!.gif").write_bytes(b"GIF89a HANG")
    process = start("train", images, "--out", tmp_path / "run", look)

    def decodes() -> bool:
        below = psutil.Process(process.pid).children()
        return any("cnn.dataset.decoding" in one.cmdline() for one in below)

    wait_for(process, decodes)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "stopped\n")
    assert list(tmp_path.iterdir()) == [images]


def missing(folder: Path) -> list[object]:
    return [folder / "nowhere"]


def empty(folder: Path) -> list[object]:
    (folder / "empty").mkdir()
    return [folder / "empty"]


def one_class(folder: Path) -> list[object]:
    digits.write(folder / "images/all").joinpath("3").rename(folder / "three")
    (folder / "one").mkdir()
    (folder / "three").rename(folder / "one/three")
    return [folder / "one"]


def too_many_stages(folder: Path) -> list[object]:
    return [digits.write(folder / "images"), "--image-size", 16, "--filters", "8,8,8,8,8"]


def no_such_gpus(folder: Path) -> list[object]:
    return [digits.write(folder / "images"), "--gpu", "--workers", 32]


def no_such_network(folder: Path) -> list[object]:
    return [digits.write(folder / "images"), "--network", "resnet81"]


def occupied(folder: Path) -> list[object]:
    (folder / "run").mkdir()
    (folder / "run/thesis.txt").write_text("mine")
    return [digits.write(folder / "images")]


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (missing, ["nowhere", "give an existing folder"]),
        (empty, ["empty", "one folder of images per class"]),
        (one_class, ["only one class, 'three'"]),
        (too_many_stages, ["--filters", "--image-size 32"]),
        (no_such_gpus, ["GPU"]),
        (no_such_network, ["resnet81", "did you mean resnet18?"]),
        (occupied, ["is not a run", "--out"]),
    ],
)
def test_bad_input_is_refused_in_one_line_before_anything_is_written(
    refused: Refused, tmp_path: Path, case: Callable[[Path], list[object]], words: list[str]
) -> None:
    arguments = case(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    line = refused("train", *arguments, "--out", tmp_path / "run")
    assert all(word in line for word in words), line
    assert sorted(tmp_path.rglob("*")) == before


def test_a_refusal_exits_with_code_2_and_one_line(command: Command, tmp_path: Path) -> None:
    done = command("train", tmp_path / "nowhere", "--out", tmp_path / "run")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
