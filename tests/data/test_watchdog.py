"""A read that takes too long is named, by whoever reads."""

from __future__ import annotations

import logging
import multiprocessing
import threading
import time

import pytest

from facerestore.data import watchdog as module
from facerestore.data.loader import training_loader
from facerestore.data.paired import PairedImageDataset
from facerestore.data.storage import Folder
from facerestore.data.watchdog import Watchdog
from tests.data.pictures import folder


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "has been read for" in record.getMessage()]


def test_a_slow_read_is_named_again_and_again_and_a_fast_one_never(caplog):
    watchdog = Watchdog(patience=0.2)
    for _ in range(3):
        with watchdog.watching("fast.png"):
            time.sleep(0.02)
    with watchdog.watching("slow.png"):
        time.sleep(0.75)
    time.sleep(0.3)
    assert 2 <= len(messages(caplog)) <= 3 and all(m.startswith("slow.png has been read for") for m in messages(caplog))


def test_each_thread_has_its_own(caplog):
    watchdog = Watchdog(patience=0.1)

    def read(name: str, seconds: float) -> None:
        with watchdog.watching(name):
            time.sleep(seconds)

    threads = [threading.Thread(target=read, args=(f"{i}.png", 0.3)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {m.split()[0] for m in messages(caplog)} == {"0.png", "1.png", "2.png"}


def test_an_error_ends_the_watch(caplog):
    watchdog = Watchdog(patience=0.1)
    with pytest.raises(ValueError), watchdog.watching("broken.png"):
        raise ValueError
    time.sleep(0.3)
    assert not messages(caplog)


def test_a_forked_process_watches_for_itself():
    watchdog = Watchdog(patience=0.1)
    with watchdog.watching("begun.png"):
        context = multiprocessing.get_context("fork")
        queue = context.Queue()

        def read() -> None:
            handler = logging.Handler()
            handler.emit = lambda record: queue.put(record.getMessage())
            logging.getLogger("facerestore").addHandler(handler)
            with watchdog.watching("forked.png"):
                time.sleep(0.3)
            queue.put("")

        process = context.Process(target=read)
        process.start()
        said = list(iter(lambda: queue.get(timeout=30), ""))
        process.join()
    assert said and all(message.startswith("forked.png") for message in said)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_loader_names_a_picture_that_a_slow_disk_holds_back(tmp_path, monkeypatch, capfd, num_workers):
    root = folder(tmp_path / "gt", ["a", "b"])
    read = Folder.read

    def slow(self: Folder, name: str) -> bytes:
        time.sleep(0.4 if name == "b" else 0)
        return read(self, name)

    monkeypatch.setattr(Folder, "read", slow)
    monkeypatch.setattr("facerestore.data.storage.watchdog", Watchdog(patience=0.2))
    handler = logging.StreamHandler()
    module.log.addHandler(handler)
    try:
        batches = training_loader(PairedImageDataset(str(root), gt_size=8), 2, num_workers, timeout=60)
        next(iter(batches))
    finally:
        module.log.removeHandler(handler)
    named = [line.split()[0] for line in capfd.readouterr().err.splitlines() if "has been read for" in line]
    assert str(root / "b.png") in named and str(root / "a.png") not in named
