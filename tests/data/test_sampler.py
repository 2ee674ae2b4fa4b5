"""The stream of samples."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from facerestore.data.base import SampleKey
from facerestore.data.sampler import StreamSampler
from facerestore.errors import DataError


def take(count: int, length: int = 10, batch_size: int = 4, **keywords) -> list[list[SampleKey]]:
    return list(islice(StreamSampler(length, batch_size, **keywords), count))


def stream(batches: list[list[SampleKey]]) -> list[SampleKey]:
    return [key for batch in batches for key in batch]


def test_an_epoch_holds_every_picture_once():
    keys = stream(take(10))  # four epochs of ten
    assert [k.epoch for k in keys] == [e for e in range(4) for _ in range(10)]
    for epoch in range(4):
        assert sorted(k.index for k in keys if k.epoch == epoch) == list(range(10))
    assert {k.repeat for k in keys} == {0}


def test_every_epoch_and_seed_has_an_order_of_its_own():
    keys = stream(take(10)) + stream(take(10, seed=1))
    orders = {tuple(k.index for k in keys[i : i + 10]) for i in range(0, 80, 10)}
    assert len(orders) == 8


def test_without_shuffling_the_order_is_the_data_sets():
    assert [k.index for k in stream(take(5, shuffle=False))] == [*range(10), *range(10)]


@pytest.mark.parametrize("keywords", [{}, {"enlarge_ratio": 3}, {"crops_per_image": 4}, {"shuffle": False}])
@pytest.mark.parametrize("start", [1, 7, 100])
def test_a_start_in_the_middle_is_the_rest_of_the_stream(keywords, start):
    assert take(5, start_batch=start, **keywords) == take(start + 5, **keywords)[start:]


def test_asking_again_and_out_of_order_gives_the_same():
    sampler = StreamSampler(10, 4)
    forward = [sampler.batch(i) for i in range(12)]
    assert [sampler.batch(i) for i in reversed(range(12))][::-1] == forward


@pytest.mark.parametrize("keywords", [{}, {"enlarge_ratio": 2}, {"crops_per_image": 3}])
def test_ranks_together_are_one_process_with_a_larger_batch(keywords):
    whole = take(9, batch_size=6, **keywords)
    ranks = [take(9, batch_size=2, rank=r, world_size=3, **keywords) for r in range(3)]
    assert whole == [a + b + c for a, b, c in zip(*ranks, strict=True)]


def test_enlarging_repeats_every_picture_in_the_epoch():
    keys = stream(take(10, enlarge_ratio=4))
    assert Counter(k.index for k in keys) == {i: 4 for i in range(10)}
    assert len(set(keys)) == 40 and {k.epoch for k in keys} == {0} and {k.repeat for k in keys} == set(range(4))


def test_crops_of_one_picture_come_in_a_row():
    """SRGAN's tutorial: a batch of sixteen is sixteen crops of one picture."""
    batches = take(20, batch_size=16, crops_per_image=16)
    assert all({k.index for k in batch} == {batch[0].index} for batch in batches)
    assert all([k.repeat for k in batch] == list(range(16)) for batch in batches)
    assert sorted(batch[0].index for batch in batches[:10]) == list(range(10))


def test_repeats_distinguish_enlarging_from_crops():
    keys = stream(take(15, enlarge_ratio=2, crops_per_image=3))
    assert len(set(keys)) == 60
    assert {k.repeat for k in keys if k.index == 0} == set(range(6))


def test_fewer_pictures_than_a_batch():
    (batch,) = take(1, length=3, batch_size=8)
    assert [k.epoch for k in batch] == [0, 0, 0, 1, 1, 1, 2, 2]
    assert take(2, length=1, batch_size=2) == [[(0, 0, 0), (0, 1, 0)], [(0, 2, 0), (0, 3, 0)]]


def test_an_empty_set_is_refused():
    with pytest.raises(DataError, match="empty"):
        StreamSampler(0, 4)
