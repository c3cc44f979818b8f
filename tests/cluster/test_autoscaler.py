"""Laws of requests for machines: none outlives its block, or machines would cost for ever."""

import json
from typing import Any

import pytest
from ray._private.ray_constants import AUTOSCALER_RESOURCE_REQUEST_CHANNEL
from ray.experimental.internal_kv import _internal_kv_get

from cnn.cluster import autoscaler
from cnn.cluster.autoscaler import Request


def requested() -> list[dict[str, float]]:
    """The bundles that Ray's head keeps for an autoscaler."""
    bundles: list[dict[str, float]] = json.loads(
        _internal_kv_get(AUTOSCALER_RESOURCE_REQUEST_CHANNEL) or "[]"
    )
    return bundles


def test_a_request_is_withdrawn_at_the_end_of_its_block() -> None:
    with Request([{"CPU": 3, "GPU": 0}]):
        assert requested() == [{"CPU": 3}]
    assert requested() == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_request_that_is_interrupted_after_it_was_sent_is_withdrawn(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, float]] = []

    def interrupted() -> Any:
        sent.extend(requested())
        raise error

    monkeypatch.setattr(autoscaler, "status", interrupted)
    with pytest.raises(error), Request([{"CPU": 3}]):
        pass
    assert sent == [{"CPU": 3}] and requested() == []
