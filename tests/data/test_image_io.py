"""Reading, writing and casting pictures."""

from __future__ import annotations

import io
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from facerestore.data import image_io
from facerestore.data.image_io import (
    PictureError,
    decode_image,
    image_grid,
    read_image,
    tensor_to_image,
    write_image,
)
from facerestore.engine.batches import upload
from facerestore.errors import DataError, UserError
from tests import parity
from tests.data.pictures import encode, truncate, waves

CASE, ARRAYS = parity.load("metric_tensor2img")
TOLERANCE = CASE["tolerance"]


def batch() -> torch.Tensor:
    config = dict(CASE["config"]["tensor"])
    return parity.draw(config.pop("shape"), **config)


@pytest.mark.parametrize("low, high", CASE["config"]["min_max"])
def test_tensor_to_image_equals_the_published_one(low, high):
    image = tensor_to_image(batch()[0], (low, high))
    assert image.dtype == np.uint8
    assert parity.relative_error(image, ARRAYS[f"img.{low}_{high}.rgb"]) <= TOLERANCE[f"img.{low}_{high}.rgb"]
    assert parity.relative_error(image[..., ::-1], ARRAYS[f"img.{low}_{high}.bgr"]) <= TOLERANCE[f"img.{low}_{high}.bgr"]


def clamped_as_upstream_left_it() -> torch.Tensor:
    tensor = batch()
    tensor[0].clamp_(0, 1)
    return tensor


@pytest.mark.parametrize("channel", [0, slice(0, 1)])
def test_gray_equals_the_published_one(channel):
    image = tensor_to_image(clamped_as_upstream_left_it()[0, channel], (-1, 1))
    assert parity.relative_error(image, ARRAYS["img.gray"]) <= TOLERANCE["img.gray"]


def test_grid_equals_the_published_one():
    grid = image_grid(clamped_as_upstream_left_it(), (-1, 1))
    assert grid.shape == ARRAYS["img.grid"].shape
    assert parity.relative_error(grid[..., ::-1], ARRAYS["img.grid"]) <= TOLERANCE["img.grid"]


def test_grid_of_one_and_of_given_columns():
    assert image_grid(batch()[:1]).shape == (9 + 4, 7 + 4, 3)
    assert image_grid(batch(), columns=5).shape == (9 + 4, 5 * (7 + 2) + 2, 3)


def test_an_uploaded_picture_equals_the_published_tensor():
    image = waves(**CASE["config"]["image"])
    assert np.array_equal(image, ARRAYS["image"])  # stored as BGR: the channels' order is a name
    bytes_ = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None]
    tensor = upload({"gt": bytes_}, torch.device("cpu"), (0, 0, 0), (1, 1, 1)).gt[0]
    assert parity.relative_error(tensor, ARRAYS["tensor"]) <= TOLERANCE["tensor"]
    assert np.array_equal(tensor_to_image(tensor), image[..., ::-1])


def test_tensor_to_image_leaves_the_callers_tensor_alone():
    tensor = batch()
    before = tensor.clone()
    tensor_to_image(tensor)
    image_grid(tensor)
    assert torch.equal(tensor, before)


def test_tensor_to_image_of_a_batch_of_odd_values_and_of_half_precision():
    assert tensor_to_image(batch()).shape == (5, 9, 7, 3)
    assert tensor_to_image(torch.tensor([[float("nan"), float("inf"), -float("inf"), 0.5]])).tolist() == [[0, 255, 0, 128]]
    assert np.array_equal(tensor_to_image(batch()[0].bfloat16()), tensor_to_image(batch()[0].bfloat16().float()))


@pytest.mark.parametrize("extension", [".png", ".bmp", ".tif", ".webp", ".jpg", ".ppm"])
def test_what_is_written_is_read(tmp_path, extension):
    image = cv2.GaussianBlur(waves(0, 32, 40, noise=0.0), (5, 5), 2)
    path = tmp_path / "new" / f"a{extension}"
    write_image(path, image)
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no temporary file is left
    difference = np.abs(read_image(path).astype(int) - image)
    assert difference.mean() <= (4 if extension in (".jpg", ".webp") else 0)


def test_rgb_is_written_not_bgr(tmp_path):
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255
    write_image(tmp_path / "red.png", red)
    assert np.array_equal(np.array(Image.open(tmp_path / "red.png")), red)


def test_gray_is_written(tmp_path):
    gray = np.arange(12, dtype=np.uint8).reshape(3, 4)
    write_image(tmp_path / "gray.png", gray)
    assert Image.open(tmp_path / "gray.png").mode == "L"
    assert np.array_equal(read_image(tmp_path / "gray.png"), np.dstack([gray] * 3))


@pytest.mark.parametrize("name", ["a", "a.xyz"])
def test_an_unknown_ending_is_refused(tmp_path, name):
    with pytest.raises(DataError, match=rf"{name} .*\.png or \.jpg"):
        write_image(tmp_path / name, waves(0, 4, 4, 0.0))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/a\.png: cannot be written"):
        write_image(tmp_path / "file" / "a.png", waves(0, 4, 4, 0.0))


def test_a_failed_write_keeps_the_old_picture(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    write_image(path, waves(0, 4, 4, 0.0))
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(UserError, match="No space left"):
        write_image(path, waves(1, 4, 4, 0.0))
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def as_png(image: Image.Image, **keywords) -> bytes:
    data = io.BytesIO()
    image.save(data, "png", **keywords)
    return data.getvalue()


def test_kinds_of_pictures():
    image = waves(0, 16, 12, noise=20.0)
    picture = Image.fromarray(image)
    gray = np.array(picture.convert("L"))
    assert np.array_equal(decode_image(as_png(picture.convert("RGBA")), "a"), image)
    assert np.array_equal(decode_image(as_png(picture.convert("L")), "a"), np.dstack([gray] * 3))
    assert np.array_equal(decode_image(as_png(picture.convert("LA")), "a"), np.dstack([gray] * 3))
    assert decode_image(as_png(picture.convert("P")), "a").shape == image.shape
    deep = image.astype(np.uint16) * 256 + 77
    assert np.array_equal(decode_image(encode(deep[..., ::-1], ".png"), "a"), image)
    assert decode_image(encode(deep, ".tif"), "a").dtype == np.uint8


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_exif_orientation_is_applied(kind):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees
    data = io.BytesIO()
    Image.fromarray(waves(0, 16, 12, 0.0)).save(data, kind, exif=exif)
    assert decode_image(data.getvalue(), "a").shape == (12, 16, 3)


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp", ".bmp", ".tif", ".ppm"])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.98])
def test_a_truncated_picture_is_refused(tmp_path, extension, share):
    path = tmp_path / f"a{extension}"
    write_image(path, waves(0, 48, 40, noise=20.0))
    truncate(path, share)
    with pytest.raises(PictureError, match=rf"a\{extension} .*leave it out"):
        read_image(path)


def test_a_truncated_progressive_jpeg_with_a_thumbnail_is_refused():
    thumbnail, data = io.BytesIO(), io.BytesIO()
    picture = Image.fromarray(waves(0, 96, 96, noise=20.0))
    picture.save(thumbnail, "jpeg")  # ends with a marker of its own
    exif = b"Exif\0\0" + thumbnail.getvalue()
    picture.save(data, "jpeg", progressive=True, restart_marker_blocks=2, exif=exif)
    whole = data.getvalue()
    assert decode_image(whole, "a").shape == (96, 96, 3)
    assert decode_image(whole + b"trailing bytes of a camera", "a").shape == (96, 96, 3)
    cut = whole[: len(whole) * 2 // 3]
    assert b"\xff\xd9" in cut
    for truncated in (cut, cut + bytes(len(whole) - len(cut)), whole[:-2]):  # zeros: an interrupted download
        with pytest.raises(PictureError, match="picture a is truncated"):
            decode_image(truncated, "a")


@pytest.mark.parametrize("data", [b"", b"\0", b"no picture", b"\x89PNG", b"\xff\xd8\xff\xd9", b"\xff\xd8\xff\xe0"])
def test_what_is_no_picture_is_refused(data):
    with pytest.raises(PictureError, match=r"picture a\.png"):
        decode_image(data, "a.png")


def test_a_missing_picture_is_named(tmp_path):
    with pytest.raises(PictureError, match=r"gone\.png cannot be read: No such file"):
        read_image(tmp_path / "gone.png")


def overwritten(data: bytes, at: int, filling: bytes) -> bytes:
    return data[:at] + filling + data[at + len(filling) :]


def photograph(**keywords) -> bytes:
    """A JPEG with some 50 kB of coded data."""
    data = io.BytesIO()
    Image.fromarray(cv2.GaussianBlur(waves(0, 384, 384, noise=20.0), (5, 5), 1)).save(data, "jpeg", quality=90, **keywords)
    return data.getvalue()


JPEG_KINDS = [{}, {"progressive": True}, {"optimize": True}, {"restart_marker_blocks": 8}]


@pytest.mark.parametrize("keywords", JPEG_KINDS, ids=str)
def test_a_jpeg_whose_blocks_were_lost_is_refused(keywords):
    """4096 bytes, as disks lose them: never written, or another file's."""
    whole, rng = photograph(**keywords), np.random.default_rng(0)
    assert np.array_equal(decode_image(whole, "a", strict=True), decode_image(whole, "a"))
    found = {"zeros": 0, "noise": 0, "noise, strict": 0}
    places = range(len(whole) // 4, len(whole) - 5000, len(whole) // 40)
    for at in places:
        for kind in found:
            try:
                decode_image(overwritten(whole, at, bytes(4096) if kind == "zeros" else rng.bytes(4096)), "a", "strict" in kind)
            except PictureError as error:
                assert str(error).startswith(("picture a is damaged", "picture a is truncated", "picture a cannot be decoded"))
                found[kind] += 1
    assert found["zeros"] == found["noise, strict"] == len(places) and found["noise"] >= 0.8 * len(places)


def test_a_damaged_png_is_refused():
    whole = as_png(Image.fromarray(waves(0, 96, 96, noise=20.0)))
    for at in range(100, len(whole) - 100, len(whole) // 20):
        with pytest.raises(PictureError, match="picture a cannot be decoded"):
            decode_image(overwritten(whole, at, bytes([whole[at] ^ 16])), "a")


def test_a_flat_jpeg_whose_codes_are_zeros_is_read(capfd):
    data = io.BytesIO()
    Image.new("RGB", (2048, 2048), (128, 128, 128)).save(data, "jpeg", optimize=True)
    assert bytes(64) in data.getvalue() and (decode_image(data.getvalue(), "a") == 128).all()
    assert not capfd.readouterr().err


def test_what_others_write_while_a_jpeg_is_examined_is_passed_on(monkeypatch, capfd):
    decode = image_io._decode

    def chatty(data: bytes) -> np.ndarray | None:
        os.write(2, b"another thread's line\n")
        return decode(data)

    monkeypatch.setattr(image_io, "_decode", chatty)
    with pytest.raises(PictureError, match=r"damaged \(Corrupt JPEG data: "):
        decode_image(overwritten(photograph(), 10000, b"\x55" * 3000), "a", strict=True)
    os.write(2, b"afterwards\n")
    assert capfd.readouterr().err == "another thread's line\nafterwards\n"


def test_a_cmyk_jpeg_is_read():
    image = cv2.GaussianBlur(waves(0, 48, 40, noise=0.0), (5, 5), 2)
    data = io.BytesIO()
    Image.fromarray(image).convert("CMYK").save(data, "jpeg", quality=95)
    assert np.abs(decode_image(data.getvalue(), "a").astype(int) - image).mean() < 3


@pytest.mark.parametrize("width, height", [(40000, 40000), (1 << 16, 1 << 16)])
def test_a_picture_larger_than_opencvs_limit_is_named(width, height):
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(PictureError, match=r"picture large\.png has more pixels than OpenCV reads \(2\^30\): shrink or cut it"):
        decode_image(data, "large.png")


@pytest.mark.parametrize("error, said", [(PermissionError(13, "Permission denied"), "Permission denied"), (OSError("x"), "x")])
def test_an_unreadable_picture_is_named(tmp_path, monkeypatch, error, said):
    def refuse(*_):
        raise error

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(PictureError, match=rf"picture .*a\.png cannot be read: {said}"):
        read_image(tmp_path / "a.png")
    monkeypatch.undo()
    (tmp_path / "b.png").mkdir()
    with pytest.raises(PictureError, match=r"b\.png cannot be read: Is a directory"):
        read_image(tmp_path / "b.png")


@pytest.mark.parametrize("name", ["two words", "Gesicht ü", "顔", "a'b\"c", b"\xff".decode(errors="surrogateescape")])
def test_names_of_any_letters(tmp_path, name):
    image = waves(0, 8, 8, 0.0)
    write_image(tmp_path / f"{name}.png", image)
    assert np.array_equal(read_image(tmp_path / f"{name}.png"), image)
    (tmp_path / f"{name}.png").write_bytes(b"")
    with pytest.raises(PictureError, match="cannot be decoded"):
        read_image(tmp_path / f"{name}.png")
