"""The house's rules that a machine can hold."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from pathlib import Path

import pytest

from facerestore.registry import ARCHS, DATASETS, LOSSES, METRICS, MODELS, SCHEDULES, parameters_of

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
    "metrics": BASE | {"metrics", "archs", "data"},  # a metric may look through a network, or at half of a picture
    "data": BASE | {"data"},
    "config": BASE | {"config"},
    "models": BASE | {"models", "archs", "losses", "metrics", "data"},
    "inference": BASE | {"inference", "checkpoint", "archs", "data"},
    "engine": BASE | {"engine", "checkpoint", "archs", "losses", "metrics", "data", "models", "config", "inference"},
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


def loaded_names(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def attributes_read(tree: ast.AST) -> set[str]:
    """Attributes that a file looks up, also by name (`getattr(network, "upscale", None)`)."""
    read = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Load)}
    return read | {name.value for name in looked_up(tree) if isinstance(name, ast.Constant)}


def looked_up(tree: ast.AST) -> list[ast.expr]:
    """What stands as a name in calls of getattr."""
    calls = (n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "getattr")
    return [call.args[1] for call in calls]


def reads_field(tree: ast.AST, name: str) -> bool:
    """Whether a file looks up a dataclass's field, also in a loop over names or by a name that it puts together."""
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    words = {n.value for f in functions for n in ast.walk(f) if isinstance(n, ast.Constant)}
    begins = [text.values[0].value for text in looked_up(tree) if isinstance(text, ast.JoinedStr)]
    return name in attributes_read(tree) | words or any(name.startswith(begin) for begin in begins)


def only_stored(function: ast.FunctionDef, name: str) -> str | None:
    """The attribute that a parameter is put into, where that is all that happens to it."""
    uses = [n for n in ast.walk(function) if isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Load)]
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and len(uses) == 1:
            target, value = node.targets[0], node.value
            pairs = (
                zip(target.elts, value.elts, strict=True)
                if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
                else [(target, value)]
            )
            for to, what in pairs:
                if what is uses[0] and isinstance(to, ast.Attribute):
                    return to.attr
    return None


@pytest.mark.parametrize("registry", [ARCHS, DATASETS, LOSSES, METRICS, MODELS, SCHEDULES], ids=lambda r: r.kind)
def test_every_keyword_of_every_component_is_used(registry):
    """So that a key of an option file that binds to a signature is also read."""
    read = set().union(*(attributes_read(ast.parse(path.read_text())) for path in FILES))
    for name in registry.names():
        entry = registry.get(name)
        if dataclasses.is_dataclass(entry):
            files = {inspect.getsourcefile(c) for c in entry.__mro__ if c.__module__.startswith("facerestore")}
            trees = [ast.parse(Path(file).read_text()) for file in files]
            unread = [p.name for p in parameters_of(entry) if not any(reads_field(tree, p.name) for tree in trees)]
            assert not unread, f"{name} never looks at its {unread}"
            continue
        function = entry.__init__ if inspect.isclass(entry) else entry
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
        used = set().union(*(loaded_names(statement) for statement in tree.body))
        for parameter in inspect.signature(entry).parameters:
            assert parameter in used, f"{name} does nothing with its `{parameter}`"
            attribute = only_stored(tree, parameter)
            assert attribute is None or attribute in read, f"{name} stores `{parameter}` as {attribute}, which nobody reads"
