"""What several tests of the frame need."""

from __future__ import annotations

import pytest

from facerestore.engine.cli import train_main
from tests.engine.runs import DEBUG, QUICK


@pytest.fixture
def train(tmp_path, monkeypatch, capsys):
    """Train in this process; what it said comes back."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, options="sr.yml"):
        code = train_main(["-opt", str(DEBUG / options), *QUICK, *arguments])
        said = capsys.readouterr()
        assert code == 0, said.err
        return said.out

    return run
