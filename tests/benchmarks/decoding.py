"""Decoding: images per CPU-second and pixels, against Pillow's full decode and bilinear resize.

    python -m tests.benchmarks.decoding IMAGES [--rounds 10] [--large 12]

IMAGES is a folder of photographs. The last rows are for some of them, upscaled
to `--large` megapixels and saved as JPEGs of quality 90.
"""

import argparse
import time
from collections.abc import Callable
from io import BytesIO
from itertools import product
from pathlib import Path

import numpy as np
from PIL import Image

from cnn.image import decode

SIZES = (224, 64)
FEW = 12  # large photographs: a tenth of a second each, for Pillow


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("images", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--large", type=float, default=12, help="megapixels")
    asked = parser.parse_args()
    photos = [file.read_bytes() for file in sorted(asked.images.iterdir()) if file.is_file()]
    large = [upscaled(photo, asked.large * 1e6) for photo in photos[:: -(-len(photos) // FEW)]]
    print("images                 size  ours/CPU-s  Pillow/CPU-s  ratio  difference of 255")
    for (name, images), size in product(
        [("as they are", photos), (f"of {asked.large:g} megapixels", large)], SIZES
    ):
        ours, pillow = least_seconds([decode, plain], images, size, asked.rounds)
        apart = np.mean([difference(decode(data, size), plain(data, size)) for data in images])
        print(
            f"{len(images):4} {name:16} {size:5} {len(images) / ours:11.0f}"
            f" {len(images) / pillow:13.0f} {pillow / ours:6.2f} {apart:18.3f}",
            flush=True,
        )


def plain(data: bytes, size: int) -> np.ndarray:
    """What a loop with Pillow does; `(size, size, 3)` uint8."""
    image = Image.open(BytesIO(data)).convert("RGB")
    return np.array(image.resize((size, size), Image.Resampling.BILINEAR))


def upscaled(photo: bytes, pixels: float) -> bytes:
    """The photograph as a JPEG of about this many pixels."""
    image = Image.open(BytesIO(photo)).convert("RGB")
    times = (pixels / (image.width * image.height)) ** 0.5
    size = round(times * image.width), round(times * image.height)
    buffer = BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def least_seconds(
    decoders: list[Callable[[bytes, int], np.ndarray]], images: list[bytes], size: int, rounds: int
) -> list[float]:
    """CPU-seconds of each decoder for all the images: the least of rounds taken in turn."""
    least = [float("inf")] * len(decoders)
    for _ in range(rounds):
        for number, decoder in enumerate(decoders):
            started = time.process_time()
            for data in images:
                decoder(data, size)
            least[number] = min(least[number], time.process_time() - started)
    return least


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean of the absolute differences between two images' values."""
    return float(np.abs(one.astype(int) - other).mean())


if __name__ == "__main__":
    main()
