"""Kill a training with SIGKILL at random moments, go on each time, and compare with a run that was never killed.

    python benchmarks/faults.py                                   # 100 kills, two loader workers: about ten minutes
    python benchmarks/faults.py --kills 20 --processes 2          # under torchrun, which brings the processes back

Weights, averages, what the optimizers remember, the best weights by two metrics, curves and validation pictures must be the
same to the bit, and no file may be missing or left over.  Exit code 1 where anything differs.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from tqdm import trange

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = ["logger.save_checkpoint_freq=3", "logger.keep_checkpoints=4", "logger.use_tb_logger=false", "logger.print_freq=3",
            "train.scheduler=~", "val.val_freq=6", "val.keep_best=[psnr,ssim]"]  # fmt: skip
ENDLESS = 10**6  # iterations
START = 600.0  # seconds until a run must have gone on


class Killed:
    """A run that is killed again and again.

    Args:
        folder: where it trains
        options: its option file
        workers: loader processes
        processes: training processes; above one, torchrun starts them, and starts them again when one is killed
        seed: of the moments
    """

    def __init__(self, folder: Path, options: Path, workers: int, processes: int, seed: int):
        self.folder, self.options, self.workers, self.processes = folder, options, workers, processes
        self.random = random.Random(seed)
        self.run = folder / "experiments" / "killed"

    def start(self, name: str, total: int, restarts: int = 0) -> subprocess.Popen:
        """Start the training `name`, or go on with it."""
        settings = [*SETTINGS, f"name={name}", f"train.total_iter={total}", f"datasets.train.num_worker_per_gpu={self.workers}"]
        program = [str(ROOT / "train.py"), "-opt", str(self.options), "--auto_resume"]
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={self.processes}",
                    f"--max-restarts={restarts}"] if self.processes > 1 else []  # fmt: skip
        command = [sys.executable, *launcher, *program, *(word for s in settings for word in ("--set", s))]
        env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with open(self.folder / f"{name}.txt", "ab") as log:
            return subprocess.Popen(command, cwd=self.folder, env=env, stdout=log, stderr=log)

    def last(self) -> int:
        """The last iteration that has a checkpoint."""
        return max((int(p.stem) for p in self.run.glob("training_states/*.state")), default=0)

    def wait_for_progress(self, running: subprocess.Popen, after: int) -> None:
        """Wait until there is a checkpoint later than iteration `after`."""
        end = time.monotonic() + START
        while self.last() <= after:
            if running.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"the run ended or stood still after iteration {after}: see {self.folder}/killed.txt")
            time.sleep(0.005)

    def kill_once(self) -> None:
        """Start, and kill at a random moment: one in four while it starts, the others while it trains, saves and validates."""
        before, running = self.last(), self.start("killed", ENDLESS)
        if self.random.random() < 0.25:
            time.sleep(self.random.uniform(0, 5))
        else:
            self.wait_for_progress(running, before)
            time.sleep(self.random.uniform(0, 0.5))
        running.send_signal(signal.SIGKILL)
        running.wait()

    def kill(self, kills: int) -> int:
        """Kill `kills` times; returns how many iterations the run is to have in all."""
        for _ in trange(kills, unit="kill"):
            self.kill_once()
        return self.last() + 4

    def kill_ranks(self, kills: int) -> int:
        """The same to one of several processes, the others and torchrun being left alone; nobody goes on by hand."""
        running = self.start("killed", ENDLESS, restarts=kills)
        for _ in trange(kills, unit="kill"):
            self.wait_for_progress(running, self.last())
            time.sleep(self.random.uniform(0, 0.5))
            os.kill(self.random.choice(children(running.pid)), signal.SIGKILL)
        self.wait_for_progress(running, self.last())
        ranks = children(running.pid)
        for pid in (running.pid, *ranks):  # torchrun first, so that it starts nobody again
            os.kill(pid, signal.SIGKILL)
        running.wait()
        return self.last() + 4

    def finish(self, total: int) -> None:
        """Bring the killed run to its end, and train the one that is not killed."""
        for name in ("killed", "whole"):
            if code := self.start(name, total).wait():
                raise SystemExit(f"{name} ended with {code}: see {self.folder}/{name}.txt")


def children(pid: int) -> list[int]:
    """The training processes that torchrun has started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[1]) == pid and b"train.py" in (status.parent / "cmdline").read_bytes():
            found.append(int(status.parent.name))
    return found


def differences(one: Path, other: Path) -> list[str]:
    """What is not the same in two runs' folders: names of files, tensors, pictures."""
    ours, theirs = ({str(p.relative_to(f)) for p in results(f)} for f in (one, other))
    found = [f"{name} is in one run only" for name in sorted(ours ^ theirs)]
    for name in sorted(ours & theirs):
        if name.endswith((".pth", ".state")):
            pair = (torch.load(f / name, weights_only=True) for f in (one, other))
            found += [f"{name}: {place} differs" for place in unlike(*pair)]
        elif (one / name).read_bytes() != (other / name).read_bytes():
            found.append(f"{name} differs")
    return found


def results(folder: Path) -> list[Path]:
    """Checkpoints, pictures and curves of a run, and what was left over."""
    kept = [p for part in ("models", "training_states", "visualization") for p in (folder / part).rglob("*") if p.is_file()]
    return [*kept, folder / "metrics.jsonl", *folder.glob(".*.part")]


def unlike(one: object, other: object, place: str = "") -> list[str]:
    """Where two files' contents differ; the options, which hold the runs' names, and the files' digests apart."""
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) else [place]
    if isinstance(one, dict):
        keys = (one.keys() | other.keys()) - {"options", "models"}
        return [w for k in sorted(keys, key=str) for w in unlike(one.get(k), other.get(k), f"{place}.{k}".lstrip("."))]
    return [] if one == other else [place]


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill a training again and again, and compare it with one that was not.")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2, help="loader processes of each training process")
    parser.add_argument("--processes", type=int, default=1, help="training processes, under torchrun")
    parser.add_argument("--options", type=Path, default=ROOT / "options" / "debug" / "srgan.yml")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="faults_"))
    killed = Killed(folder, given.options.resolve(), given.workers, given.processes, given.seed)
    begin = time.monotonic()
    total = killed.kill_ranks(given.kills) if given.processes > 1 else killed.kill(given.kills)
    killed.finish(total)
    wrong = differences(killed.run, killed.run.with_name("whole"))
    aside = [p.name for p in killed.run.parent.iterdir() if p.name not in ("killed", "whole")]
    wrong += [f"{name} was moved aside" for name in aside]
    minutes = (time.monotonic() - begin) / 60
    for line in wrong:
        print(line)
    print(f"{given.kills} kills, {total} iterations, {minutes:.1f} minutes: {'differs' if wrong else 'the same to the bit'}")
    if wrong:
        print(f"both runs are left in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
