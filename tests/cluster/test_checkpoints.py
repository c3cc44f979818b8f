"""Laws of a folder of checkpoints: they are in the order of the epochs, half files go."""

from pathlib import Path

from cnn.cluster.checkpoints import SNAPSHOT, discard_half_written, epoch_name, kept


def test_checkpoints_are_listed_in_the_order_of_their_epochs(tmp_path: Path) -> None:
    names = [epoch_name(epoch) for epoch in (9, 10, 9_999, 10_000)]
    for name in reversed(names):
        (tmp_path / name).mkdir()
    (tmp_path / SNAPSHOT).touch()
    assert [folder.name for folder in kept(tmp_path)] == names
    assert kept(tmp_path / "none") == []


def test_only_a_truncated_record_of_checkpoints_is_removed(tmp_path: Path) -> None:
    record = tmp_path / SNAPSHOT
    for content, stays in (('{"kept": []}', True), ('{"kept"', False)):
        record.write_text(content)
        discard_half_written(tmp_path)
        assert record.is_file() == stays
