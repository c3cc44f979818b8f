"""Laws of buckets: images and runs on an S3 server (moto's) behave as on a disk."""

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import boto3
import pyarrow.compute as pc
import pytest
from moto.server import ThreadedMotoServer

from cnn.cluster import prepare_run, score_run, train_run, tune_run
from cnn.config import PrepareConfig, ScoreConfig, TrainConfig, TuneConfig
from cnn.errors import UserError
from cnn.files import parquet
from cnn.files.folder import list_folder
from cnn.files.place import Place, place
from cnn.settings.command import parse
from cnn.text.console import Console

SMALL = ("--filters", "8,16", "--epochs", "2", "--workers", "1", "--precision", "float32")


@pytest.fixture(scope="module")
def uri() -> Iterator[str]:
    """The address of a folder in the bucket; `{}` stands for the folder's name."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    options = f"endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    (place(f"s3://key:secret@tests?{options}&allow_bucket_creation=true")).mkdir()
    yield f"s3://key:secret@tests/{{}}?{options}"
    server.stop()


@pytest.fixture(scope="module")
def images(uri: str, digits: Path) -> str:
    """The digits in the bucket."""
    folder = place(uri.format("digits"))
    for file in digits.rglob("*.png"):
        target = folder / str(file.relative_to(digits))
        target.put(file.read_bytes())
    return str(folder)


def names(folder: Place) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


@pytest.fixture(scope="module")
def trained(uri: str, images: str) -> Place:
    run = uri.format("runs/a")
    train_run.train(
        parse(TrainConfig, [images, "--out", run, "--image-size", "16", *SMALL]), Console()
    )
    return place(run)


def test_a_run_in_a_bucket_has_the_files_of_a_run_on_disk(trained: Place, digits: Path) -> None:
    assert names(trained) == {
        "model", "config.yaml", "history.csv", "manifest.parquet", "predictions.parquet",
        "suspects.csv", "evaluation.json", "report.html", "checkpoints",
    }  # fmt: skip
    manifest = parquet.read(trained / "manifest.parquet")
    assert sorted(manifest["path"].to_pylist()) == sorted(
        str(file.relative_to(digits)) for file in digits.rglob("*.png")
    )
    assert sorted(manifest["error"].drop_null().to_pylist()) == ["not_an_image", "truncated"]
    assert len(names(trained / "checkpoints") & {"epoch-0001", "epoch-0002"}) >= 1


def test_a_finished_run_is_left_alone_and_added_images_are_refused(
    trained: Place, images: str, uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    same = [images, "--out", str(trained), "--image-size", "16", *SMALL]
    train_run.train(parse(TrainConfig, same), Console())
    assert "finished: nothing to do" in capsys.readouterr().err
    one = next(iter((place(images) / "3").iterdir()))
    (place(images) / "3/more.png").put(one.read_bytes())
    try:
        with pytest.raises(UserError, match="1 added"):
            train_run.train(parse(TrainConfig, same), Console())
    finally:
        (place(images) / "3/more.png").unlink()


@pytest.mark.slow
def test_scoring_in_a_bucket_gives_the_results_of_scoring_on_disk(
    trained: Place, images: str, uri: str, digits: Path, tmp_path: Path
) -> None:
    outs = (place(uri.format("scores/a")), tmp_path / "out")
    for folder, out in zip((images, digits), outs, strict=True):
        arguments = [str(trained), str(folder), "--out", str(out), "--workers", "1"]
        score_run.score(parse(ScoreConfig, arguments), Console())
    assert names(outs[0]) == names(outs[1])
    accuracies = [json.loads((out / "evaluation.json").read_text())["accuracy"] for out in outs]
    assert accuracies[0] == accuracies[1]
    tables = [parquet.read(out / "predictions/part-000000.parquet") for out in outs]
    assert tables[0].equals(tables[1])
    assert pc.sum(pc.is_valid(tables[0]["error"])).as_py() <= 2


@pytest.mark.slow
def test_a_search_in_a_bucket_finishes_and_is_left_alone(
    images: str, uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = uri.format("runs/search")
    settings = parse(
        TuneConfig, [images, "--out", run, "--image-size", "16", "--trials", "2", *SMALL]
    )
    tune_run.tune(settings, Console())
    assert {"leaderboard.csv", "best.yaml", "model", "report.html"} <= names(place(run))
    tune_run.tune(settings, Console())
    assert "finished: nothing to do" in capsys.readouterr().err


@pytest.mark.parametrize("job", ["train", "train --preview", "prepare"])
def test_a_missing_bucket_is_refused_in_one_line(uri: str, images: str, job: str) -> None:
    nowhere = uri.replace("@tests", "@nowhere").format("run")
    arguments = [images, "--out", nowhere]
    with pytest.raises(UserError, match=r"nowhere.* cannot be written .*: give another") as refused:
        if job == "prepare":
            prepare_run.prepare(parse(PrepareConfig, arguments), Console())
        else:
            more = [*SMALL, *job.split()[1:]]
            train_run.train(parse(TrainConfig, [*arguments, *more]), Console())
    assert "\n" not in str(refused.value)


def test_a_key_with_two_slashes_is_counted_and_ignored(uri: str, images: str) -> None:
    """Tools that join names carelessly make such keys; pyarrow lists them but cannot open them."""
    server = re.search(r"endpoint_override=([^&]+)", uri)
    assert server is not None
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
    client = boto3.client("s3", endpoint_url=f"http://{server[1]}", region_name="us-east-1", **keys)
    before = list_folder(images)
    client.put_object(Bucket="tests", Key="digits/3//odd.png", Body=b"odd")
    try:
        after = list_folder(images)
    finally:
        client.delete_object(Bucket="tests", Key="digits/3//odd.png")
    assert after.files.equals(before.files)
    assert after.ignored == before.ignored | {"double_slash": 1}
    with pytest.raises(UserError, match="check the address"):
        list_folder(images.replace("@tests/", "@tests//"))


def test_a_whole_bucket_is_refused_as_the_folder_of_a_run(uri: str, images: str) -> None:
    with pytest.raises(UserError, match="whole bucket: give a folder in it"):
        train_run.train(parse(TrainConfig, [images, "--out", uri.format(""), *SMALL]), Console())
