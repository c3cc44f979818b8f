"""Laws of what the decoder refuses: any bytes give an image or a reason, in limited memory."""

import pickle
import struct
import time
import typing
import warnings
import zlib

import numpy as np
import pytest
from faults import memory_beside
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import (
    ENCODED,
    big_endian_tiff,
    bmp,
    encode,
    gif_with_a_frame_larger_than_its_screen,
    png,
    webp_canvas,
)
from PIL import Image

from cnn.files.unreadable import BYTE_LIMIT, Reason, Unreadable
from cnn.image import PIXEL_LIMIT, decode

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, on metadata
TOO_LARGE = 16383, 10924  # just above PIXEL_LIMIT, and as wide as a WebP can be
REASONS: tuple[Reason, ...] = typing.get_args(Reason)


def reason(data: bytes) -> Reason | None:
    """None for an image; fails on any exception but Unreadable, and on an unlisted reason."""
    try:
        decode(data, 8)
    except Unreadable as error:
        assert error.reason in REASONS
        return error.reason
    return None


@pytest.mark.parametrize("container", ENCODED)
@given(draw=st.data())
@settings(deadline=None, max_examples=40)
def test_a_file_cut_anywhere_gives_an_image_or_a_reason(
    container: str, draw: st.DataObject
) -> None:
    whole = ENCODED[container]
    kept = draw.draw(st.integers(0, len(whole) - 1))
    assert reason(whole[:kept]) in {None, "truncated", "not_an_image", "empty_file"}


@pytest.mark.parametrize("container", ENCODED)
def test_half_a_file_is_truncated(container: str) -> None:
    whole = ENCODED[container]
    assert reason(whole[: len(whole) // 2]) == "truncated"


@pytest.mark.parametrize("container", ["JPEG", "PNG", "WEBP", "TIFF"])
@given(draw=st.data())
@settings(deadline=None, max_examples=40)
def test_a_file_with_changed_bytes_gives_an_image_or_a_reason(
    container: str, draw: st.DataObject
) -> None:
    damaged = bytearray(ENCODED[container])
    offsets = st.integers(0, len(damaged) - 1)
    for offset, value in draw.draw(
        st.lists(st.tuples(offsets, st.integers(0, 255)), min_size=1, max_size=8)
    ):
        damaged[offset] = value
    reason(bytes(damaged))


@given(
    head=st.sampled_from([b"", *(data[:20] for data in ENCODED.values())]),
    body=st.binary(max_size=200),
)
@settings(deadline=None)
def test_any_bytes_give_an_image_or_a_reason(head: bytes, body: bytes) -> None:
    reason(head + body)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(png(8, 8, b"not zlib"), id="bad zlib"),
        pytest.param(png(8, 8, zlib.compress(bytes(8 * 25))[:-9]), id="short zlib"),
        pytest.param(png(8, 8, zlib.compress(b"")), id="no pixels"),
        pytest.param(png(8, 8, b"").replace(b"\x08\x02", b"\x08\x06", 1), id="bad header CRC"),
        pytest.param(png(0, 8, b""), id="no width"),
        pytest.param(bmp(8, 8), id="header only"),
        pytest.param(ENCODED["PNG"].replace(b"IDAT", b"IDAT\1", 1), id="a byte too many"),
        pytest.param(b"\xff\xd8\xff\xe0 and then something else", id="JPEG marker only"),
    ],
)
def test_a_damaged_image_is_called_truncated(data: bytes) -> None:
    assert reason(data) == "truncated"


def test_a_png_with_complete_pixels_needs_no_valid_checksum() -> None:
    whole = ENCODED["PNG"]
    checksum = whole.index(b"IEND") - 8
    unchecked = whole[:checksum] + bytes(4) + whole[checksum + 4 :]
    assert np.array_equal(decode(unchecked, 24), decode(whole, 24))


def test_the_handmade_png_is_an_image_if_it_is_complete() -> None:
    assert reason(png(8, 8, zlib.compress(bytes(8 * 25)))) is None


@pytest.mark.parametrize(
    "data",
    [
        b"plain text",
        b"BM is how this text begins, and it is no bitmap",
        b"<!doctype html><title>404</title>",
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        pickle.dumps({"class": "cat"}),
        b"PK\x03\x04" + bytes(60),
        b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41" + bytes(32),
        bytes(1000),
        b"\0",
        b"\xff\xd8",
    ],
)
def test_files_of_other_kinds_are_not_an_image(data: bytes) -> None:
    assert reason(data) == "not_an_image"


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100),
        b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(100),
        b"8BPS\0\1" + bytes(100),
        b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),
        b"\xff\x4f\xff\x51" + bytes(100),
        b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(100),
        b"\0\0\1\0\1\0\x10\x10" + bytes(100),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n",
        b"%PDF-1.7\n",
    ],
)
def test_known_containers_that_are_not_decoded_are_unsupported(data: bytes) -> None:
    assert reason(data) == "unsupported_format"


def test_no_bytes_are_an_empty_file() -> None:
    assert reason(b"") == "empty_file"


def test_more_bytes_than_the_limit_are_too_large() -> None:
    assert reason(bytes(BYTE_LIMIT + 1)) == "too_large"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(png(2**31 - 1, 2**31 - 1, b""), id="PNG"),
        pytest.param(png(PIXEL_LIMIT + 1, 1, zlib.compress(bytes(2**20))), id="one pixel over"),
        pytest.param(bmp(100_000, 100_000), id="BMP"),
        pytest.param(bmp(100_000, 100_000)[14:], id="DIB"),
        pytest.param(gif_with_a_frame_larger_than_its_screen(), id="GIF"),
        pytest.param(webp_canvas(2**16, 2**15), id="WebP"),
        pytest.param(
            big_endian_tiff(np.zeros((1, 1), np.uint16)).replace(
                struct.pack(">HHIHH", 256, 3, 1, 1, 0), struct.pack(">HHII", 256, 4, 1, 2**30)
            ),
            id="TIFF",
        ),
    ],
)
def test_a_bomb_is_refused_by_its_header(data: bytes) -> None:
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert reason(data) == "bomb"
    assert time.process_time() - start < 0.2


@pytest.mark.parametrize(
    ("container", "options"),
    [
        *((name, {}) for name in ("PNG", "BMP", "TIFF", "GIF")),
        pytest.param("WEBP", {"method": 0, "quality": 1}, marks=pytest.mark.slow),
    ],
)
def test_a_complete_image_above_the_limit_is_refused_before_it_is_decoded(
    container: str, options: dict[str, int]
) -> None:
    data = encode(Image.new("1", TOO_LARGE), container, **options)
    start = time.process_time()
    assert reason(data) == "bomb"
    assert time.process_time() - start < 0.2


LARGE = """
from pictures import *
from cnn.image import decode
decode(black_png(8, 8, 8), 64), decode(encode(photo(99, 99), "JPEG"), 64)
data = {}
"""


@pytest.mark.parametrize(
    "data, bytes_a_pixel",
    [
        ("encode(Image.new('L', (9488, 9488)), 'JPEG')", 0.4),  # at a scale of one eighth
        ("black_png(9488, 9488, 8)", 1.2),
        ("black_png(9488, 9488, 1)", 5.5),  # as one byte each, then as colours
    ],
)
def test_an_image_of_ninety_megapixels_is_decoded_within_bounds(
    data: str, bytes_a_pixel: float
) -> None:
    decoded = "assert decode(data, 64).max() == 0"
    assert memory_beside(LARGE.format(data), decoded) < bytes_a_pixel * 9488**2


def test_an_image_at_the_pixel_limit_is_not_a_bomb() -> None:
    assert reason(png(PIXEL_LIMIT // 10, 10, b"not zlib")) == "truncated"


def test_an_image_that_does_not_fit_in_memory_is_too_large() -> None:
    row_bits_overflow = png(PIXEL_LIMIT, 1, zlib.compress(b""))
    assert reason(row_bits_overflow) == "too_large"
