"""Laws of a run's folder: a command resumes its own run, and no other."""

import os
from pathlib import Path

import pytest

from cnn.config import ScoreConfig, TrainConfig, TuneConfig
from cnn.dataset.parts import Parts
from cnn.errors import UserError
from cnn.files.folder import list_folder
from cnn.manifest import Manifest, label_images
from cnn.runs.run_folder import TrainFolder, TuneFolder
from cnn.scoring.score_folder import ScoreFolder, identity
from cnn.scoring.worklist import list_images
from cnn.settings.command import parse


def settings(*arguments: str) -> TrainConfig:
    return parse(TrainConfig, ["photos", *arguments])


def begin(run: TrainFolder, settings: TrainConfig, images: Path) -> None:
    """Begin a run, and stop at once."""
    with run.begun(settings, manifest_of(images)):
        pass


def manifest_of(folder: Path) -> Manifest:
    return label_images(list_folder(str(folder)))


def refusal(run: TrainFolder, settings: TrainConfig, images: Path) -> str:
    """The one-line error for these settings and images."""
    with pytest.raises(UserError) as caught:
        run.check(settings, manifest_of(images))
    (line,) = str(caught.value).splitlines()
    assert "another --out" in line
    return line


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of six files in two classes."""
    for number in range(6):
        file = tmp_path / "photos" / ("cat", "dog")[number % 2] / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"image")
    return tmp_path / "photos"


@pytest.fixture
def begun(tmp_path: Path, images: Path) -> TrainFolder:
    """A run with default settings that has written its manifest."""
    run = TrainFolder(tmp_path / "runs" / "begun")
    begin(run, settings(), images)
    manifest_of(images).write(run.manifest)
    return run


def test_a_new_or_empty_folder_is_accepted(tmp_path: Path, images: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        TrainFolder(tmp_path / name).check(settings(), manifest_of(images))
    assert not (tmp_path / "new").exists()


def test_the_same_command_resumes_its_run(begun: TrainFolder, images: Path) -> None:
    begun.check(settings(), manifest_of(images))
    written = begun.config.stat().st_mtime_ns
    begin(begun, settings(), images)
    begun.check(settings(), manifest_of(images))
    assert begun.config.stat().st_mtime_ns == written  # else it is gone for a moment in a bucket


def test_a_run_in_use_by_another_job_is_refused(begun: TrainFolder, images: Path) -> None:
    with begun.begun(settings(), manifest_of(images)):
        assert "another job is using" in refusal(begun, settings(), images)
    begun.check(settings(), manifest_of(images))


def test_a_run_interrupted_before_its_manifest_resumes(begun: TrainFolder, images: Path) -> None:
    begun.manifest.unlink()
    begun.check(settings(), manifest_of(images))


def test_a_run_without_a_manifest_may_restart_with_other_settings(
    begun: TrainFolder, images: Path
) -> None:
    begun.manifest.unlink()
    begun.check(settings("--seed", "1"), manifest_of(images))
    begin(begun, settings("--seed", "1"), images)
    manifest_of(images).write(begun.manifest)
    assert "seed 1, not 0" in refusal(begun, settings(), images)


@pytest.mark.parametrize(
    ("before", "now", "named"),
    [
        (["--epochs", "5"], ["--epochs", "7"], "epochs 5, not 7"),
        (["--lr", "0.5"], ["--lr", "0.25"], "lr 0.5, not 0.25"),
        (["--filters", "8"], ["--filters", "8,16"], "filters [8], not [8, 16]"),
        (["--flip"], ["--no-flip"], "flip True, not False"),
        (["--seed", "1"], ["--seed", "2"], "seed 1, not 2"),
        (["--image-size", "32"], ["--image-size", "64"], "image_size 32, not 64"),
        ([], ["--patience", "3"], "patience None, not 3"),
        (["--max-minutes", "2"], [], "max_minutes 2.0, not None"),
        (["--optimizer", "sgd"], ["--optimizer", "adam"], "optimizer sgd, not adam"),
    ],
)
def test_a_changed_setting_is_refused_with_both_values(
    tmp_path: Path, images: Path, before: list[str], now: list[str], named: str
) -> None:
    run = TrainFolder(tmp_path / "run")
    begin(run, settings(*before), images)
    manifest_of(images).write(run.manifest)
    text = run.config.read_text()
    assert named in refusal(run, settings(*now), images)
    assert run.config.read_text() == text


def test_the_spelling_of_the_images_path_does_not_matter(begun: TrainFolder, images: Path) -> None:
    for name in (str(images), f"{images}/../photos"):
        begun.check(parse(TrainConfig, [name]), manifest_of(Path(name)))


def test_settings_that_do_not_affect_the_result_may_differ(
    begun: TrainFolder, images: Path
) -> None:
    free = settings(
        *["--out", "elsewhere", "--prepared", "there", "--dry-run"],
        *["--workers", "2", "--no-gpu", "--memory", "0", "--batch-size", "64"],
    )
    again = settings("--batch-size", "64")
    begin(begun, again, images)
    begun.check(free, manifest_of(images))


def test_changed_images_are_refused_and_counted(begun: TrainFolder, images: Path) -> None:
    (images / "cat" / "0.jpg").write_bytes(b"another image")  # another size
    os.utime(images / "cat" / "2.jpg", ns=(1, 1))  # another time
    (images / "dog" / "1.jpg").unlink()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (images / "dog" / name).write_bytes(b"new")
    assert "(3 added, 1 removed, 2 changed or" in refusal(begun, settings(), images)


def test_images_listed_in_another_order_are_the_same(begun: TrainFolder, images: Path) -> None:
    manifest = manifest_of(images)
    begun.check(settings(), Manifest(manifest.table.take([5, 3, 1, 0, 2, 4]), manifest.ignored))


def test_a_folder_with_other_files_is_refused(tmp_path: Path, images: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    assert "is not a run" in refusal(TrainFolder(tmp_path / "other"), settings(), images)
    assert [file.name for file in (tmp_path / "other").iterdir()] == ["thesis.txt"]


def test_a_file_instead_of_a_folder_is_refused(tmp_path: Path, images: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "is not a run" in refusal(TrainFolder(tmp_path / "file"), settings(), images)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_run_is_finished_only_once_its_report_exists(begun: TrainFolder) -> None:
    begun.model.mkdir()
    for file in (begun.history, begun.predictions, begun.evaluation):
        file.touch()
    assert not begun.finished
    begun.report.touch()
    assert begun.finished


def test_no_two_files_of_a_run_share_a_name(begun: TrainFolder) -> None:
    names = [name for name in dir(TrainFolder) if isinstance(getattr(TrainFolder, name), property)]
    paths = [getattr(begun, name) for name in names if name != "finished"]
    assert len(set(paths)) == len(paths)
    assert {path.parent for path in paths} == {begun.path}


def test_the_folder_of_another_kind_of_job_is_refused(begun: TrainFolder) -> None:
    search = TuneFolder(begun.path)
    with pytest.raises(UserError, match="holds the run of another job"):
        search.check_settings(parse(TuneConfig, ["photos"]))


def test_a_folder_that_cannot_be_created_is_refused(tmp_path: Path, images: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        begin(TrainFolder(tmp_path / "file" / "run"), settings(), images)


@pytest.mark.parametrize(
    "text", ["database: mine\n", "- a list\n", "half: [a", "images: photos\n", "on: push\n80: x\n"]
)
def test_a_foreign_config_yaml_is_not_a_run_and_stays_unchanged(
    tmp_path: Path, images: Path, text: str
) -> None:
    run = TrainFolder(tmp_path / "project")
    run.path.mkdir()
    run.config.write_text(text)
    run.report.write_text("a report of my own")
    assert not run.finished
    assert "is not a run" in refusal(run, settings(), images)
    with pytest.raises(UserError, match="is not a run"):
        begin(run, settings(), images)
    assert run.config.read_text() == text


def test_a_run_that_another_job_starts_during_a_wait_is_refused(
    tmp_path: Path, images: Path
) -> None:
    run = TrainFolder(tmp_path / "run")
    run.check(settings("--seed", "2"), manifest_of(images))  # now it waits for machines
    begin(run, settings("--seed", "1"), images)
    manifest_of(images).write(run.manifest)
    with pytest.raises(UserError, match="started with seed 1, not 2"):
        begin(run, settings("--seed", "2"), images)
    assert "seed: 1" in run.config.read_text()


def test_a_run_without_its_config_is_refused(begun: TrainFolder, images: Path) -> None:
    begun.config.unlink()
    assert "another job" in refusal(begun, settings(), images)


def test_a_temporary_file_left_by_a_kill_is_ignored(tmp_path: Path, images: Path) -> None:
    run = TrainFolder(tmp_path / "run")
    run.path.mkdir()
    (run.path / ".config.yaml.123.tmp").write_text("half of it")
    (run.path / ".lock").touch()
    run.check(settings(), manifest_of(images))


def test_of_folders_given_in_another_way_the_one_before_is_told(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(images)
    for name in ("0.jpg", "4.jpg"):  # 2.jpg alone: no other shows that its folder is the same
        (images / "cat" / name).unlink()
    run = ScoreFolder(tmp_path / "run")

    def listed(*folders: object) -> tuple[ScoreConfig, Manifest]:
        given = [*map(str, folders)]
        settings = parse(ScoreConfig, ["model", *given, "--out", str(run.path)])
        return settings, list_images(given, []).manifest

    begun, manifest = listed("cat", "dog")
    with run.begun(begun, manifest):
        manifest.write(run.manifest)
    run.check(*listed("./cat", "dog/"))
    with pytest.raises(UserError, match=r"the same folders, .* as before \(cat dog\)"):
        run.check(*listed(images / "cat", "dog"))
    (images / "cat/2.jpg").rename(images / "cat/1.jpg")
    for folders in (("cat", "dog"), (images / "cat", "dog")):
        with pytest.raises(UserError, match="started with other images"):
            run.check(*listed(*folders))


def test_scoring_refuses_images_in_another_order(tmp_path: Path, images: Path) -> None:
    run, manifest = ScoreFolder(tmp_path / "run"), manifest_of(images)
    run.path.mkdir()
    manifest.write(run.manifest)
    with pytest.raises(UserError, match="another order"):
        run.check_images(Manifest(manifest.table.take([5, 3, 1, 0, 2, 4]), {}))


def test_scoring_resumes_only_with_the_same_division_into_parts(
    tmp_path: Path, images: Path
) -> None:
    run, manifest = ScoreFolder(tmp_path / "run"), manifest_of(images)
    coarse, fine = Parts(manifest, 4), Parts(manifest, 2)
    run.begin_with(manifest, "")
    run.check_parts(coarse)
    run.commit(1, coarse[1])
    run.check_parts(coarse)
    with pytest.raises(UserError, match="started by a version that divides images differently"):
        run.check_parts(fine)


def test_resumed_scoring_removes_the_drafts_of_the_killed_session_and_no_part(
    tmp_path: Path, images: Path
) -> None:
    run, manifest = ScoreFolder(tmp_path / "run"), manifest_of(images)
    parts = Parts(manifest, 4)
    run.begin_with(manifest, "")
    run.commit(1, parts[1])
    (tmp_path / "run/predictions/.part-000000.parquet.0123.tmp").write_bytes(b"half")
    run.begin_with(manifest, "")
    assert list(run.predictions.iterdir()) == [run.part(1)]
    assert run.missing(parts) == [0]


def test_scoring_resumes_and_sorts_with_another_batch_size(tmp_path: Path, images: Path) -> None:
    """As the error of a full GPU advises."""
    run, manifest = ScoreFolder(tmp_path / "run"), manifest_of(images)
    command = ["model", "photos", "--out", str(run.path)]
    before, now = (parse(ScoreConfig, [*command, *more]) for more in ([], ["--batch-size", "8"]))
    with run.begun(before, manifest):
        run.begin_with(manifest, "")
    run.check(now, manifest)
    assert identity(before, manifest, "") == identity(now, manifest, "")
    other = parse(ScoreConfig, [*command, "--tta"])
    assert identity(before, manifest, "") != identity(other, manifest, "")
