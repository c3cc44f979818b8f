"""Ray Data: a bundle over every image, once each."""

from pathlib import Path

import pyarrow as pa
import ray
import torch
from ray.data import ActorPoolStrategy

from cnn import bundle, prepared
from cnn.batches import EVALUATION_BATCH
from cnn.cluster.ingest import Advance
from cnn.cluster.resources import Plan
from cnn.prediction import SCHEMA, predictions
from cnn.prepared import Prepared


def score_prepared(
    dataset: Prepared, rows: pa.Table, model: Path, plan: Plan, advance: Advance
) -> pa.Table:
    """Predictions for manifest rows whose images are prepared, sorted by path."""
    rows = rows.select(["path", "label", "shard", "row"]).sort_by("shard")
    size = EVALUATION_BATCH
    blocks = [rows.slice(start, size) for start in range(0, rows.num_rows, size)]
    scored = ray.data.from_arrow(blocks).map_batches(
        ScorePrepared,
        fn_constructor_args=(dataset.folder, dataset.shape, model, plan.threads),
        compute=ActorPoolStrategy(min_size=1, max_size=plan.workers),
        num_gpus=1 if plan.gpu else 0,
        batch_size=size,
        batch_format="pyarrow",
        # Ray complains on the console of every actor that may restart. This pass is short, and
        # the same command does it again.
        max_restarts=0,
    )
    found = []
    advance(0, rows.num_rows)
    for batch in scored.iter_batches(batch_size=None, batch_format="pyarrow"):
        found.append(pa.table(batch).cast(SCHEMA))
        advance(sum(len(table) for table in found), rows.num_rows)
    table = pa.concat_tables(found).sort_by("path")
    if table.num_rows != rows.num_rows:
        raise RuntimeError(f"{rows.num_rows} images went in, {table.num_rows} predictions came out")
    return table


class ScorePrepared:
    """An actor that holds a bundle and scores images out of shards."""

    def __init__(self, folder: Path, shape: tuple[int, int, int], model: Path, threads: int):
        torch.set_num_threads(threads)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.folder, self.shape = folder, shape
        self.bundle = bundle.load(model, self.device)

    def __call__(self, rows: pa.Table) -> pa.Table:
        images = prepared.gather(self.folder, self.shape, rows)
        probabilities = self.bundle.predict(bundle.as_batch(images).to(self.device))
        return predictions(rows["path"], rows["label"], probabilities, self.bundle.card.classes)
