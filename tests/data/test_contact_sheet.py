"""The contact sheet: what is on it, and that nothing is cut off or distorted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facerestore.data import build_dataset
from facerestore.data.base import SampleKey
from facerestore.data.contact_sheet import CARD, COLOURS, MARGIN, PAD, PAPER, Card, all_facts, contact_sheet, facts, panels

LQ, GT = (200, 10, 20), (10, 150, 30)
EXPLAINED = {
    "mirrored": True,
    "lq": {"kernel": {"type": "aniso", "sigma_x": 5.755474122967296}, "factor": 5.25, "noise": {"seed": 123}, "quality": 82},
    "color": {"adjustments": [["hue", -0.0953], ["contrast", 1.2161162]], "shift": [19.688, -4.6], "gray": True},
    "mask": {"strokes": [{"width": 3, "vertices": [[1, 2], [3, 4]]}]},
}


def flat(colour, h: int, w: int) -> torch.Tensor:
    return torch.tensor(colour, dtype=torch.uint8)[:, None, None].expand(3, h, w).contiguous()


def sample(**others) -> dict:
    return {"gt": flat(GT, 64, 64), "lq": flat(LQ, 16, 16), "gt_path": "a.png"} | others


def card(sample: dict, name: str = "a", words=()) -> Card:
    return Card(name, "epoch 0", panels(sample), list(words))


def extent(sheet: np.ndarray, colour) -> tuple[int, int, int, int]:
    """Top, left, height and width of what has a colour."""
    rows, columns = np.nonzero((sheet == colour).all(-1))
    return rows.min(), columns.min(), np.ptp(rows) + 1, np.ptp(columns) + 1


def test_panels_are_inputs_then_target_then_mask():
    mask = torch.zeros(1, 64, 64, dtype=torch.uint8)
    mask[:, :16] = 255
    box, point = torch.tensor([1.0, 2, 3, 4]), torch.tensor([[5.0, 6]])
    found = panels(sample(mask=mask, lq_large=flat(LQ, 16, 16), loc_mouth=box, points5=point, latent_gt=torch.arange(4)))
    assert [(p.label, p.note) for p in found] == [
        ("lq", "16x16"), ("lq_large", "16x16"), ("gt", "64x64"), ("mask", "25% of gt")
    ]  # fmt: skip
    assert [p.boxes for p in found] == [{}, {}, {"mouth": [1, 2, 3, 4]}, {}]
    assert np.array_equal(found[2].points, [[5, 6]]) and found[0].points is None
    veiled = (found[3].image != GT).any(-1)
    assert veiled[:16].all() and not veiled[16:].any()


def test_a_data_set_without_a_target_has_its_place():
    found = panels({"lq": flat(LQ, 20, 30), "lq_path": "a.png"})
    assert [(p.label, p.note) for p in found] == [("lq", "30x20")]
    assert extent(contact_sheet("t", "s", [Card("a", "", found, [])]), LQ)[2:] == (
        160,
        240,
    )  # the whole picture, its sides as 2 to 3


def test_small_pictures_are_enlarged_evenly():
    checks = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 200
    pictures = panels(sample(lq=checks.to(torch.uint8).expand(3, 16, 16).contiguous()))
    sheet = contact_sheet("t", "s", [Card("a", "", pictures, [])], side=250)
    top, left, height, width = extent(sheet, GT)
    assert height == width == 256  # 16 times as large as the smallest picture
    lq = sheet[top : top + 256, left - 10 - 256 : left - 10]
    assert np.array_equal(lq, np.kron(checks[..., None].expand(-1, -1, 3), np.ones((16, 16, 1))))


def test_boxes_are_where_they_belong():
    boxes = {"loc_left_eye": torch.tensor([8.0, 16, 24, 32]), "loc_mouth": torch.tensor([-9.0, 40, 80, 70])}  # one beyond
    sheet = contact_sheet("t", "s", [card(sample(**boxes))], side=256)
    top, left, *_ = extent(contact_sheet("t", "s", [card(sample(loc_left_eye=torch.zeros(4)))], side=256), GT)
    found = (sheet[top - 5 : top + 256, left : left + 256] == COLOURS["left_eye"]).all(-1)
    rows, columns = np.nonzero(found)
    assert (columns.min(), columns.max(), rows.min() - 5, rows.max() - 5) == (32, 95, 64, 127)
    assert not (sheet[top + 256 + PAD :] == COLOURS["mouth"]).all(-1).any()


@pytest.mark.parametrize("count, columns", [(1, 1), (3, 3), (7, 3)])
def test_margins_are_even_and_nothing_runs_over(count, columns):
    long = "a_rather_long_name/" * 20 + "日本\udcff" + "x" * 300
    words = [("name " * 3, "word " * 90), ("y", "z" * 900), *((f"k{i}", str(i)) for i in range(30))]
    sheet = contact_sheet(long, long, [card(sample(), long, words) for _ in range(count)])
    assert sheet.dtype == np.uint8 and sheet.shape[1] < 1750
    edges = (sheet[:MARGIN], sheet[-MARGIN:], sheet[:, :MARGIN], sheet[:, -MARGIN:])
    assert all((edge == PAPER).all() for edge in edges)
    top, left, *_ = extent(sheet, LQ)
    first = sheet[top : top + 500, MARGIN + 1 : left - 2]  # between the card's edge and what is in it
    assert (first == CARD).all()
    gt = (sheet == GT).all(-1)
    assert np.count_nonzero(gt[top]) == columns * 240
    right = np.flatnonzero(gt[top])[-1] + 1
    assert (sheet[top : top + 500, right : right + PAD - 1] == CARD).all()
    assert right + PAD + MARGIN == sheet.shape[1]


def test_facts_in_short():
    assert facts(EXPLAINED, {"identity": 7, "gt_path": "x", "gt": flat(GT, 2, 2)}) == [
        ("lq", "kernel type aniso, sigma_x 5.76; factor 5.25; quality 82"),
        ("color", "adjustments hue -0.0953, contrast 1.22; shift 19.7, -4.6; gray yes"),
        ("mask", "strokes 1"),
        ("identity", "7"),
    ]


def test_facts_in_full():
    told = all_facts(EXPLAINED, {"gt_path": "x/a.png", "gt": flat(GT, 2, 2), "loc_mouth": torch.tensor([1.0, 2, 3, 4.5])})
    assert told == [
        ("mirrored", "yes"),
        ("lq.kernel.type", "aniso"),
        ("lq.kernel.sigma_x", "5.755474122967296"),
        ("lq.factor", "5.25"),
        ("lq.noise.seed", "123"),
        ("lq.quality", "82"),
        ("color.adjustments", "hue -0.0953, contrast 1.2161162"),
        ("color.shift", "[19.688, -4.6]"),
        ("color.gray", "yes"),
        ("mask.strokes.0.width", "3"),
        ("mask.strokes.0.vertices", "[1, 2], [3, 4]"),
        ("gt_path", "x/a.png"),
        ("loc_mouth", "[1.0, 2.0, 3.0, 4.5]"),
    ]


def test_every_word_is_on_the_sheet():
    """The same sheet with one fact less, or another last word, looks different."""
    words = [("lq", "blur " * 40 + "end"), ("color", "gray")]
    sheets = [contact_sheet("t", "s", [card(sample(), words=w)]) for w in (words, words[:1], [("lq", "blur " * 40 + "eno")])]
    assert len({sheet.tobytes() for sheet in sheets}) == 3


def test_drawn_faces_with_their_labels():
    dataset = build_dataset({"type": "SyntheticFaceDataset", "count": 2, "size": 64, "scale": 4, "labels": True})
    cards = [card(dataset[SampleKey(i)], dataset.name(i), facts({}, dataset[i])) for i in range(2)]
    sheet = contact_sheet("faces", "drawn", cards)
    assert all((sheet == COLOURS[part]).all(-1).sum() > 100 for part in ("left_eye", "right_eye", "mouth"))
    assert not (sheet == COLOURS["nose"]).all(-1).any()
