"""Processes that are started again find each other in a store that the dead ones have written to."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist

from facerestore.engine.rendezvous import agree
from facerestore.errors import UserError

SOON, AT_ONCE = timedelta(seconds=20), timedelta(seconds=0.2)


def start(store: dist.Store, size: int) -> set[str]:
    """The names on which `size` processes agree."""
    with ThreadPoolExecutor(size) as threads:
        return {f.result() for f in [threads.submit(agree, store, r, size, SOON) for r in range(size)]}


def test_every_start_has_one_name_of_its_own():
    store = dist.HashStore()
    names = [start(store, size) for size in (2, 2, 3, 2)]
    assert all(len(n) == 1 for n in names)
    assert len(set.union(*names)) == 4


@pytest.mark.parametrize("alone", [0, 1])
def test_one_that_died_while_it_waited_is_not_waited_for(alone):
    store = dist.HashStore()
    with pytest.raises(UserError, match=f"process {alone} of 2 waited .* not all have started"):
        agree(store, alone, 2, AT_ONCE)
    assert len(start(store, 2)) == 1


def test_an_early_process_does_not_go_on_with_the_dead():
    """The last start's words and its closed roll are all there when one of the new processes comes, long before the other."""
    store = dist.HashStore()
    start(store, 2)
    with pytest.raises(UserError):
        agree(store, 1, 2, AT_ONCE)
    with pytest.raises(UserError):
        agree(store, 0, 2, AT_ONCE)
