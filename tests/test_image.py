"""Laws of the decoder: any bytes give the picture a person would see, or one reason why not."""

import pickle
import struct
import time
import typing
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features
from PIL.PngImagePlugin import PngInfo

from cnn.image import BYTE_LIMIT, PIXEL_LIMIT, Fit, Reason, Unreadable, decode

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),  # Pillow's, on the metadata damaged here
    pytest.mark.filterwarnings("error::RuntimeWarning"),  # Pillow's on bombs, NumPy's on arithmetic
]

FITS: tuple[Fit, ...] = typing.get_args(Fit)
REASONS: tuple[Reason, ...] = typing.get_args(Reason)
LOSSLESS = {"PNG": {}, "TIFF": {}, "BMP": {}, "DIB": {}, "WEBP": {"lossless": True}}
LOSSY: dict[str, dict[str, object]] = {"JPEG": {"quality": 95}, "GIF": {}}
if features.check("avif"):
    LOSSY["AVIF"] = {"quality": 95, "speed": 10}
TURNS = {  # the EXIF orientation that undoes each turn
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


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


def tiles(width: int, height: int, side: int = 9) -> Image.Image:
    """Hard edges everywhere, the worst case for decoding at reduced scale."""
    shape = (height // side + 1, width // side + 1, 3)
    colours = np.random.default_rng(0).integers(20, 235, shape, dtype=np.uint8)
    return Image.fromarray(colours.repeat(side, 0).repeat(side, 1)[:height, :width].copy())


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(float) - other).mean())


def reason(data: bytes) -> Reason | None:
    """None for an image; fails on any exception but Unreadable, and on an unlisted reason."""
    try:
        decode(data, 8)
    except Unreadable as error:
        assert error.reason in REASONS
        return error.reason
    return None


ENCODED = {
    container: encode(photo(61, 47), container, **options)
    for container, options in (LOSSLESS | LOSSY).items()
}


# What comes out


@pytest.mark.parametrize("container", ENCODED)
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [1, 24, 100])
def test_any_container_gives_a_contiguous_square_of_rgb_bytes(
    container: str, fit: Fit, size: int
) -> None:
    pixels = decode(ENCODED[container], size, fit)
    assert pixels.shape == (size, size, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable


@pytest.mark.parametrize("container", LOSSLESS)
def test_an_image_of_the_right_size_in_a_lossless_container_is_not_changed(container: str) -> None:
    picture = photo(32, 32)
    data = encode(picture, container, **LOSSLESS[container])
    assert np.array_equal(decode(data, 32), np.asarray(picture))


def test_squash_is_the_whole_image_under_an_antialiased_bilinear_filter() -> None:
    expected = photo(61, 47).resize((24, 24), Image.Resampling.BILINEAR)
    assert difference(decode(ENCODED["PNG"], 24), np.asarray(expected)) < 0.3  # rounding


@pytest.mark.parametrize("width, height", [(90, 31), (31, 90)])
def test_crop_keeps_the_aspect_and_the_centre(width: int, height: int) -> None:
    y, x = np.mgrid[0:height, 0:width]
    disc = np.hypot(x + 0.5 - width / 2, y + 0.5 - height / 2) < 12
    pixels = decode(encode(np.uint8(255) * disc, "PNG"), 62, "crop")[..., 0] > 127
    rows, columns = np.nonzero(pixels)
    assert np.ptp(rows) == pytest.approx(2 * 24, abs=3)
    assert np.ptp(columns) == pytest.approx(2 * 24, abs=3)
    assert rows.mean() == columns.mean() == pytest.approx(30.5)


@given(side=st.integers(1, 40), size=st.integers(1, 40))
@settings(deadline=None, max_examples=30)
def test_crop_and_squash_agree_on_squares(side: int, size: int) -> None:
    data = encode(photo(side, side), "PNG")
    assert np.array_equal(decode(data, size, "crop"), decode(data, size, "squash"))


# Orientation


def stored(picture: Image.Image, orientation: int) -> Image.Image:
    """As a camera stores the picture, for it to be upright once the orientation is applied."""
    turn = TURNS[orientation]
    return picture if turn is None else picture.transpose(turn)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(
    "container, options",
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("TIFF", {"save_all": True, "append_images": [Image.new("RGB", (5, 4))]}),
    ],
)
def test_all_eight_orientations_give_the_same_pixels(
    container: str, options: dict[str, object], fit: Fit
) -> None:
    picture = photo(61, 46)
    upright = decode(encode(picture, container, **options), 24, fit).astype(int)
    for orientation in TURNS:
        turned = stored(picture, orientation)
        pixels = decode(encode(turned, container, exif=exif(orientation), **options), 24, fit)
        assert np.abs(pixels - upright).max() <= 1, orientation  # rounding between two passes


@pytest.mark.parametrize("fit", FITS)
def test_all_eight_orientations_of_a_jpeg_decoded_at_reduced_scale_agree(fit: Fit) -> None:
    picture = photo(801, 535, noise=0)  # neither is a multiple of 8
    upright = decode(encode(picture, "JPEG", quality=95), 32, fit)
    for orientation in TURNS:
        data = encode(stored(picture, orientation), "JPEG", quality=95, exif=exif(orientation))
        assert difference(decode(data, 32, fit), upright) < 0.5, orientation


def test_damaged_metadata_costs_no_image() -> None:
    picture, garbage = photo(61, 47), PngInfo()
    garbage.add_text("Raw profile type exif", "\nexif\n8\nnot hexadecimal")
    for options in ({"exif": b"Exif\0\0II*\0\xff\xff\xff\xff"}, {"pnginfo": garbage}):
        data = encode(picture, "PNG", **options)
        assert np.array_equal(decode(data, 16), decode(ENCODED["PNG"], 16))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_outside_the_standard_is_ignored(orientation: int) -> None:
    data = encode(photo(61, 47), "PNG", exif=exif(orientation))
    assert np.array_equal(decode(data, 16), decode(ENCODED["PNG"], 16))


# Depths and modes

RAMP = np.tile(np.linspace(0, 1, 64), (64, 1))
RAMP_IN_BYTES = np.rint(255 * RAMP)


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


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encode((65535 * RAMP).astype(np.uint16), "PNG"), id="16-bit PNG"),
        pytest.param(encode((65535 * RAMP).astype(np.uint16), "TIFF"), id="16-bit TIFF"),
        pytest.param(big_endian_tiff((65535 * RAMP).astype(np.uint16)), id="big-endian TIFF"),
        pytest.param(encode((65535 * RAMP).astype(np.int32), "TIFF"), id="int32 up to 65535"),
        pytest.param(encode((255 * RAMP).round().astype(np.int32), "TIFF"), id="int32 up to 255"),
        pytest.param(encode((4e9 * RAMP - 2e9).astype(np.int32), "TIFF"), id="int32, all of it"),
        pytest.param(encode(RAMP.astype(np.float32), "TIFF"), id="float up to 1"),
        pytest.param(encode((255 * RAMP).astype(np.float32), "TIFF"), id="float up to 255"),
        pytest.param(encode((6e38 * RAMP - 3e38).astype(np.float32), "TIFF"), id="float, all"),
    ],
)
def test_a_deep_grey_ramp_is_scaled_to_eight_bits_and_not_clipped(data: bytes) -> None:
    for size in (64, 32):
        pixels = decode(data, size)
        expected = Image.fromarray(RAMP_IN_BYTES.astype(np.uint8)).resize(
            (size, size), Image.Resampling.BILINEAR
        )
        stretched = 3 if size < 64 else 1  # from the shrunk image's own least to greatest value
        assert np.abs(pixels - np.asarray(expected, dtype=float)[..., None]).max() <= stretched


def test_a_dark_sixteen_bit_image_stays_dark() -> None:
    assert decode(encode(np.full((8, 8), 200, np.uint16), "PNG"), 8).max() == 1


@given(
    st.lists(st.floats(width=32), min_size=4, max_size=4)
    | st.lists(st.sampled_from([np.nan, np.inf, -np.inf, 0.0, 1.0]), min_size=4, max_size=4)
)
@settings(deadline=None)
def test_a_float_image_keeps_its_order_whatever_its_values(values: list[float]) -> None:
    row = np.array(values, np.float32)
    pixels = decode(encode(np.tile(row, (4, 1)), "TIFF"), 4)[0, :, 0]
    ranked = np.argsort(np.nan_to_num(row, nan=-np.inf, posinf=np.inf, neginf=-np.inf))
    assert np.all(np.diff(pixels[ranked].astype(int)) >= 0)


def test_a_constant_deep_image_has_no_contrast_to_stretch() -> None:
    for value in (-7.0, 1e9, np.nan):
        assert np.ptp(decode(encode(np.full((5, 5), value, np.float32), "TIFF"), 3)) == 0


@pytest.mark.parametrize("container", ["JPEG", "PNG"])
def test_a_grey_image_has_three_equal_channels(container: str) -> None:
    pixels = decode(encode(photo(61, 47).convert("L"), container), 16)
    assert np.ptp(pixels, axis=-1).max() == 0
    assert np.ptp(pixels) > 50


@pytest.mark.parametrize(
    "mode, container",
    [
        ("RGBA", "PNG"),
        ("LA", "PNG"),
        ("RGBA", "TIFF"),
        ("LA", "TIFF"),
        ("PA", "TIFF"),
        ("RGBA", "WEBP"),
    ],
)
@pytest.mark.parametrize("fit", FITS)
def test_alpha_is_composited_on_white(mode: str, container: str, fit: Fit) -> None:
    picture = photo(60, 40).convert("L").convert(mode)
    picture.putalpha(photo(60, 40).getchannel(2))
    data = encode(picture, container, **LOSSLESS[container])
    layered = picture.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    flat = Image.alpha_composite(white, layered).convert("RGB")
    expected = decode(encode(flat, "PNG"), 24, fit).astype(int)
    assert np.abs(decode(data, 24, fit) - expected).max() <= 2


def test_colours_behind_full_transparency_do_not_bleed_into_the_edge() -> None:
    picture = np.zeros((32, 32, 4), np.uint8)
    picture[:, :16] = (255, 0, 0, 255)
    picture[:, 16:] = (0, 255, 0, 0)  # green, that nobody can see
    pixels = decode(encode(picture, "PNG"), 5)
    assert np.all(pixels[..., 0] == 255)
    assert np.all(pixels[..., 1] == pixels[..., 2])


@pytest.mark.parametrize("container", ["PNG", "GIF"])
@pytest.mark.parametrize("mode", ["P", "L"])
def test_a_transparent_colour_shows_white(container: str, mode: str) -> None:
    picture = Image.new(mode, (20, 10), 1)
    if mode == "P":
        picture.putpalette([200, 10, 10, 10, 20, 200])
    picture.paste(0, (0, 0, 10, 10))
    pixels = decode(encode(picture, container, transparency=0), 20)
    assert np.all(pixels[:, :9] == 255)
    assert np.all(pixels[:, 11:] == ((10, 20, 200) if mode == "P" else 1))


def test_a_transparent_rgb_colour_shows_white() -> None:
    picture = Image.new("RGB", (8, 8), (1, 2, 3))
    assert np.all(decode(encode(picture, "PNG", transparency=(1, 2, 3)), 8) == 255)


def test_a_palette_is_averaged_as_colours_not_as_indices() -> None:
    stripes = Image.fromarray(np.tile([[0, 1]], (32, 16)).astype(np.uint8)).convert("L")
    stripes = stripes.convert("P")
    stripes.putpalette([250, 0, 0, 0, 0, 250])
    pixels = decode(encode(stripes, "PNG"), 4)
    assert np.abs(pixels - np.array([125.0, 0, 125])).max() <= 12


def test_one_bit_images_are_black_white_and_grey_between() -> None:
    checks = np.indices((64, 64)).sum(0) % 2 == 0
    pixels = decode(encode(checks, "PNG"), 8)
    assert 100 < pixels.min() <= pixels.max() < 155
    assert set(np.unique(decode(encode(checks, "PNG"), 64))) == {0, 255}


@pytest.mark.parametrize("mode, container", [("CMYK", "JPEG"), ("CMYK", "TIFF"), ("LAB", "TIFF")])
def test_print_colours_are_shown_as_pillow_converts_them(mode: str, container: str) -> None:
    colours = {"CMYK": (0, 200, 200, 30), "LAB": (120, 180, 160)}[mode]
    picture = Image.new(mode, (16, 16), colours)
    expected = np.asarray(picture.convert("RGB"), dtype=float)
    assert difference(decode(encode(picture, container), 16), expected) < 2
    assert expected[0, 0, 0] > expected[0, 0, 1] + 30, "the colour is a red"


# Frames, pages, scales


@pytest.mark.parametrize("container", ["GIF", "WEBP", "TIFF", "PNG", "MPO"])
def test_the_first_frame_or_page_is_the_image(container: str) -> None:
    first, second = (Image.new("RGB", (24, 16), colour) for colour in ("red", "blue"))
    data = encode(first, container, save_all=True, append_images=[second])
    assert difference(decode(data, 8), np.array([255.0, 0, 0])) < 2


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [24, 64])
@pytest.mark.parametrize(
    "picture, width, height, bound",
    [(photo, 1601, 1203, 1), (photo, 1203, 1601, 1), (photo, 2000, 400, 1), (tiles, 1024, 768, 2)],
)
def test_a_large_jpeg_is_close_to_its_full_decode(
    picture: Callable[[int, int], Image.Image],
    width: int,
    height: int,
    bound: float,
    size: int,
    fit: Fit,
) -> None:
    data = encode(picture(width, height), "JPEG", quality=90)
    side = min(width, height)
    left, top = ((width - side) / 2, (height - side) / 2) if fit == "crop" else (0, 0)
    full = Image.open(BytesIO(data)).convert("RGB")
    expected = full.resize(
        (size, size), Image.Resampling.BILINEAR, (left, top, width - left, height - top)
    )
    assert difference(decode(data, size, fit), np.asarray(expected)) < bound


def test_a_large_jpeg_is_not_decoded_in_full() -> None:
    data = encode(photo(1800, 1200, noise=0), "JPEG")

    def cost(size: int) -> float:
        start = time.process_time()
        decode(data, size)
        return time.process_time() - start

    assert min(cost(64) for _ in range(2)) < min(cost(700) for _ in range(2)) / 2


# Reasons


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


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, pixels: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def bmp(width: int, height: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 14 + len(info), 0, 0, 54) + info


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(png(8, 8, b"not zlib"), id="bad zlib"),
        pytest.param(png(8, 8, zlib.compress(bytes(8 * 25))[:-9]), id="short zlib"),
        pytest.param(png(8, 8, zlib.compress(b"")), id="no pixels"),
        pytest.param(png(8, 8, b"").replace(b"\x08\x02", b"\x08\x06", 1), id="bad header CRC"),
        pytest.param(png(0, 8, b""), id="no width"),
        pytest.param(bmp(8, 8), id="header only"),
        pytest.param(b"\xff\xd8\xff\xe0 and then something else", id="JPEG marker only"),
    ],
)
def test_a_damaged_image_is_called_truncated(data: bytes) -> None:
    assert reason(data) == "truncated"


def test_the_handmade_png_is_an_image_when_it_is_whole() -> None:
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
def test_bytes_of_no_image_container_are_not_an_image(data: bytes) -> None:
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


def gif_with_a_frame_larger_than_its_screen() -> bytes:
    frame = struct.pack("<BHHHHB", 0x2C, 0, 0, 65535, 65535, 0) + b"\x02\x02\x44\x01\0;"
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0) + frame


def webp_canvas(width: int, height: int) -> bytes:
    canvas = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + canvas


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


def test_an_image_at_the_pixel_limit_is_judged_by_its_pixels() -> None:
    assert reason(png(PIXEL_LIMIT // 10, 10, b"not zlib")) == "truncated"


def test_an_image_that_memory_does_not_hold_is_too_large() -> None:
    row_bits_overflow = png(PIXEL_LIMIT, 1, zlib.compress(b""))
    assert reason(row_bits_overflow) == "too_large"


# The process around it


def test_pillows_own_limit_is_neither_heeded_nor_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {container: decode(data, 16) for container, data in ENCODED.items()}
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for container, data in ENCODED.items():
            assert np.array_equal(decode(data, 16), expected[container]), container
    assert Image.MAX_IMAGE_PIXELS == 100


def test_threads_decode_alike_and_leave_pillows_limit_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    files = [*ENCODED.values(), b"", b"no image", ENCODED["JPEG"][:200]] * 20
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(outcome, files))
    assert together == [outcome(data) for data in files]
    assert Image.MAX_IMAGE_PIXELS == 100


def outcome(data: bytes) -> bytes | str:
    try:
        return decode(data, 16).tobytes()
    except Unreadable as error:
        return error.reason


@pytest.mark.parametrize("why", REASONS)
def test_a_reason_survives_pickling(why: Reason) -> None:
    copy = pickle.loads(pickle.dumps(Unreadable(why)))
    assert isinstance(copy, Unreadable)
    assert copy.reason == why
    assert str(copy) == why
