"""Two processes with half the batch each are one with the whole."""

from __future__ import annotations

import pytest

from tests.engine.runs import DEBUG, processes, program, weights

SETTINGS = ["--set", "train.total_iter=5", "--set", "val.report=false", "--set", "logger.use_tb_logger=false"]


@pytest.mark.slow
@pytest.mark.parametrize("options", ["sr.yml", "srgan.yml"])
def test_two_processes_are_one(tmp_path, options):
    one = program("train.py", "-opt", DEBUG / options, *SETTINGS, "--set", "name=one", cwd=tmp_path)
    two = processes(2, "-opt", DEBUG / options, *SETTINGS, "--set", "name=two", "--launcher", "pytorch",
                    "--set", "datasets.train.batch_size_per_gpu=2", cwd=tmp_path)  # fmt: skip
    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    alone, together = (weights(tmp_path / "experiments" / n, 5) for n in ("one", "two"))
    for kind in alone:
        for key, tensor in alone[kind].items():
            assert (tensor - together[kind][key]).abs().max() <= 1e-5, key
