"""Metrics of a training run, for Ray's dashboard and for Prometheus behind it."""

from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Gauge

GAUGES = {
    "images_per_second": "Training images per second, over all workers",
    "data_wait": "Fraction of an epoch's training time spent waiting for batches",
    "val_accuracy": "Accuracy on the validation images",
}


class Gauges:
    """The gauges of one run, each named `cnn_` plus its column in history.csv."""

    def __init__(self, run: str) -> None:
        self.gauges = {
            name: Gauge(f"cnn_{name}", description, tag_keys=("run",))
            for name, description in GAUGES.items()
        }
        for gauge in self.gauges.values():
            gauge.set_default_tags({"run": run})

    def show(self, row: Mapping[str, Any]) -> None:
        """Set the gauges to the figures of a finished epoch."""
        for name, gauge in self.gauges.items():
            gauge.set(row[name])
