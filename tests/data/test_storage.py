"""Names and bytes of folders."""

from __future__ import annotations

import os

import numpy as np
import pytest

from facerestore.data.image_io import PictureError
from facerestore.data.names import natural
from facerestore.data.storage import Folder, Pictures
from facerestore.errors import DataError
from tests.data.pictures import folder, waves


def test_names_are_relative_without_ending_and_in_natural_order(tmp_path):
    names = ["img10", "img2", "IMG1", "b/img1", "a.v2", "a/b/img3"]
    folder(tmp_path, names[:3], extension=".PNG")
    folder(tmp_path, names[3:], extension=".jpeg")
    (tmp_path / "notes.txt").write_text("no picture")
    folder(tmp_path, [".hidden", ".trash/x"])
    storage = Folder(str(tmp_path), "dataroot_gt")
    assert storage.names() == ["a.v2", "a/b/img3", "b/img1", "IMG1", "img2", "img10"]
    assert storage.path("a.v2") == str(tmp_path / "a.v2.jpeg")
    assert storage.read("img2") == (tmp_path / "img2.PNG").read_bytes()


def test_order_does_not_depend_on_the_file_system(tmp_path, monkeypatch):
    folder(tmp_path, [f"{i}" for i in range(12)])
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda *a, **k: ((d, f, n[::-1]) for d, f, n in walk(*a, **k)))
    assert Folder(str(tmp_path), "key").names() == [f"{i}" for i in range(12)]


def test_natural_order_is_total():
    names = ["a1", "a01", "A1", "a", "1", "1a", "a1b2", "a1b10", ""]
    ordered = sorted(names, key=natural)
    assert ordered == sorted(reversed(names), key=natural)
    assert ordered.index("a1b2") < ordered.index("a1b10")


def test_natural_order_is_that_of_numbers_of_any_length():
    numbers = ["0", "00", "1", "01", "9", "10", "0010", "99", "100", "123456789", "1234567890"]
    ordered = sorted(reversed(numbers), key=natural)
    assert ordered == sorted(numbers, key=lambda digits: (int(digits), digits))
    long = ["1" * 5000, "2" + "1" * 4999, "1" * 5001]  # Python makes no int of them
    assert sorted(reversed(long), key=natural) == long


def test_links_are_followed_once(tmp_path):
    folder(tmp_path / "elsewhere", ["a"])
    root = tmp_path / "root"
    folder(root, ["b"])
    (root / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "loop").symlink_to(root, target_is_directory=True)
    (root / "c.png").symlink_to(tmp_path / "elsewhere" / "a.png")
    assert Folder(str(root), "key").names() == ["b", "c", "linked/a"]


def test_nothing_is_touched_before_the_first_call():
    Pictures("no/such/folder", "dataroot_gt", meta_info_file="no/such/list")


def test_a_missing_folder_is_named_with_its_option(tmp_path):
    with pytest.raises(DataError, match=r"folder no/such, named by `dataroot_gt`, does not exist: correct the path"):
        Folder("no/such", "dataroot_gt").names()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is not a folder"):
        Folder(str(tmp_path / "file"), "dataroot_gt").names()


def test_a_folder_that_may_not_be_listed_is_named(tmp_path, monkeypatch):
    folder(tmp_path, ["a", "closed/b"])
    scan = os.scandir

    def refusing(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(DataError, match=r"folder .*closed cannot be read: Permission denied"):
        Folder(str(tmp_path), "key").names()


def test_names_of_any_letters_and_links_to_nothing(tmp_path):
    names = ["Gesicht ü", "a'b", "two words", "顔", b"\xff".decode(errors="surrogateescape")]
    folder(tmp_path, names)
    pictures = Pictures(str(tmp_path), "key")
    assert sorted(pictures.names) == sorted(names)
    assert all(pictures.read(name).shape == (24, 20, 3) for name in names)
    (tmp_path / "z.png").symlink_to("nowhere")
    pictures = Pictures(str(tmp_path), "key")
    assert "z" in pictures.names
    with pytest.raises(PictureError, match=r"z\.png cannot be read: No such file"):
        pictures.read("z")


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(DataError, match=r"named by `dataroot_lq`, holds no picture \(files that end with .*\.png"):
        Folder(str(tmp_path), "dataroot_lq").names()


def test_two_pictures_of_one_name_are_refused(tmp_path):
    folder(tmp_path, ["a/x"])
    folder(tmp_path, ["a/x"], extension=".jpg")
    with pytest.raises(DataError, match=r"two pictures called 'a/x' \(a/x\.jpg, a/x\.png\)"):
        Folder(str(tmp_path), "key").names()


def test_a_list_chooses_and_orders(tmp_path):
    folder(tmp_path / "root", ["a", "b", "c", "two words", "d.v2"])
    listing = tmp_path / "meta_info.txt"
    listing.write_text("c.png (480,480,3)\n\na\ntwo words.png\nd.v2\na.png\n")
    assert Pictures(str(tmp_path / "root"), "key", None, str(listing)).names == ["c", "a", "two words", "d.v2"]


@pytest.mark.parametrize(
    "text, message",
    [("a.png\nx.png (1,2,3)\ny", "names pictures that .* does not hold: x.png, y"), ("\n", "names no picture")],
)
def test_a_wrong_list_is_refused(tmp_path, text, message):
    folder(tmp_path / "root", ["a"])
    listing = tmp_path / "meta_info.txt"
    listing.write_text(text)
    with pytest.raises(DataError, match=f"meta_info.txt, named by `meta_info_file`, {message}"):
        _ = Pictures(str(tmp_path / "root"), "key", None, str(listing)).names


def test_a_missing_list_is_refused(tmp_path):
    folder(tmp_path, ["a"])
    with pytest.raises(DataError, match="no_list, named by `meta_info_file`, cannot be read"):
        _ = Pictures(str(tmp_path), "key", None, "no_list").names


def test_a_picture_that_went_away_is_named(tmp_path):
    folder(tmp_path, ["a"])
    pictures = Pictures(str(tmp_path), "key")
    assert pictures.names == ["a"]
    (tmp_path / "a.png").unlink()
    with pytest.raises(PictureError, match=r"a\.png cannot be read: No such file"):
        pictures.read("a")


def test_the_last_picture_is_kept_and_cannot_be_changed(tmp_path, monkeypatch):
    folder(tmp_path, ["a", "b"])
    pictures = Pictures(str(tmp_path), "key")
    reads = []
    read = Folder.read
    monkeypatch.setattr(Folder, "read", lambda self, name: reads.append(name) or read(self, name))
    for name in ("a", "a", "b", "b", "a"):
        image = pictures.read(name)
        assert np.array_equal(image, waves("ab".index(name), 24, 20, noise=20.0))
    assert reads == ["a", "b", "a"]
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0] = 0
