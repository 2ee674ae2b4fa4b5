"""`import facerestore` is quick: it leaves torch to whoever needs it."""

from __future__ import annotations

import subprocess
import sys


def test_importing_brings_no_library():
    code = "import sys, facerestore; print(sorted({'torch', 'numpy', 'cv2', 'msgspec'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
