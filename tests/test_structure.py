"""The house's rules that a machine can hold."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from facerestore.registry import ARCHS, DATASETS, LOSSES, METRICS, MODELS, parameters_of

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "facerestore"
FILES = sorted(PACKAGE.rglob("*.py"))

# Who may import whom at the top of a file: imports point one way.
BASE = {"errors", "files", "registry"}
MAY_IMPORT = {
    "errors": set(),
    "files": {"errors"},
    "registry": {"errors"},
    "checkpoint": BASE,
    "archs": BASE | {"archs"},
    "losses": BASE | {"losses", "archs"},  # a loss may look through a network's features
    "metrics": BASE | {"metrics"},
    "data": BASE | {"data"},
    "config": BASE | {"config"},
    "models": BASE | {"models", "archs", "losses", "metrics", "data"},
    "inference": BASE | {"inference", "checkpoint", "archs", "data"},
    "engine": BASE | {"engine", "checkpoint", "archs", "losses", "metrics", "data", "models", "config"},
    "__init__": set(),
}


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.Module) -> set[str]:
    """Parts of this project that a module imports when it is imported itself."""
    found = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("facerestore"):
            below = node.module.split(".")[1:]
            found |= {below[0]} if below else {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_point_one_way(path):
    assert imports(ast.parse(path.read_text())) <= MAY_IMPORT[part_of(path)]


@pytest.mark.parametrize("part", ["archs", "losses", "models"])
def test_no_guesses_no_wrappers_no_ranks(part):
    for path in (PACKAGE / part).rglob("*.py"):
        text = path.read_text()
        for word in ("hasattr(", ".module.", ".item()", "rank"):
            assert word not in text, f"{path.name} holds {word}"


@pytest.mark.parametrize("registry", [ARCHS, DATASETS, LOSSES, METRICS, MODELS], ids=lambda r: r.kind)
def test_every_keyword_of_every_component_is_explained(registry):
    assert registry.names()
    for name in registry.names():
        missing = [p.name for p in parameters_of(registry.get(name)) if not p.doc]
        assert not missing, f"{name} does not say what {missing} are for"


def test_every_file_says_what_it_is():
    for path in FILES:
        text = path.read_text()
        assert not text.strip() or ast.get_docstring(ast.parse(text)), path
