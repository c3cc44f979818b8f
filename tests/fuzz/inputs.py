"""Damaged images: encodings of a picture in every container and mode, mutated by number."""

import random
import struct
import zlib
from collections.abc import Callable
from io import BytesIO

import numpy as np
from PIL import Image

PNG = b"\x89PNG\r\n\x1a\n"
EDGES = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 2**32 - 1)

Mutation = Callable[[bytearray, random.Random], None]


def seeds() -> list[bytes]:
    """Whole images of every container that is decoded, in the modes and codings it has."""
    y, x = np.mgrid[0:34, 0:45]
    grain = np.random.default_rng(0).integers(0, 60, (34, 45, 3))
    sweep = np.stack([4 * x, 5 * y, 2 * (x + y)], axis=-1)
    picture = Image.fromarray((sweep + grain).clip(0, 255).astype(np.uint8))
    glass = picture.copy()
    glass.putalpha(picture.getchannel(0))
    grey, palette = picture.convert("L"), picture.convert("P")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    film = {"save_all": True, "append_images": [grey.convert("RGB"), picture.rotate(180)]}
    turned = Image.Exif()
    turned[0x0112] = 6
    made: list[tuple[Image.Image, str, dict[str, object]]] = [
        *((image, "JPEG", {}) for image in (picture, grey, picture.convert("CMYK"))),
        *((picture.resize((300, 200)), "JPEG", {"progressive": p, "exif": turned}) for p in (0, 1)),
        (picture, "JPEG", {"restart_marker_rows": 1, "subsampling": 0}),
        *((image, "PNG", {}) for image in (picture, glass, grey, palette, deep, grey.convert("1"))),
        (palette, "PNG", {"transparency": 3}),
        (picture, "PNG", {**film, "exif": turned}),
        *((image, "GIF", {}) for image in (palette, grey)),
        (palette, "GIF", {**film, "transparency": 3}),
        *((image, "WEBP", {"lossless": exact}) for image in (picture, glass) for exact in (0, 1)),
        (picture, "WEBP", {**film, "exif": turned}),
        *((image, "BMP", {}) for image in (picture, glass, palette, grey.convert("1"))),
        (picture, "DIB", {}),
        *((image, "TIFF", {}) for image in (picture, glass, palette, deep, grey.convert("F"))),
        *(
            (picture, "TIFF", {"compression": c})
            for c in ("packbits", "tiff_lzw", "tiff_adobe_deflate", "jpeg")
        ),
        (picture, "TIFF", film),
        (grey.convert("1"), "TIFF", {"compression": "group4"}),
        (picture, "MPO", film),
    ]
    return [encoded(*image) for image in made]


def encoded(image: Image.Image, container: str, options: dict[str, object]) -> bytes:
    buffer = BytesIO()
    image.copy().save(buffer, container, **options)
    return buffer.getvalue()


def damaged(whole: list[bytes], seed: int, number: int) -> bytes:
    """The input of this number: one of the images, after one to eight mutations."""
    chance = random.Random(f"{seed} {number}")
    data = bytearray(chance.choice(whole))
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        chance.choice(MUTATIONS)(data, chance)
    if data.startswith(PNG) and chance.random() < 0.7:
        fix_checksums(data)  # otherwise most of a PNG is never read
    return bytes(data)


def flip(data: bytearray, chance: random.Random) -> None:
    if data:
        data[place(data, chance)] ^= 1 << chance.randrange(8)


def overwrite(data: bytearray, chance: random.Random) -> None:
    """A number that often breaks parsers, in a size and byte order that containers use."""
    coding = chance.choice(("B", "<H", ">H", "<I", ">I"))
    size, at = struct.calcsize(coding), place(data, chance)
    data[at : at + size] = struct.pack(coding, chance.choice(EDGES) % 256**size)


def truncate(data: bytearray, chance: random.Random) -> None:
    del data[place(data, chance) :]


def remove(data: bytearray, chance: random.Random) -> None:
    at = place(data, chance)
    del data[at : at + chance.randrange(1, 40)]


def insert(data: bytearray, chance: random.Random) -> None:
    at = place(data, chance)
    data[at:at] = chance.randbytes(chance.randrange(1, 40))


def repeat(data: bytearray, chance: random.Random) -> None:
    at, start = place(data, chance), place(data, chance)
    data[at:at] = data[start : start + chance.randrange(1, 200)]


MUTATIONS: tuple[Mutation, ...] = (
    flip,
    flip,
    overwrite,
    overwrite,
    remove,
    insert,
    repeat,
    truncate,
)


def place(data: bytearray, chance: random.Random) -> int:
    """A random position; half of them are in the first bytes, where containers have headers."""
    end = max(1, len(data))
    return chance.randrange(min(end, 128) if chance.random() < 0.5 else end)


def fix_checksums(data: bytearray) -> None:
    """Corrects the checksum of each chunk of a PNG, as far as chunks can be found."""
    at = len(PNG)
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4])
        if end + 4 > len(data):
            return
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4
