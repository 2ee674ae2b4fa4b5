"""Batches for training and for evaluation, read by worker processes or in the process itself.

What comes out is the same for any number of workers.  What goes wrong in a worker is raised here as the DataError that
it was; a worker that was killed or that stalls ends the run with a sentence instead of a wait.  Whoever reads, a worker or
the process itself, names a picture in the log that takes a minute (`watchdog.py`).
"""

from __future__ import annotations

import itertools
import re
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from facerestore.data.base import FaceDataset, SampleKey
from facerestore.data.batch import Batch
from facerestore.data.memory import keep_freed_memory
from facerestore.data.sampler import StreamSampler
from facerestore.errors import DataError, UserError

Sample = dict[str, Any]
Failure = UserError  # may stand in a sample's or batch's place: so it reaches the main process as it was raised


def training_loader(
    dataset: FaceDataset,
    batch_size: int,
    num_workers: int = 0,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    start_batch: int = 0,
    shuffle: bool = True,
    enlarge_ratio: int = 1,
    crops_per_image: int = 1,
    prefetch_factor: int = 2,
    pin_memory: bool = False,
    timeout: float = 600,
    name: str = "train",
) -> Loader:
    """An endless loader of batches; see :class:`StreamSampler` for what each holds.

    Args:
        dataset: its `seed` is set
        num_workers: processes that read; 0 reads in this one
        prefetch_factor: batches that each worker reads ahead
        pin_memory: whether batches lie in memory that a GPU reads from directly
        timeout: seconds without a batch after which the run is ended
        name: what errors call the data set
    """
    dataset.seed = seed
    sampler = StreamSampler(
        len(dataset), batch_size, seed, rank, world_size, start_batch, shuffle, enlarge_ratio, crops_per_image
    )
    return Loader(_Training(dataset), sampler, _collate_alike, num_workers, prefetch_factor, pin_memory, timeout, name)


def evaluation_loader(
    dataset: FaceDataset,
    batch_size: int = 1,
    num_workers: int = 0,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    prefetch_factor: int = 2,
    pin_memory: bool = False,
    timeout: float = 600,
    name: str = "val",
) -> Loader:
    """Every picture once: rank r reads pictures r, r + world_size, ..., in order; `batch.index` says which they are.

    A batch holds up to `batch_size` successive pictures of one size.  A picture that cannot be read always stops it:
    a score over other pictures would be another score.
    """
    dataset.seed = seed
    share = range(rank, len(dataset), world_size)
    batches = [share[i : i + batch_size] for i in range(0, len(share), batch_size)]
    return Loader(_Evaluation(dataset), batches, _collate_runs, num_workers, prefetch_factor, pin_memory, timeout, name)


class Loader:
    """Iterates over :class:`Batch`.  Made by :func:`training_loader` and :func:`evaluation_loader`.

    Each iteration has workers of its own; a training has one that never ends.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_sampler: Iterable[Any],
        collate: Callable[[list[Sample | Failure]], list[Batch] | Failure],
        num_workers: int,
        prefetch_factor: int,
        pin_memory: bool,
        timeout: float,
        name: str,
    ):
        self.name = name
        self.batches = DataLoader(
            dataset,
            batch_sampler=batch_sampler,
            num_workers=num_workers,
            collate_fn=collate,
            pin_memory=pin_memory,
            timeout=timeout if num_workers else 0,
            worker_init_fn=_start_worker,
            generator=torch.Generator(),  # so that starting the workers draws nothing from the run's own stream
            prefetch_factor=prefetch_factor if num_workers else None,
        )

    def __iter__(self) -> Iterator[Batch]:
        with worker_failures(self.name):
            for group in self.batches:
                if isinstance(group, Failure):
                    raise group
                yield from group


@contextmanager
def worker_failures(name: str) -> Iterator[None]:
    """Turn what torch raises for a worker that is gone or silent into a DataError.

    torch may raise it anywhere in the main thread (from the signal of the worker's end), so a training loop stands
    inside one too.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if stalled := re.search(r"DataLoader timed out after (\d+)", text):
            raise DataError(
                f"the loader of data set {name!r} gave no batch for {stalled[1]} seconds: its storage hangs (then the "
                "log names the picture), or its workers are starved (fewer with num_worker_per_gpu)"
            ) from error
        if gone := re.search(r"DataLoader worker \(pid.*(killed by signal|exited unexpectedly)[^.]*", text):
            raise DataError(
                f"a worker process of the loader of data set {name!r} is gone ({gone[0]}): most likely "
                "memory or /dev/shm ran out; lower num_worker_per_gpu or batch_size_per_gpu"
            ) from error
        raise


class _Training(Dataset):
    """Samples by key; an error that the user can mend in place of its sample."""

    def __init__(self, dataset: FaceDataset):
        self.dataset = dataset

    def __getitem__(self, key: SampleKey) -> Sample | Failure:
        try:
            return self.dataset[key]
        except Failure as error:
            return error


class _Evaluation(_Training):
    """Samples by index, which they carry; no picture takes another's place."""

    def __getitem__(self, index: int) -> Sample | Failure:
        try:
            return self.dataset.load(SampleKey(index)) | {"index": index}
        except Failure as error:
            return error


def _start_worker(worker: int) -> None:
    cv2.setNumThreads(0)  # the workers themselves are the parallelism
    keep_freed_memory()
    for asked_to_stop in (signal.SIGINT, signal.SIGTERM):  # the main process answers these, after it has saved
        signal.signal(asked_to_stop, signal.SIG_IGN)


def _collate_runs(samples: list[Sample | Failure]) -> list[Batch] | Failure:
    """A batch for each run of samples of one size: tensors stacked, numbers as a tensor, texts as a list."""
    if failure := next((s for s in samples if isinstance(s, Failure)), None):
        return failure
    return [Batch(default_collate(list(run))) for _, run in itertools.groupby(samples, _shapes)]


def _collate_alike(samples: list[Sample | Failure]) -> list[Batch] | Failure:
    """One batch; an error where the samples are of several sizes."""
    batches = _collate_runs(samples)
    if isinstance(batches, Failure) or len(batches) == 1:
        return batches
    one, other = samples[0], next(s for s in samples if _shapes(s) != _shapes(samples[0]))
    return DataError(
        f"a batch cannot hold pictures of different sizes ({_described(one)}; {_described(other)}): cut them to one "
        "size (`gt_size`), or set batch_size_per_gpu: 1"
    )


def _shapes(sample: Sample) -> dict[str, torch.Size]:
    return {k: v.shape for k, v in sample.items() if isinstance(v, Tensor)}


def _described(sample: Sample) -> str:
    path = next((v for k, v in sample.items() if k.endswith("_path")), "a picture")
    return f"{path}: " + ", ".join(f"{k} {'x'.join(map(str, shape))}" for k, shape in _shapes(sample).items())
