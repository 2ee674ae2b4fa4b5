"""Which samples make which batch, by arithmetic alone: batch number b of rank r is the same whenever it is asked for.

So a run goes on exactly where it stopped, knowing nothing but its iteration.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from facerestore.data.base import SampleKey
from facerestore.errors import DataError


class StreamSampler(Sampler[list[SampleKey]]):
    """Batches of an endless stream of samples.

    The stream is one epoch after the other.  Epoch e holds each picture `enlarge_ratio` times, in an order drawn from
    (seed, e), and each time `crops_per_image` times in a row; `repeat` counts how often a picture came in the epoch.
    All ranks share one stream: batch b takes its next `world_size` x `batch_size` samples, and each rank a slice of
    them, so that one process with batches of 8 and two with batches of 4 see the same.

    Args:
        length: pictures of the data set
        batch_size: samples of a batch on each rank
        seed: what the orders are drawn from
        rank: this process
        world_size: processes in all
        start_batch: the first batch's number: iterations that are already done
        shuffle: whether each epoch has an order of its own; otherwise pictures come in the data set's
        enlarge_ratio: how often every picture comes in an epoch
        crops_per_image: how many successive samples are drawn from one picture
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        start_batch: int = 0,
        shuffle: bool = True,
        enlarge_ratio: int = 1,
        crops_per_image: int = 1,
    ):
        if length < 1:
            raise DataError("the data set is empty: there is nothing to train on")
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.rank, self.world_size, self.start_batch = rank, world_size, start_batch
        self.shuffle, self.enlarge_ratio, self.crops_per_image = shuffle, enlarge_ratio, crops_per_image
        self._order: tuple[int, np.ndarray] | None = None  # the last epoch that was asked for, and its order

    @property
    def epoch_length(self) -> int:
        """Samples of an epoch."""
        return self.length * self.enlarge_ratio * self.crops_per_image

    def key(self, position: int) -> SampleKey:
        """The sample at a position of the stream."""
        epoch, place = divmod(position, self.epoch_length)
        place, crop = divmod(place, self.crops_per_image)
        turn, index = divmod(self._entry(epoch, place), self.length)
        return SampleKey(index, epoch, turn * self.crops_per_image + crop)

    def _entry(self, epoch: int, place: int) -> int:
        """Which of the epoch's `length * enlarge_ratio` entries comes at a place."""
        if not self.shuffle:
            return place
        if self._order is None or self._order[0] != epoch:
            rng = np.random.default_rng((self.seed, epoch))
            self._order = epoch, rng.permutation(self.length * self.enlarge_ratio)
        return int(self._order[1][place])

    def batch(self, number: int) -> list[SampleKey]:
        """This rank's share of a batch."""
        first = (number * self.world_size + self.rank) * self.batch_size
        return [self.key(position) for position in range(first, first + self.batch_size)]

    def __iter__(self) -> Iterator[list[SampleKey]]:
        number = self.start_batch
        while True:
            yield self.batch(number)
            number += 1
