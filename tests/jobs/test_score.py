"""What a user of jobs.score sees: training's own accuracy, and runs that survive kills."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from runs import console_lines, kill, wait_for

from cnn import bundle
from cnn.bundle import as_batch
from cnn.dataset import digits
from cnn.image import decode

Command = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]
Refused = Callable[..., str]

README = Path(__file__).parents[2] / "README.md"

# One image per pass: a run then lasts long enough to be killed in the middle.
SLOWLY = ("--batch-size", 1)


@pytest.fixture(scope="module")
def model(finished: subprocess.CompletedProcess[str], runs: Path) -> Path:
    assert finished.returncode == 0, finished.stderr
    return runs / "digits"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,797 images, in 16 parts."""
    return digits.write(tmp_path_factory.mktemp("many") / "digits")


def parts(out: Path) -> list[Path]:
    return sorted((out / "predictions").glob("part-*.parquet"))


def rows(out: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(part, partitioning=None) for part in parts(out))


def plainly_predicted(model: Path, table: pa.Table, images: Path) -> list[str]:
    """What a plain loop over the files predicts."""
    loaded = bundle.load(model)
    files = (images / path for path in table["path"].to_pylist())
    pixels = np.stack([decode(file.read_bytes(), loaded.card.image_size) for file in files])
    probabilities = torch.cat([loaded.predict(batch) for batch in as_batch(pixels).split(256)])
    return [loaded.card.classes[number] for number in probabilities.argmax(dim=1)]


def test_scoring_the_test_split_again_gives_the_results_of_training(
    command: Command, model: Path, tmp_path: Path
) -> None:
    manifest = pq.read_table(model / "manifest.parquet")
    source = digits.write(tmp_path / "digits")
    for path in manifest.filter(pc.equal(manifest["split"], "test"))["path"].to_pylist():
        (tmp_path / "test" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / path, tmp_path / "test" / path)
    done = command("score", model / "model", tmp_path / "test", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in console_lines(done.stderr)] == ["data", "model", "plan"]
    again, trained = (
        json.loads((run / "evaluation.json").read_text()) for run in (tmp_path / "out", model)
    )
    for name in ("accuracy", "confusion_matrix", "per_class", "classes", "top5_accuracy"):
        assert again[name] == trained[name]
    columns = ["path", "label", "predicted"]
    predicted = pq.read_table(model / "predictions.parquet").select(columns)
    assert rows(tmp_path / "out").select(columns).equals(predicted)


def test_the_program_in_the_readme_prints_the_predictions_of_the_run(
    model: Path, images: Path
) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    for row in pq.read_table(model / "predictions.parquet").slice(0, 3).to_pylist():
        here = program.replace("runs/tiny20", str(model)).replace(
            "photo.jpg", str(images / row["path"])
        )
        done = subprocess.run(
            [sys.executable, "-c", here], cwd=README.parent, capture_output=True, text=True
        )
        assert done.stderr == ""
        assert done.stdout == f"{row['predicted']} {row['confidence']:.3f}\n"


def test_a_run_that_loses_its_driver_and_a_worker_scores_each_image_once(
    start: Start, model: Path, images: Path, runs: Path
) -> None:
    out = runs / "score-killed"
    arguments = ("score", model, images, "--out", out, *SLOWLY)
    process = start(*arguments)
    kept = wait_for_parts(process, out, 2)
    kill(process)
    assert not (out / "predictions/_SUCCESS").exists()

    process = start(*arguments)
    wait_for_parts(process, out, len(parts(out)) + 2)
    next(worker for worker in workers(process) if "Score" in worker.cmdline()[0]).kill()
    output, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "are scored already" in err
    assert {part: part.stat().st_mtime_ns for part in kept} == kept
    headline, accuracy, last = output.splitlines()
    assert headline.startswith("scored 1,797 of 1,797 images, 0 unreadable")
    assert float(accuracy.split()[1]) > 0.97
    assert last == f"wrote {out}"
    table = rows(out)
    assert sorted(images / path for path in table["path"].to_pylist()) == sorted(
        images.rglob("*.png")
    )
    assert table["predicted"].to_pylist() == plainly_predicted(model / "model", table, images)


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return [p for p in psutil.Process(process.pid).children(recursive=True) if p.cmdline()]


def wait_for_parts(process: subprocess.Popen[str], out: Path, number: int) -> dict[Path, int]:
    """Wait until `number` parts exist; returns them with their modification times."""
    wait_for(process, lambda: len(parts(out)) >= number)
    return {part: part.stat().st_mtime_ns for part in parts(out)}


def no_model(folder: Path, model: Path) -> Path:
    return folder


def no_weights(folder: Path, model: Path) -> Path:
    shutil.copy(model / "model.json", folder)
    return folder


def cut_weights(folder: Path, model: Path) -> Path:
    shutil.copytree(model, folder, dirs_exist_ok=True)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    return folder


def changed_card(folder: Path, model: Path, **values: object) -> Path:
    shutil.copytree(model, folder, dirs_exist_ok=True)
    card = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(card | values))
    return folder


def other_version(folder: Path, model: Path) -> Path:
    return changed_card(folder, model, format_version=99)


def other_classes(folder: Path, model: Path) -> Path:
    return changed_card(folder, model, classes=["a", "b", "c"])


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (no_model, "is not a bundle (no model.json)"),
        (no_weights, "has no model.safetensors"),
        (cut_weights, "is damaged"),
        (other_version, "format version 99"),
        (other_classes, "do not fit model.json"),
    ],
)
def test_an_incomplete_or_damaged_model_is_refused_in_one_line(
    refused: Refused,
    model: Path,
    images: Path,
    tmp_path: Path,
    case: Callable[..., Path],
    words: str,
) -> None:
    (tmp_path / "model").mkdir()
    folder = case(tmp_path / "model", model / "model")
    assert words in refused("score", folder, images, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
