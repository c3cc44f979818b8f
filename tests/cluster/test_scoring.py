"""Laws of scoring: one row for each image, the bundle's own predictions, and nothing done twice."""

import json
import math
import os
import re
import shutil
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import ray
import torch
from ray.exceptions import RayTaskError

from cnn import bundle, network
from cnn.bundle import Bundle, Card, as_batch
from cnn.cluster import score_run, scoring, train_run, worker
from cnn.cluster.scoring_plan import ScoringPlan, images_per_pass
from cnn.config import Network, ScoreConfig, TrainConfig
from cnn.dataset.parts import Parts
from cnn.dataset.pixels import Decode, Gather
from cnn.dataset.prepared import Prepared
from cnn.errors import UserError, is_full_gpu, reasons
from cnn.files.folder import to_text
from cnn.image import decode
from cnn.manifest import Manifest
from cnn.scoring.worklist import Root
from cnn.settings.command import parse
from cnn.text.console import Advance, Console
from cnn.training.history import Epoch

DIGITS = [str(digit) for digit in range(10)]
PLAN = ScoringPlan(workers=1, batch_size=16)
NAMES = [b"=1+1.png", b"new\nline.png", b"\xff\xfe.png", "é🦆.png".encode(), b"<img src=x>.png"]


def save_model(folder: Path, seed: int, classes: list[str] = DIGITS, flip: bool = False) -> Path:
    """An untrained bundle: for scoring it is as good as any other."""
    torch.manual_seed(seed)
    settings = Network(filters=(8, 16), dropout=0)
    card = Card(classes=classes, image_size=16, fit="squash", network=settings, test_time_flip=flip)
    Bundle(card, network.build(settings, 16, len(classes))).save(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"), seed=0)


@pytest.fixture(scope="module")
def images(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 300 digits, two of them unreadable, some with names that break careless programs."""
    folder = tmp_path_factory.mktemp("hostile") / "digits"
    shutil.copytree(digits, folder)
    for name, file in zip(NAMES, sorted((folder / "7").iterdir()), strict=False):
        os.rename(file, bytes(folder / "7") + b"/" + name)
    return folder


def score(*arguments: object) -> None:
    score_run.score(parse(ScoreConfig, [*map(str, arguments), "--workers", "1"]), Console())


@pytest.fixture(scope="module")
def scored(model: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "scored"
    score(model, images, "--out", out, "--min-confidence", 0.6)
    return out


def rows(out: Path) -> pa.Table:
    parts = sorted((out / "predictions").glob("part-*.parquet"))
    return pa.concat_tables(pq.read_table(part, partitioning=None) for part in parts)


def text_of(out: Path) -> str:
    """The text of a run's page, without tags and with single spaces."""
    page = (out / "report.html").read_text()
    return " ".join(
        unescape(re.sub(r"<(style|script).*?</\1>|<[^>]*>", "", page, flags=re.S)).split()
    )


def test_ray_data_accepts_the_plan_of_scoring_on_a_gpu(model: Path, dataset: Prepared) -> None:
    """Only planned: Ray Data refuses whole blocks for a GPU even before it looks for one."""
    parts = ray.data.from_arrow([dataset.manifest.table])
    plan = ScoringPlan(workers=1, batch_size=16, gpu_fraction=1.0)
    planned = scoring.scored_blocks(parts, Gather(dataset), bundle.load(model), plan)
    assert "Score" in str(planned)


def test_a_worker_that_holds_two_parts_gives_the_same_predictions(
    model: Path, dataset: Prepared
) -> None:
    class TwoAtOnce(ScoringPlan):
        """As on a GPU, without one."""

        at_once = 2

    readable = dataset.manifest.table.filter(pc.is_null(dataset.manifest.table["error"]))
    parts, loaded = Parts(Manifest(readable, {}), 16), bundle.load(model)
    one, two = (
        parts.together(dict(scoring.score(enumerate(parts), Gather(dataset), loaded, plan)))
        for plan in (PLAN, TwoAtOnce(workers=1, batch_size=16))
    )
    assert len(parts) > 4
    assert one["predicted"].equals(two["predicted"])
    assert one["confidence"].to_numpy() == pytest.approx(two["confidence"].to_numpy(), abs=1e-5)


@pytest.mark.parametrize("gpu", [False, True])
def test_a_pass_has_a_bounded_number_of_pixels(gpu: bool) -> None:
    for side in (16, 64, 224, 1024, 4096):
        images = images_per_pass(side, gpu)
        assert images == 1 or images * side**2 <= 2**22
        assert images >= 1


def test_a_full_gpu_is_recognised_from_the_error_of_a_worker(
    model: Path, dataset: Prepared
) -> None:
    def full(rows: pa.Table) -> pa.Table:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8.00 GiB.")

    work = scoring.score([(0, dataset.manifest.table)], full, bundle.load(model), PLAN)
    with pytest.raises(RayTaskError) as caught:
        list(work)
    assert any(map(is_full_gpu, reasons(caught.value)))


def test_each_file_has_exactly_one_row(scored: Path, images: Path) -> None:
    files = [file.relative_to(images) for file in images.rglob("*.png")]
    assert sorted(rows(scored)["path"].to_pylist()) == sorted(to_text(bytes(f)) for f in files)
    summary = json.loads((scored / "summary.json").read_text())
    assert (summary["images"], summary["scored"], summary["unreadable"]) == (300, 298, 2)
    assert summary["reasons"] == {"not_an_image": 1, "truncated": 1}


def test_a_row_has_the_prediction_of_the_bundle_for_its_file(
    scored: Path, images: Path, model: Path
) -> None:
    loaded = bundle.load(model)
    for row in rows(scored).to_pylist()[::23]:
        file = images / row["path"]
        if not file.is_file() or row["error"]:
            continue
        probabilities = loaded.predict(as_batch(decode(file.read_bytes(), 16)[None]))[0]
        assert row["predicted"] == DIGITS[int(probabilities.argmax())]
        assert row["confidence"] == pytest.approx(float(probabilities.max()), abs=1e-5)
        assert row["label"] == row["path"].split("/")[0]


def test_the_csv_files_hold_the_same_rows(scored: Path) -> None:
    table = rows(scored)
    unsure = table.filter(pc.less(table["confidence"], 0.6))
    assert 0 < len(unsure) < 298
    for name, expected in (("predictions.csv", table), ("uncertain.csv", unsure)):
        csv = pd.read_csv(scored / name, dtype={"predicted": str, "label": str})
        for column in ("path", "label", "predicted", "error"):
            assert list(csv[column].fillna("")) == [x or "" for x in expected[column].to_pylist()]
        confidence = expected["confidence"].to_numpy()
        assert csv["confidence"].to_numpy() == pytest.approx(confidence, abs=6e-5, nan_ok=True)
    suspected = json.loads((scored / "evaluation.json").read_text())["label_suspects"]
    assert 0 < suspected < 298
    assert len(pd.read_csv(scored / "suspects.csv")) == suspected


def copied(images: Path, folder: Path) -> Path:
    """The same images in another folder, with other times."""
    shutil.copytree(images, folder, copy_function=shutil.copyfile)
    return folder


def test_a_comparison_lists_the_images_that_only_the_other_run_has_right(
    scored: Path, images: Path, tmp_path: Path
) -> None:
    model = save_model(tmp_path / "model", seed=1)
    out = tmp_path / "out"
    score(model, copied(images, tmp_path / "copy"), "--out", out, "--compare", scored)
    before, now = rows(scored).to_pylist(), rows(out).to_pylist()
    lost = [
        (row["path"], row["label"], row["predicted"])
        for old, row in zip(before, now, strict=True)
        if row["predicted"] and old["predicted"] == row["label"] != row["predicted"]
    ]
    csv = pd.read_csv(out / "lost.csv", dtype=str)[["path", "label", "predicted"]]
    assert lost and list(csv.itertuples(index=False, name=None)) == lost
    assert json.loads((out / "evaluation.json").read_text())["comparison"]["lost"] == len(lost)


def test_labels_that_the_other_model_cannot_predict_are_told_and_no_spelling_of_a_class_is_one(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual, marks = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    few = tmp_path / "few"
    for digit, name in (("1", usual), ("2", "2"), ("9", "9")):
        shutil.copytree(images / digit, few / name)
    before, now = (
        save_model(tmp_path / f"model {last}", 0, ["0", spelling, *DIGITS[2:9], last])
        for spelling, last in ((marks, "nine"), (usual, "9"))
    )
    score(before, few, "--out", tmp_path / "before")
    assert "always wrong" not in capsys.readouterr().err
    score(now, few, "--out", tmp_path / "now", "--compare", tmp_path / "before")
    nines = len(list((few / "9").iterdir()))
    line = (
        f"always wrong in {tmp_path}/before: {nines} images with a label that is no class of its "
        "model: 9"
    )
    assert line in capsys.readouterr().err.splitlines()[1]
    assert line in text_of(tmp_path / "now")
    comparison = json.loads((tmp_path / "now/evaluation.json").read_text())["comparison"]
    right = {row["class"]: (row["before"], row["now"]) for row in comparison["per_class"]}
    assert right[usual][0] == right[usual][1] > 0  # the same weights
    assert right["9"][0] == 0 < right["9"][1] == comparison["gained"]


def test_a_finished_run_can_be_sorted_though_the_run_it_was_compared_with_is_gone(
    scored: Path, model: Path, images: Path, tmp_path: Path
) -> None:
    shutil.copytree(scored, tmp_path / "other")
    out, into = tmp_path / "out", tmp_path / "sorted"
    arguments = (model, images, "--out", out, "--compare", tmp_path / "other")
    score(*arguments)
    shutil.rmtree(tmp_path / "other")
    score(*arguments, "--sort-into", into)
    assert sum(file.is_file() for file in into.rglob("*")) == 298 + 1  # and the folder's key


def test_a_comparison_of_images_that_none_can_read_is_told_to_be_none(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "photos/1/broken.png"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"no image")
    line = f"no comparison with {tmp_path}/before: nothing to compare"
    score(model, tmp_path / "photos", "--out", tmp_path / "before")
    told = capsys.readouterr().err
    assert "no evaluation: " in told and "no comparison" not in told
    assert "no comparison" not in text_of(tmp_path / "before")
    score(model, tmp_path / "photos", "--out", tmp_path / "now", "--compare", tmp_path / "before")
    assert line in capsys.readouterr().err.splitlines()
    assert line in text_of(tmp_path / "now")


def test_a_comparison_needs_labels_and_a_finished_run_over_the_same_images(
    scored: Path, model: Path, images: Path, tmp_path: Path
) -> None:
    def refusal(images: Path, other: Path, *more: object) -> str:
        with pytest.raises(UserError) as caught:
            score(model, images, "--out", tmp_path / "out", "--compare", other, *more)
        (line,) = str(caught.value).splitlines()
        return line

    assert "--compare needs labels" in refusal(images / "1", scored)
    strange = tmp_path / "strange.csv"
    strange.write_text(f"path,label\n{rows(scored)['path'][0]},wolf\n")
    assert "labels that are classes" in refusal(images, scored, "--labels", strange)
    assert "holds no finished scoring run" in refusal(images, tmp_path / "nowhere")
    fewer = copied(images, tmp_path / "fewer")
    next((fewer / "2").iterdir()).unlink()
    assert "scored other images: score the same folders" in refusal(fewer, scored)
    changed = copied(images, tmp_path / "changed")
    with next((changed / "2").iterdir()).open("ab") as file:
        file.write(b"more")
    assert "scored other images of the same names" in refusal(changed, scored)
    assert not (tmp_path / "out").exists()


def test_a_finished_run_is_left_alone(scored: Path, model: Path, images: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in scored.rglob("*")}
    score(model, images, "--out", scored, "--min-confidence", 0.6)
    assert {file: file.stat().st_mtime_ns for file in scored.rglob("*")} == before


def test_an_interrupted_run_scores_only_what_is_missing(
    scored: Path, model: Path, images: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(scored, cut)
    for name in ("report.html", "summary.json", "predictions/_SUCCESS"):
        (cut / name).unlink()
    parts = sorted((cut / "predictions").glob("part-*.parquet"))
    for part in parts[::2]:
        part.unlink()
    (cut / "predictions/.part-000000.parquet.77.tmp").write_bytes(b"half of it")
    kept = {part: part.stat().st_mtime_ns for part in parts[1::2]}
    score(model, images, "--out", cut, "--min-confidence", 0.6)
    assert rows(cut).equals(rows(scored))
    of_all, of_the_last = ((out / "report.html").read_text() for out in (scored, cut))
    assert "in the last session" in of_the_last and "in the last session" not in of_all
    assert {part: part.stat().st_mtime_ns for part in kept} == kept
    assert sorted(file.name for file in (cut / "predictions").iterdir()) == sorted(
        file.name for file in (scored / "predictions").iterdir()
    )


def test_another_model_other_settings_and_other_images_are_refused(
    scored: Path, model: Path, images: Path, tmp_path: Path
) -> None:
    same = ["--out", scored, "--min-confidence", 0.6]
    with pytest.raises(UserError, match="started with another model"):
        score(save_model(tmp_path / "other", seed=1), images, *same)
    with pytest.raises(UserError, match=r"min_confidence 0\.6, not 0\.5"):
        score(model, images, "--out", scored, "--min-confidence", 0.5)
    with pytest.raises(UserError, match="tta None, not True"):
        score(model, images, *same, "--tta")
    with pytest.raises(UserError, match="removed"):
        score(model, images / "3", *same)


def test_what_was_not_scored_is_told_on_the_console_and_on_the_page(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "some"
    shutil.copytree(images / "1", folder / "1")
    (folder / "2").symlink_to(images / "2")
    (folder / "7").mkdir()
    (folder / "1" / "raw.cr2").write_bytes(b"raw")
    (folder / "1" / "notes.pdf").write_bytes(b"notes")
    score(model, folder, "--out", tmp_path / "out")
    console, page = capsys.readouterr().err, text_of(tmp_path / "out")
    for told in (console, page):
        assert "left out, because they hold no images: '2', '7';" in told
        assert "1 directory link, 2 not an image name" in told


def test_for_a_folder_with_splits_the_folder_to_give_is_named(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "test"):
        (tmp_path / "some" / split / "1").mkdir(parents=True)
        shutil.copy(min((images / "1").iterdir()), tmp_path / "some" / split / "1")
    score(model, tmp_path / "some", "--out", tmp_path / "out")
    console = capsys.readouterr().err
    assert "data     2 images without labels, 0 ignored" in console
    for told in (console, text_of(tmp_path / "out")):
        assert f"give {tmp_path}/some/test to evaluate" in told
    score(model, tmp_path / "some/test", "--out", tmp_path / "labelled")
    console = capsys.readouterr().err
    assert "data     1 image labelled, 0 ignored" in console and "to evaluate" not in console


def test_classes_unknown_to_the_model_are_counted_and_not_evaluated(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_model(tmp_path / "model", seed=0, classes=[*DIGITS[1:], "ten"])
    score(model, images, "--out", tmp_path / "out")
    evaluation = json.loads((tmp_path / "out/evaluation.json").read_text())
    zeros = len(list((images / "0").iterdir()))
    assert evaluation["unknown_classes"] == {"0": zeros}
    assert (
        f"{zeros} images with a label that is no class of the model: 0" in capsys.readouterr().err
    )
    page = text_of(tmp_path / "out")
    assert f"Labels that are not classes of the model: 0 ({zeros})." in page
    assert "no class of the model" not in page
    assert evaluation["images"]["judged"] == 298 - zeros
    table = rows(tmp_path / "out").to_pandas()
    known = table[table["predicted"].notna() & (table["label"] != "0")]
    right = (known["label"] == known["predicted"]).mean()
    assert evaluation["accuracy"] == pytest.approx(right)  # by name: "ten" has the index 9


def test_flat_folders_are_evaluated_by_a_labels_file_and_sorted_by_class(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted((images / "1").iterdir())[:20]
    labels = tmp_path / "labels.csv"
    labels.write_text(
        "path,label\n" + "".join(f"{file.name},1\n" for file in files) + "gone.png,1\nempty.png,\n"
    )
    out, into = tmp_path / "out", tmp_path / "sorted"
    arguments = (model, images / "1", "--out", out, "--labels", labels, "--sort-into", into)
    score(*arguments)
    told = capsys.readouterr().err
    for line in (
        "not in the folders: 1 image of the labels",
        "with an empty label: 1 image of the labels",
    ):
        assert line in told and line in text_of(out)
    assert json.loads((out / "evaluation.json").read_text())["images"]["judged"] == 20
    table = rows(out).select(["path", "predicted"]).to_pydict()
    for path, predicted in zip(*table.values(), strict=True):
        assert (into / predicted / path).samefile(images / "1" / path)
    shutil.rmtree(into / predicted)
    score(*arguments)  # finished, and sorted again
    assert (into / predicted / path).is_file()


def test_sorting_keeps_uncertain_images_and_classes_that_differ_in_case_apart(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_model(tmp_path / "model", seed=0, classes=[*"ABCDE", *"abcde"])
    out, into = tmp_path / "out", tmp_path / "sorted"
    arguments = (model, images, "--out", out, "--min-confidence", 0.6, "--sort-into", into)
    score(*arguments)
    expected, unsure = set(), 0
    for row in rows(out).select(["path", "predicted", "confidence"]).to_pylist():
        if row["predicted"]:
            letter = row["predicted"]
            folder = letter if letter.islower() else f"%{ord(letter):X}"
            unsure += row["confidence"] < 0.6
            expected.add((folder if row["confidence"] >= 0.6 else "uncertain", row["path"]))
    found = {
        to_text(os.fsencode(os.path.relpath(os.path.join(above, name), into)))
        for above, _, names in os.walk(into)
        for name in names
    }
    assert found == {"/".join(pair) for pair in expected} | {".sorted"}
    assert len(expected) == 298 and 0 < unsure < 298
    assert any(folder.startswith("%") for folder, _ in expected)
    shutil.rmtree(into / "uncertain")
    (into / "uncertain").write_text("something else")
    capsys.readouterr()
    score(*arguments)
    assert f"not sorted: {unsure} images, whose path there is too long" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("into", "told"),
    [("", "contains --out"), ("out", "contains --out"), ("out/predictions/5", "among the")],
)
def test_images_are_not_sorted_around_or_among_the_predictions(
    model: Path, images: Path, tmp_path: Path, into: str, told: str
) -> None:
    with pytest.raises(UserError, match=told):
        score(model, images, "--out", tmp_path / "out", "--sort-into", tmp_path / into)
    assert not (tmp_path / "out").exists()


def test_images_that_a_damaged_model_cannot_answer_are_counted_and_sorted_nowhere(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = bundle.load(save_model(tmp_path / "model", seed=0))
    with torch.no_grad():
        next(loaded.network.parameters()).fill_(torch.nan)
    loaded.save(tmp_path / "damaged")
    out, into = tmp_path / "out", tmp_path / "sorted"
    arguments = ("--out", out, "--min-confidence", 0.6, "--sort-into", into)
    score(tmp_path / "damaged", images / "3", *arguments)
    number = len(list((images / "3").iterdir()))
    headline = f"scored 0 of {number} images, 2 unreadable, {number - 2} without prediction"
    assert capsys.readouterr().out.startswith(headline)
    assert rows(out)["predicted"].null_count == number
    assert [file.name for file in into.iterdir()] == [".sorted"]


def test_mirror_images_are_averaged_as_the_model_says_unless_the_run_says_otherwise(
    images: Path, tmp_path: Path
) -> None:
    model = save_model(tmp_path / "model", seed=0, flip=True)
    flipping = bundle.load(model)
    for flags, expected in (((), flipping), (("--no-tta",), flipping.with_test_time_flip(False))):
        out = tmp_path / f"out{len(flags)}"
        score(model, images / "1", "--out", out, *flags)
        table = rows(out)
        files = [images / "1" / path for path in table["path"].to_pylist()]
        pixels = np.stack([decode(file.read_bytes(), 16) for file in files])
        confidence = expected.predict(as_batch(pixels)).max(dim=1).values
        assert table["confidence"].to_numpy() == pytest.approx(confidence.numpy(), abs=1e-5)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("evaluated", [False, True])
def test_a_model_scores_with_mirror_images_if_it_was_trained_and_evaluated_with_them(
    dataset: Prepared, flip: bool, evaluated: bool
) -> None:
    settings = TrainConfig.model_validate(
        {"augmentation": {"flip": flip}, "training": {"test_time_flip": evaluated}}
    )
    row = Epoch(
        epoch=1,
        train_loss=1.5,
        train_accuracy=0.25,
        val_loss=1.0,
        val_accuracy=0.5,
        temperature=1.0,
        side=16,
        lr=0.1,
        seconds=2.0,
        images_per_second=3.5,
        data_wait=0.1,
    )
    assert worker.card(settings, dataset, row).test_time_flip == (flip and evaluated)


@pytest.mark.parametrize(("found", "kept"), [(0.6, 0.6), (math.nan, 1.0)])
def test_the_temperature_of_an_epoch_is_that_of_its_model(
    dataset: Prepared, found: float, kept: float
) -> None:
    row = Epoch(**dict.fromkeys(Epoch.__annotations__, 1.0) | {"side": 16, "temperature": found})  # type: ignore[typeddict-item]
    assert worker.card(TrainConfig(), dataset, row).temperature == kept


def test_prepared_images_get_the_predictions_of_their_files(
    model: Path, digits: Path, dataset: Prepared
) -> None:
    table = dataset.manifest.table.filter(pc.is_null(dataset.manifest.table["error"]))
    table = table.append_column("root", pa.array([0] * len(table), pa.int16()))
    parts = Parts(Manifest(table, {}), 50)
    loaded = bundle.load(model)
    decoded, gathered = (
        parts.together(dict(scoring.score(enumerate(parts), pixels, loaded, PLAN)))
        for pixels in (Decode([Root(str(digits), "")], 16, "squash"), Gather(dataset))
    )
    assert decoded.equals(gathered)


def test_the_bar_of_the_test_split_starts_at_none_done(model: Path, dataset: Prepared) -> None:
    """Else its first part would count as done before, and the rate as zero."""
    shown: list[tuple[int, int]] = []

    class Recorded(Console):
        @contextmanager
        def bar(self, title: str, unit: str = "") -> Iterator[Advance]:
            yield lambda done, total: shown.append((done, total))

    table = dataset.manifest.table.filter(pc.is_null(dataset.manifest.table["error"]))
    train_run.predict(Manifest(table, {}), dataset, bundle.load(model), PLAN, Recorded())
    assert (shown[0], shown[-1]) == ((0, len(table)), (len(table), len(table)))
