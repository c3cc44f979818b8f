"""Ray Data: a bundle's predictions for every image, once each."""

import threading
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import ray
import torch
from torch import Tensor

from cnn.bundle import Bundle, as_batch
from cnn.cluster.capacity import own_gpus, require_usable
from cnn.cluster.passes import TASK_RETRIES
from cnn.cluster.scoring_plan import ScoringPlan
from cnn.dataset.pixels import Pixels
from cnn.scoring.prediction import predictions


def score(
    parts: Iterable[tuple[int, pa.Table]], pixels: Pixels, bundle: Bundle, plan: ScoringPlan
) -> Iterator[tuple[int, pa.Table]]:
    """Yields the number and the predictions of each part of a manifest, as soon as it is ready.

    Training runs and scoring runs both get their predictions here. A part stays one block of Ray
    Data throughout, so it must be small enough that Ray Data never splits it (128 MiB).
    """
    blocks = [rows.append_column("part", number_column(number, rows)) for number, rows in parts]
    if not blocks:
        return
    scored = scored_blocks(ray.data.from_arrow(blocks), pixels, bundle, plan)
    for batch in scored.iter_batches(batch_size=None, batch_format="pyarrow"):
        table = pa.table(batch)
        yield table["part"][0].as_py(), table.drop_columns("part")


def scored_blocks(
    blocks: ray.data.Dataset, pixels: Pixels, bundle: Bundle, plan: ScoringPlan
) -> ray.data.Dataset:
    """Lazily maps each block of manifest rows to a block of their predictions."""
    return (
        blocks.map_batches(
            pixels,
            num_cpus=plan.decode_cpus,
            batch_size=None,
            batch_format="pyarrow",
            ray_remote_args_fn=lambda: {"max_retries": TASK_RETRIES},
        )
        # `map_batches` calls this after its checks. With GPUs those require a `batch_size`, which
        # would mix rows of two parts.
        .map_batches_internal(
            Score,
            fn_constructor_args=(ray.put(bundle), plan),
            compute=plan.pool(),
            num_gpus=plan.gpu_fraction,
            num_cpus=plan.worker_cpus,
            batch_size=None,
            batch_format="pyarrow",
            # The caller retries what is missing. Ray would retry for ever, and it prints a warning
            # for every actor that may restart.
            max_restarts=0,
        )
    )


def number_column(number: int, rows: pa.Table) -> pa.Array:
    """The part's number for each of its rows, so that a block identifies its part."""
    return pa.array(np.full(rows.num_rows, number, np.int32))


class Score:
    """An actor that holds a bundle and makes predictions from pixels."""

    def __init__(self, bundle: ray.ObjectRef[Bundle], plan: ScoringPlan) -> None:
        torch.set_num_threads(plan.threads)
        # From the plan: Ray does not hide GPUs from an actor that has requested none. A GPU that
        # cannot be used is reported at the first call: Ray retries an actor that fails to start.
        self.gpu, self.batch_size = plan.gpu, plan.batch_size
        self.device = torch.device("cuda" if self.gpu and own_gpus() else "cpu")
        self.bundle = ray.get(bundle).to(self.device)
        self.thread = threading.local()

    def __call__(self, rows: pa.Table) -> pa.Table:
        require_usable(self.gpu)
        images = as_batch(stacked(rows["image"], self.bundle.card.image_size))
        with torch.cuda.stream(self.stream()):
            probabilities = self.predict(images)
        classes = self.bundle.card.classes
        return predictions(rows, probabilities, classes).append_column("part", rows["part"])

    def predict(self, images: Tensor) -> Tensor:
        """Class probabilities of a part's images, float32 on the CPU."""
        found = [
            self.bundle.predict(images[start : start + self.batch_size].to(self.device))
            for start in range(0, len(images), self.batch_size)
        ]
        return torch.cat(found).cpu() if found else torch.empty(0, len(self.bundle.card.classes))

    def stream(self) -> torch.cuda.Stream | None:
        """This thread's CUDA stream: its copies do not wait for another thread's part."""
        if self.device.type == "cuda" and not hasattr(self.thread, "stream"):
            self.thread.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        return getattr(self.thread, "stream", None)


def stacked(column: pa.ChunkedArray, size: int) -> np.ndarray:
    """The images of a binary column, without its nulls, as uint8 `(N, size, size, 3)`.

    A view, without a copy, if the column is one chunk without nulls.
    """
    found = column.drop_null()
    values = found.chunk(0) if found.num_chunks == 1 else found.combine_chunks()
    _, offsets, data = values.buffers()
    first = np.frombuffer(offsets, np.int32)[values.offset] if len(values) else 0
    flat = np.frombuffer(data or b"", np.uint8)[first : first + len(values) * 3 * size**2]
    return flat.reshape(len(values), size, size, 3)
