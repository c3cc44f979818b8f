"""Laws of folders that nodes share: a node that does not see a folder is reported."""

from pathlib import Path

import pytest

from cnn.cluster import nodes
from cnn.dataset.prepared import CARD
from cnn.errors import UserError


def test_a_lost_node_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray lists a lost node for a while, and an autoscaler removes idle nodes at any time."""
    (here,) = nodes.alive()
    gone = {"NodeID": "a" * 56, "NodeManagerAddress": "192.0.2.99"}
    monkeypatch.setattr(nodes, "alive", lambda: [here, gone])
    assert nodes.nodes_without(str(tmp_path)) == []
    assert nodes.nodes_without(str(tmp_path / "missing")) == [here["NodeManagerAddress"]]


def test_prepared_images_that_a_node_does_not_see_are_reported_without_a_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, unseen = tmp_path / "seen", tmp_path / "unseen"
    seen.mkdir()
    (seen / CARD).touch()
    before = seen.stat().st_mtime_ns
    (here,) = nodes.alive()
    monkeypatch.setattr(nodes, "alive", lambda: [here, here])
    nodes.require_shared_dataset(seen)
    assert seen.stat().st_mtime_ns == before  # no probe was made: the folder may be read-only
    with pytest.raises(UserError, match="mount the folder on every node") as caught:
        nodes.require_shared_dataset(unseen)
    assert str(unseen) in str(caught.value) and here["NodeManagerAddress"] in str(caught.value)
