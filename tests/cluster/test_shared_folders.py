"""Laws of folders that nodes share: one that some node does not see is told of."""

from pathlib import Path

import pytest

from cnn.cluster import nodes


def test_a_node_that_has_gone_away_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray lists it for a while, and an autoscaler takes idle ones at any time."""
    (here,) = nodes.alive()
    gone = {"NodeID": "a" * 56, "NodeManagerAddress": "192.0.2.99"}
    monkeypatch.setattr(nodes, "alive", lambda: [here, gone])
    assert nodes.nodes_without(str(tmp_path)) == []
    assert nodes.nodes_without(str(tmp_path / "missing")) == [here["NodeManagerAddress"]]
