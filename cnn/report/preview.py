"""The preview: images as augmentation changes them, to check before training."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from cnn.augment import augment
from cnn.bundle import as_batch
from cnn.config import Augmentation, TrainConfig
from cnn.dataset.pixels import Pixels
from cnn.report.page import page
from cnn.report.provenance import settings_facts
from cnn.report.thumbnail import data_uri, square

ROWS, DRAWS = 10, 7


class Augmented(NamedTuple):
    """An image as it is, and as the network may get it in training, as `data:` URIs."""

    path: str
    label: str
    original: str
    draws: list[str]


def preview_page(title: str, manifest: pa.Table, pixels: Pixels, settings: TrainConfig) -> str:
    """A page with a row for each of a few images: the image, then DRAWS random augmentations.

    The images are a random sample, one of each class before a second of any.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    rows = []
    for path, label, image in _sample(manifest, pixels):
        draws = _draws(image, settings.augmentation, generator)
        rows.append(Augmented(path, label, data_uri(image), [data_uri(draw) for draw in draws]))
    facts = settings_facts(settings.augmentation)
    return page("preview.html.jinja", title=title, rows=rows, facts=facts)


def _sample(manifest: pa.Table, pixels: Pixels) -> Iterator[tuple[str, str, NDArray[np.uint8]]]:
    """Path, label and pixels of the first ROWS readable images, classes taking turns."""
    own = pc.fill_null(pc.equal(manifest["layout"], "train"), True)
    usable = manifest.filter(pc.and_(own, pc.is_null(manifest["error"])))
    table = usable.select(["path", "label"]).to_pandas()
    table["draw"] = pd.util.hash_array(table["path"].to_numpy(dtype=object))
    table = table.sort_values("draw")
    table["turn"] = table.groupby("label").cumcount()
    order = table.sort_values(["turn", "draw"]).index[: 3 * ROWS]
    # More are read than shown, because some files may be broken.
    found = pixels(usable.take(pa.array(order)))
    readable = found.filter(pc.is_valid(found["image"])).slice(0, ROWS)
    for row in readable.select(["path", "label", "image"]).to_pylist():
        yield row["path"], row["label"], square(row["image"])


def _draws(
    image: NDArray[np.uint8], settings: Augmentation, generator: torch.Generator
) -> NDArray[np.uint8]:
    """DRAWS augmentations of one image, uint8 (DRAWS, S, S, 3)."""
    batch = as_batch(np.repeat(image[None], DRAWS, axis=0))
    return augment(batch, settings, generator).permute(0, 2, 3, 1).contiguous().numpy()
