"""Laws of folders that nodes share: a node that does not see a folder is reported."""

from pathlib import Path

import pytest

from cnn.cluster import nodes


def test_a_lost_node_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray lists a lost node for a while, and an autoscaler removes idle nodes at any time."""
    (here,) = nodes.alive()
    gone = {"NodeID": "a" * 56, "NodeManagerAddress": "192.0.2.99"}
    monkeypatch.setattr(nodes, "alive", lambda: [here, gone])
    assert nodes.nodes_without(str(tmp_path)) == []
    assert nodes.nodes_without(str(tmp_path / "missing")) == [here["NodeManagerAddress"]]
