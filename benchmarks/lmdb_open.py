"""How long an LMDB of many small pictures takes to open, and to have its names: processor seconds, best of three.

python benchmarks/lmdb_open.py --count 70000
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from facerestore.data.lmdb_storage import LIST, Lmdb, LmdbWriter


def best(work: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=70000, help="pictures (default: 70000, as many as FFHQ has)")
    parser.add_argument("--bytes", type=int, default=100, help="of each value (default: 100)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "many.lmdb")
        with LmdbWriter(root) as writer:
            for i in range(options.count):
                writer.put(f"{i:08d}", f"{i:08d}".encode().ljust(options.bytes), (1, 1, 3), 1)
            writer.finish()
        lmdb = Lmdb(str(root), "--input")
        print(f"{options.count} pictures, {(root / 'data.mdb').stat().st_size / 2**20:.0f} MiB")
        print(f"open, and have the names: {best(lambda: Lmdb(str(root), '--input').names()):.2f} s")
        names = lmdb.names()
        print(f"read every value: {best(lambda: [lmdb.read(name) for name in names]):.2f} s")
        (root / LIST).unlink()
        print(f"open without {LIST}: {best(lambda: Lmdb(str(root), '--input').names()):.2f} s")


if __name__ == "__main__":
    main()
