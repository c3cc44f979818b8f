"""Test pictures: encodings of one without symmetry, and handmade containers."""

import struct
import zlib
from io import BytesIO

import numpy as np
from PIL import Image, features

LOSSLESS = {"PNG": {}, "TIFF": {}, "BMP": {}, "DIB": {}, "WEBP": {"lossless": True}}
LOSSY: dict[str, dict[str, object]] = {"JPEG": {"quality": 95}, "GIF": {}}
if features.check("avif"):
    LOSSY["AVIF"] = {"quality": 95, "speed": 10}


def encode(image: Image.Image | np.ndarray, container: str, **options: object) -> bytes:
    buffer = BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, container, **options)
    return buffer.getvalue()


def photo(width: int, height: int, noise: float = 8) -> Image.Image:
    """A picture without symmetry: three sweeps of colour, and noise."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    sweeps = np.stack([x / width, y / height, np.sin(5 * x / width + 3 * y / height) / 2 + 0.5], -1)
    rng = np.random.default_rng(0)
    grain = noise * rng.standard_normal((height, width, 1), dtype=np.float32)
    return Image.fromarray((20 + 210 * sweeps + grain).clip(0, 255).astype(np.uint8))


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(float) - other).mean())


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


ENCODED = {
    container: encode(photo(61, 47), container, **options)
    for container, options in (LOSSLESS | LOSSY).items()
}


def big_endian_tiff(pixels: np.ndarray) -> bytes:
    """A 16-bit grey TIFF in the byte order that Pillow does not write."""
    height, width = pixels.shape
    short = {256: width, 257: height, 258: 16, 259: 1, 262: 1, 277: 1, 278: height}
    offset = 8 + 2 + 12 * 9 + 4
    entries = [struct.pack(">HHIHH", tag, 3, 1, value, 0) for tag, value in short.items()]
    entries.insert(5, struct.pack(">HHII", 273, 4, 1, offset))
    entries.append(struct.pack(">HHII", 279, 4, 1, 2 * pixels.size))
    header = b"MM\0*" + struct.pack(">IH", 8, 9)
    return header + b"".join(entries) + bytes(4) + pixels.astype(">u2").tobytes()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, pixels: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG of these compressed pixels; colour 0 is grey, 2 is RGB."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def black_png(width: int, height: int, depth: int) -> bytes:
    """A complete grey PNG, all black."""
    return png(
        width, height, zlib.compress(bytes(height * (1 + -(-width * depth // 8))), 1), depth, 0
    )


def bmp(width: int, height: int) -> bytes:
    """The header of a BMP of RGB."""
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 14 + len(info), 0, 0, 54) + info


def gif_with_a_frame_larger_than_its_screen() -> bytes:
    frame = struct.pack("<BHHHHB", 0x2C, 0, 0, 65535, 65535, 0) + b"\x02\x02\x44\x01\0;"
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0) + frame


def webp_canvas(width: int, height: int) -> bytes:
    canvas = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + canvas
