"""Laws of the decoder: the bytes of an image give the picture that a person would see."""

import base64
import pickle
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
from pictures import (
    ENCODED,
    LOSSLESS,
    big_endian_tiff,
    difference,
    encode,
    exif,
    photo,
    png,
)
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cnn.dataset.fit import Fit
from cnn.files.unreadable import Reason, Unreadable
from cnn.image import decode

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),  # Pillow's, on the metadata damaged here
    pytest.mark.filterwarnings("error::RuntimeWarning"),  # Pillow's on bombs, NumPy's on arithmetic
]

FITS: tuple[Fit, ...] = typing.get_args(Fit)
REASONS: tuple[Reason, ...] = typing.get_args(Reason)
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

ARITHMETIC = (  # 16x16, red and blue over x, green over y; `jpegtran -arithmetic` made it
    "|JeWF01!$>Nk#wx0RR9200961|JwjV01yid4h#wq4h;?x5fBp?C>j_R78o%jB^@X_Gd(;xGdMRuNL)@pL{~*OI8b"
    "d-S6^ahXlFi6ad~iLcwA*?WB=O#Lje&I5*QU2FB%#zV?sDWV`F1uV`F1uV`F1uV`F1uV`F1uV`F1uV`F1uV`F1uV"
    "`F1uV`F1uV`F1uV`F1uV`Klx01*fP5C9MZ0U`hb5di}c0sqVZ3IGrg1pyEd1^?Or3<CiG0ucid06zf#072d|N66?"
    "7I_a+Z140n@)J{Yg>^HVB|Je"
)


def tiles(width: int, height: int, side: int = 9) -> Image.Image:
    """Hard edges everywhere, the worst case for decoding at reduced scale."""
    shape = (height // side + 1, width // side + 1, 3)
    colours = np.random.default_rng(0).integers(20, 235, shape, dtype=np.uint8)
    return Image.fromarray(colours.repeat(side, 0).repeat(side, 1)[:height, :width].copy())


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
def test_a_lossless_image_of_the_right_size_is_unchanged(container: str) -> None:
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
    """The picture as a camera stores it: applying the orientation makes it upright."""
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


def test_damaged_metadata_is_ignored() -> None:
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
        stretched = 3 if size < 64 else 1  # the shrunk image is stretched over its own range
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


def test_a_constant_deep_image_stays_constant() -> None:
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
    picture[:, 16:] = (0, 255, 0, 0)  # green, but invisible
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


def test_one_bit_images_are_black_and_white_and_shrink_to_grey() -> None:
    checks = np.indices((64, 64)).sum(0) % 2 == 0
    pixels = decode(encode(checks, "PNG"), 8)
    assert 100 < pixels.min() <= pixels.max() < 155
    assert set(np.unique(decode(encode(checks, "PNG"), 64))) == {0, 255}


@pytest.mark.parametrize("mode, container", [("CMYK", "JPEG"), ("CMYK", "TIFF"), ("LAB", "TIFF")])
def test_cmyk_and_lab_are_converted_as_by_pillow(mode: str, container: str) -> None:
    colours = {"CMYK": (0, 200, 200, 30), "LAB": (120, 180, 160)}[mode]
    picture = Image.new(mode, (16, 16), colours)
    expected = np.asarray(picture.convert("RGB"), dtype=float)
    assert difference(decode(encode(picture, container), 16), expected) < 2
    assert expected[0, 0, 0] > expected[0, 0, 1] + 30, "the colour is a red"


def test_a_ycck_jpeg_is_converted_as_by_pillow() -> None:
    data = bytearray(encode(photo(61, 47).convert("CMYK"), "JPEG", quality=95))
    data[data.index(b"Adobe") + 11] = 2  # marks its inks as coded in YCCK
    expected = Image.open(BytesIO(data)).convert("RGB").resize((24, 24), Image.Resampling.BILINEAR)
    assert difference(decode(bytes(data), 24), np.asarray(expected)) < 2
    assert np.ptp(expected) > 100


def test_sixteen_bit_colours_are_scaled_and_not_clipped() -> None:
    ramp = np.repeat((65535 * RAMP)[..., None], 3, axis=-1).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in ramp)
    pixels = decode(png(64, 64, zlib.compress(rows), depth=16), 64)
    assert np.abs(pixels - RAMP_IN_BYTES[..., None]).max() <= 1


def test_a_progressive_jpeg_gives_the_pixels_of_a_baseline_one() -> None:
    for width, height in ((61, 47), (801, 535)):  # the second is decoded at reduced scale
        plain, progressive = (
            decode(encode(photo(width, height), "JPEG", progressive=way), 32)
            for way in (False, True)
        )
        assert np.array_equal(plain, progressive)


def test_an_arithmetic_coded_jpeg_is_decoded() -> None:
    pixels = decode(base64.b85decode(ARITHMETIC), 16).astype(int)
    y, x = np.mgrid[0:16, 0:16] * 16
    assert np.abs(pixels - np.stack([x, y, 255 - x], axis=-1)).mean() < 12


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


# The process around it


def test_pillows_own_pixel_limit_is_ignored_and_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {container: decode(data, 16) for container, data in ENCODED.items()}
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for container, data in ENCODED.items():
            assert np.array_equal(decode(data, 16), expected[container]), container
    assert Image.MAX_IMAGE_PIXELS == 100


def test_threads_decode_the_same_and_leave_pillows_limit_unchanged(
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
