"""Batches: the same for any number of workers and processes, and errors that arrive."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import time
import traceback
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from facerestore.data.base import FaceDataset
from facerestore.data.batch import Batch
from facerestore.data.loader import evaluation_loader, training_loader, worker_failures
from facerestore.data.paired import PairedImageDataset
from facerestore.errors import DataError, OptionError
from tests.data.pictures import folder, truncate

NAMES = [f"img{i}" for i in range(5)]


@pytest.fixture
def root(tmp_path):
    return folder(tmp_path / "gt", NAMES)


def crops(root, **keywords) -> PairedImageDataset:
    return PairedImageDataset(str(root), gt_size=8, use_hflip=True, use_rot=True, **keywords)


def train(root, count: int, batch_size: int = 4, **keywords) -> list[Batch]:
    return list(islice(training_loader(crops(root), batch_size, timeout=60, **keywords), count))


def same(one: list[Batch], other: list[Batch]) -> bool:
    assert len(one) == len(other) > 0
    return all(
        a["gt_path"] == b["gt_path"] and torch.equal(a["gt"], b["gt"]) and torch.equal(a["lq"], b["lq"])
        for a, b in zip(one, other, strict=True)
    )


class Toy(FaceDataset):
    """Samples that misbehave as `what` says."""

    def __init__(self, what: Any = None, length: int = 8):
        super().__init__()
        self.what, self.length = what, length

    def __len__(self) -> int:
        return self.length

    def name(self, index: int) -> str:
        return str(index)

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        if index == 3 and isinstance(self.what, Exception):
            raise self.what
        if index == 3 and self.what == "sleep":
            time.sleep(3)
        if index == 3 and self.what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        side = 4 + (index // 2 if self.what == "sizes" else 0)
        return {"gt": np.full((side, side, 3), index, np.uint8), "gt_path": f"{index}.png", "y": index % 2}


def test_a_batch(root):
    (batch,) = train(root, 1)
    assert isinstance(batch, Batch)
    assert batch.gt.shape == (4, 3, 8, 8) and batch.lq.shape == (4, 3, 2, 2) and batch.gt.dtype == torch.uint8
    assert isinstance(batch.gt_path, list) and len(batch.gt_path) == 4


def test_batches_do_not_depend_on_the_number_of_workers(root):
    alone = train(root, 4)  # 16 samples of 5 pictures: over three epochs' ends
    assert same(alone, train(root, 4, num_workers=1)) and same(alone, train(root, 4, num_workers=2))
    assert not same(alone, train(root, 4, seed=1))


def test_two_processes_see_what_one_sees(root):
    alone = train(root, 4, batch_size=4)
    ranks = [train(root, 4, batch_size=2, rank=r, world_size=2) for r in range(2)]
    together = [
        Batch(gt=torch.cat([a.gt, b.gt]), lq=torch.cat([a.lq, b.lq]), gt_path=a.gt_path + b.gt_path)
        for a, b in zip(*ranks, strict=True)
    ]
    assert same(alone, together)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_loader_goes_on_where_it_stopped(root, num_workers):
    assert same(train(root, 7)[3:], train(root, 4, start_batch=3, num_workers=num_workers))


def test_epochs_and_repeats_draw_anew(root):
    batches = train(root, 5, batch_size=5) + train(root, 2, batch_size=5, enlarge_ratio=2)
    pictures = [p.numpy().tobytes() for b in batches[:5] for p in b.gt]
    assert len(set(pictures)) == 25  # upstream's workers repeated their draws at every epoch


def test_many_crops_of_one_picture_decode_it_once(root, monkeypatch):
    from facerestore.data import storage

    decoded = []
    decode = storage.decode_image
    monkeypatch.setattr(storage, "decode_image", lambda data, path: decoded.append(path) or decode(data, path))
    batches = train(root, 5, batch_size=16, crops_per_image=16)
    assert [len(set(b.gt_path)) for b in batches] == [1] * 5 and len(decoded) == 5
    assert len({p.numpy().tobytes() for p in batches[0].gt}) > 8


def test_shuffling_is_an_option(root):
    paths = [os.path.basename(p) for b in train(root, 2, batch_size=5, shuffle=False) for p in b.gt_path]
    assert paths == [f"{n}.png" for n in NAMES] * 2


def test_loading_draws_nothing_from_the_runs_generators(root):
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    train(root, 2)
    train(root, 2, num_workers=1)
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == np.random.get_state()[1].tolist()


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("make", [training_loader, evaluation_loader])
def test_a_data_error_arrives_as_it_was_raised(num_workers, make):
    with pytest.raises(DataError) as caught:
        list(islice(make(Toy(DataError("picture 3.png is odd: mend it")), 2, num_workers, timeout=60), 8))
    assert str(caught.value) == "picture 3.png is odd: mend it" and type(caught.value) is DataError


def test_an_option_error_keeps_its_place():
    with pytest.raises(OptionError) as caught:
        next(iter(training_loader(Toy(OptionError("wrong", ("gt_size",)), length=4), 4, 1, timeout=60)))
    assert caught.value.path == ("gt_size",)


def test_a_programming_error_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError, match="in sample") as caught:
        next(iter(training_loader(Toy(ZeroDivisionError("x"), length=4), 4, 1, timeout=60)))
    traceback.clear_frames(caught.tb)  # they hold the workers


def test_a_truncated_picture_ends_training_unless_skipped(root):
    truncate(root / "img3.png")
    with pytest.raises(DataError, match=r"^picture .*img3\.png is truncated: copy it again, or leave it out"):
        train(root, 5, num_workers=1)
    skipping = [list(islice(training_loader(crops(root, on_bad_image="skip"), 4, n, timeout=60), 5)) for n in (0, 2)]
    assert same(*skipping)
    assert not any("img3" in path for batch in skipping[0] for path in batch.gt_path)
    with pytest.raises(DataError, match=r"img3\.png is truncated"):
        list(evaluation_loader(crops(root, on_bad_image="skip")))


def test_a_killed_worker_ends_the_run_with_a_sentence():
    start = time.time()
    with pytest.raises(DataError, match=r"worker process of the loader of data set 'FFHQ' is gone .*num_worker_per_gpu"):
        list(islice(training_loader(Toy("die"), 2, 1, name="FFHQ", timeout=60), 8))
    assert time.time() - start < 20


def test_a_worker_that_dies_during_a_step_is_told_too():
    """torch raises where the main thread happens to be."""
    with pytest.raises(DataError, match="is gone"), worker_failures("train"):
        batches = iter(training_loader(Toy("die", length=4), 1, 1, shuffle=False, prefetch_factor=4, timeout=60))
        next(batches)
        for _ in range(1200):  # until the worker is dead, however long that takes on a busy machine
            time.sleep(0.1)


def test_a_stalled_loader_is_named():
    start = time.time()
    with pytest.raises(DataError, match=r"loader of data set 'FFHQ' gave no batch for 1 seconds"):
        list(islice(training_loader(Toy("sleep"), 2, 1, name="FFHQ", timeout=1), 8))
    assert time.time() - start < 20


def test_other_runtime_errors_pass():
    with pytest.raises(RuntimeError, match=r"^out of memory$"), worker_failures("train"):
        raise RuntimeError("out of memory")


def test_pictures_of_several_sizes_cannot_be_trained_in_one_batch():
    with pytest.raises(DataError, match=r"different sizes \(0\.png: gt 3x4x4; 2\.png: gt 3x5x5\).*`gt_size`"):
        next(iter(training_loader(Toy("sizes"), 4, shuffle=False)))
    assert next(iter(training_loader(Toy("sizes"), 1))).gt.shape[0] == 1


@pytest.mark.parametrize("num_workers", [0, 2])
def test_evaluation_keeps_the_order_and_groups_equal_sizes(num_workers):
    batches = list(evaluation_loader(Toy("sizes", length=7), 3, num_workers, timeout=60))
    assert [b.index.tolist() for b in batches] == [[0, 1], [2], [3], [4, 5], [6]]
    assert [b.gt_path for b in batches][3] == ["4.png", "5.png"]
    assert batches[3].y.tolist() == [0, 1] and batches[3].gt.shape == (2, 3, 6, 6)
    assert len(list(evaluation_loader(Toy(length=7), 3))) == 3


@pytest.mark.parametrize("world_size", [1, 2, 3, 9])
def test_evaluation_gives_every_picture_to_one_rank(world_size):
    shares = [
        [i for batch in evaluation_loader(Toy(), 2, rank=r, world_size=world_size) for i in batch.index.tolist()]
        for r in range(world_size)
    ]
    assert sorted(i for share in shares for i in share) == list(range(8)) and shares[0] == list(range(0, 8, world_size))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_evaluation_can_be_repeated(root, num_workers):
    loader = evaluation_loader(crops(root), 2, num_workers, timeout=60)
    first = list(loader)
    assert sum(len(b.gt) for b in first) == 5 and same(first, list(loader))


def test_batch_attributes():
    batch = Batch(lq=1, gt=2)
    assert batch.lq == 1 and batch["gt"] == 2
    batch.mask = 3
    assert batch["mask"] == 3 and sorted(batch) == ["gt", "lq", "mask"]
    del batch.mask
    with pytest.raises(AttributeError, match=r"the batch has no `mask` \(it has gt, lq\)"):
        _ = batch.mask
    for other in (copy.copy(batch), copy.deepcopy(batch), pickle.loads(pickle.dumps(batch))):
        assert isinstance(other, Batch) and other == batch
