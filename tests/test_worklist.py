"""Laws of a worklist: every image of every folder once, labelled by its folder or by a file."""

from pathlib import Path

import pytest

from cnn.errors import UserError
from cnn.scoring.worklist import Worklist, list_images, require_apart


def fill(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"image")
    return root


def labels(work: Worklist) -> dict[str, str | None]:
    table = work.manifest.table
    return dict(zip(table["path"].to_pylist(), table["label"].to_pylist(), strict=True))


def complaint(*folders: Path, labels: Path | None = None) -> str:
    with pytest.raises(UserError) as caught:
        list_images([str(folder) for folder in folders], ["cat", "dog"], labels)
    (line,) = str(caught.value).splitlines()
    return line


def test_folders_named_like_classes_of_the_model_are_labels(tmp_path: Path) -> None:
    root = fill(tmp_path / "a", "cat/1.jpg", "dog/deep/2.jpg", "3.jpg", "notes.txt")
    work = list_images([str(root)], ["dog", "cat"])
    assert labels(work) == {"cat/1.jpg": "cat", "dog/deep/2.jpg": "dog", "3.jpg": None}
    assert work.labelled and work.unknown(["cat", "dog"]) == {}
    assert work.manifest.ignored == {"not_an_image_name": 1}


def test_folders_that_are_not_classes_give_no_labels(tmp_path: Path) -> None:
    root = fill(tmp_path / "a", "2023/1.jpg", "2024/2.jpg")
    work = list_images([str(root)], ["cat", "dog"])
    assert set(labels(work).values()) == {None} and not work.labelled


def test_labels_unknown_to_the_model_are_counted(tmp_path: Path) -> None:
    root = fill(tmp_path / "a", "cat/1.jpg", "emu/1.jpg", "emu/2.jpg")
    work = list_images([str(root)], ["cat", "dog"])
    assert labels(work)["emu/1.jpg"] == "emu"
    assert work.unknown(["cat", "dog"]) == {"emu": 2}


def test_images_of_several_folders_are_distinct_and_can_be_located(tmp_path: Path) -> None:
    one, two = fill(tmp_path / "one", "cat/1.jpg"), fill(tmp_path / "two", "cat/1.jpg", "x/2.jpg")
    work = list_images([f"{one}/", str(two)], ["cat"])
    assert set(labels(work)) == {f"{one}/cat/1.jpg", f"{two}/cat/1.jpg", f"{two}/x/2.jpg"}
    for root, path in zip(
        *(work.manifest.table[c].to_pylist() for c in ("root", "path")), strict=True
    ):
        assert (Path(work.roots[root].place) / work.roots[root].below(path)).is_file()


def test_of_a_folder_with_splits_the_test_split_that_holds_classes_is_named(tmp_path: Path) -> None:
    classes = ["cat", "caf\u00e9"]

    def named(name: str, *files: str) -> list[str | None]:
        one, other = fill(tmp_path / name, *files), fill(tmp_path / "flat", "1.jpg")
        works = list_images([str(one)], classes), list_images([str(other), str(one)], classes)
        assert not any(work.labelled for work in works)
        return [works[0].split_in(0, classes), *(works[1].split_in(n, classes) for n in (0, 1))]

    both = named("a", "train/cat/1.jpg", "Testing/cafe\u0301/deep/1.jpg", "more/cat/1.jpg")
    assert both == ["Testing", None, "Testing"]
    assert named("b", "train/cat/1.jpg", "test/1.jpg") == ["train", None, "train"]
    assert named("c", "train/owl/1.jpg", "test/cat.jpg", "2023/cat/1.jpg") == [None] * 3


def test_folders_and_links_without_images_are_named_as_the_paths_name_them(tmp_path: Path) -> None:
    one, two = fill(tmp_path / "one", "cat/1.jpg", "owl/notes.txt"), fill(tmp_path / "two", "2.jpg")
    (two / "dog").symlink_to(one / "cat")
    assert list_images([str(one)], ["cat"]).manifest.empty_folders == ("owl",)
    both = list_images([str(one), str(two)], ["cat"]).manifest.empty_folders
    assert both == (f"{one}/owl", f"{two}/dog")


def test_each_folder_is_labelled_separately(tmp_path: Path) -> None:
    one, two = fill(tmp_path / "one", "cat/1.jpg"), fill(tmp_path / "two", "2023/1.jpg")
    work = list_images([str(one), str(two)], ["cat"])
    assert list(labels(work).values()) == ["cat", None]


def test_no_image_is_scored_twice(tmp_path: Path) -> None:
    root = fill(tmp_path / "a", "cat/1.jpg")
    (tmp_path / "link").symlink_to(root)
    for folders in ([root, root], [root, root / "cat"], [tmp_path / "link", root]):
        assert "given twice, or is in another" in complaint(*folders)
    with pytest.raises(UserError, match="is in another"):
        require_apart(["s3://b/a?region=eu", "s3://b/a/c?region=eu"])
    sibling = fill(tmp_path / "ab", "cat/1.jpg")  # its name begins like the other's
    assert len(list_images([str(root), str(sibling)], ["cat"]).manifest.table) == 2


def test_a_labels_file_labels_the_images_that_it_names(tmp_path: Path) -> None:
    root = fill(tmp_path / "a", "1.jpg", "2.jpg", "NA.jpg", "é,\n.jpg", "cat/5.jpg")
    file = tmp_path / "labels.csv"
    file.write_text(
        'note,path,label\n,1.jpg,cat\n,NA.jpg,NA\n,"é,\n.jpg",dog\n,9.jpg,cat\n,2.jpg,\n,8.jpg\n'
    )
    work = list_images([str(root)], ["cat", "dog"], file)
    expected = {"1.jpg": "cat", "NA.jpg": "NA", "é,\n.jpg": "dog", "2.jpg": None, "cat/5.jpg": None}
    assert labels(work) == expected
    assert (work.unmatched, work.empty_labels) == (1, 2)
    assert work.unknown(["cat", "dog"]) == {"NA": 1}


def test_a_labels_file_may_spell_paths_in_another_unicode_form(tmp_path: Path) -> None:
    composed, apart = "caf\u00e9.jpg", "cafe\u0301.jpg"
    one, both = fill(tmp_path / "one", apart), fill(tmp_path / "both", composed, apart)
    file = tmp_path / "labels.csv"
    file.write_text(f"path,label\n{composed},cat\n", "utf-8")
    work = list_images([str(one)], ["cat", "dog"], file)
    assert labels(work) == {apart: "cat"} and work.unmatched == 0
    assert labels(list_images([str(both)], ["cat", "dog"], file)) == {composed: "cat", apart: None}
    file.write_text(f"path,label\n{apart},dog\n{composed},cat\n", "utf-8")
    for root, found in ((both, {composed: "cat", apart: "dog"}), (one, {apart: "dog"})):
        assert labels(list_images([str(root)], ["cat", "dog"], file)) == found


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("path,class\n1.jpg,cat\n", "no column 'label'"),
        ("path,label,path\n1.jpg,cat,2.jpg\n", "more than one column 'path'"),
        ("path,label,label\n1.jpg,cat,dog\n", "more than one column 'label'"),
        ("path,label\n1.jpg,cat\n1.jpg,dog\n", "two labels for '1.jpg'"),
        ("path,label\nelsewhere/1.jpg,cat\n", "matches no image"),
        ("path,label\n1.jpg,\n", "gives no image a label"),
        ("path,label\n", "gives no image a label"),
        ("", "cannot be read as CSV"),
        ("path,label\n1.jpg,cat,dog\n", "Expected 2 fields in line 2, saw 3"),
    ],
)
def test_an_invalid_labels_file_is_refused(tmp_path: Path, content: str, words: str) -> None:
    root, file = fill(tmp_path / "a", "1.jpg"), tmp_path / "labels.csv"
    file.write_text(content)
    assert words in complaint(root, labels=file)


def test_a_folder_without_images_and_a_missing_labels_file_are_refused(tmp_path: Path) -> None:
    empty = fill(tmp_path / "a", "notes.txt")
    assert "no image found" in complaint(empty) and "1 not an image name" in complaint(empty)
    full = fill(tmp_path / "b", "1.jpg")
    assert "cannot be read" in complaint(full, labels=tmp_path / "nowhere.csv")


def test_the_spelling_of_a_folders_path_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "a", "1.jpg")
    fill(tmp_path / "b", "1.jpg")
    monkeypatch.chdir(tmp_path)
    paths = [
        list_images(folders, []).manifest.table["path"].to_pylist()
        for folders in (["a", "b"], ["./a", "b/"], ["a/../a", ".//b"])
    ]
    assert paths == [["a/1.jpg", "b/1.jpg"]] * 3


def test_a_label_takes_the_unicode_form_of_its_class(tmp_path: Path) -> None:
    composed, apart = "caf\u00e9", "cafe\u0301"
    root = fill(tmp_path / "photos", f"{apart}/1.jpg", "other/2.jpg")
    for classes, label in (([composed, "x"], composed), ([apart, composed], apart)):
        work = list_images([str(root)], classes)
        assert work.manifest.table["label"].to_pylist() == [label, "other"]
        assert work.unknown(classes) == {"other": 1}
