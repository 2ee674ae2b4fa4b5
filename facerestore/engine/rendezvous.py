"""How the processes of one start find each other, and not what is left of those that were there before.

torchrun's store lives on when it starts the processes again, with all that the dead ones wrote to it: a process that is early
then asks for an address at which nobody answers any more, or waits for ever (pytorch/pytorch#135712, #167288).  The count of
restarts does not tell the starts apart: each machine has its own.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from datetime import timedelta

import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from facerestore.errors import UserError

PAUSE = 0.02  # seconds between two looks at the store


def meet(timeout: timedelta) -> tuple[dist.Store, int, int]:
    """A store that the processes of this start share with nobody else, this one's rank, and how many they are.

    Who the processes are comes from torchrun's environment variables.  UserError where some do not come within `timeout`.
    """
    store, rank, size = next(rendezvous("env://", timeout=timeout))
    store.set_timeout(timeout)
    return dist.PrefixStore(agree(store, rank, size, timeout), store), rank, size


def agree(store: dist.Store, rank: int, size: int, timeout: timedelta) -> str:
    """A name on which the `size` processes of this start agree, whatever an earlier start left in `store`.

    Each writes a word that nobody had before.  The first process calls the roll, until every word on it is known to a process
    that is alive: each signs the roll on which it finds its own word, and the one that all have signed is closed.
    """
    word, end = uuid.uuid4().hex, time.monotonic() + timeout.total_seconds()
    store.set(f"word of {rank}", word)
    while time.monotonic() < end:
        if rank == 0:
            store.set("roll", " ".join(_read(store, f"word of {r}") for r in range(size)))
        roll = _read(store, "roll")
        if word in roll.split():
            store.set(f"signature of {rank}", roll)
            if rank == 0 and all(_read(store, f"signature of {r}") == roll for r in range(size)):
                store.set("closed", roll)
            if _read(store, "closed") == roll:
                return hashlib.sha256(roll.encode()).hexdigest()
        time.sleep(PAUSE)
    raise UserError(f"process {rank} of {size} waited {timeout.total_seconds():.0f} s for the others: not all have started")


def _read(store: dist.Store, key: str) -> str:
    """What is under `key`, nothing where nobody has written yet; a store's own `get` would wait."""
    return store.get(key).decode() if store.check([key]) else ""
