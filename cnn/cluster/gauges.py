"""What a training run tells Ray's metrics: for its dashboard, and for Prometheus behind it."""

from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Gauge

GAUGES = {
    "images_per_second": "Images that all workers together trained on in a second",
    "data_wait": "Fraction of an epoch's training that went into waiting for batches",
    "val_accuracy": "Accuracy on the validation images",
}


class Gauges:
    """The gauges of one run, as `cnn_` and the name that the figure has in history.csv."""

    def __init__(self, run: str) -> None:
        self.gauges = {
            name: Gauge(f"cnn_{name}", description, tag_keys=("run",))
            for name, description in GAUGES.items()
        }
        for gauge in self.gauges.values():
            gauge.set_default_tags({"run": run})

    def show(self, row: Mapping[str, Any]) -> None:
        """The figures of an epoch that has ended."""
        for name, gauge in self.gauges.items():
            gauge.set(row[name])
