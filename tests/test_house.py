"""House rules that no linter knows: variable names, file names, untyped dictionaries, what tests may read."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = sorted((ROOT / "mil").rglob("*.py"))
VAGUE_NAMES = frozenset(
    ("found", "one", "own", "said", "told", "known", "asked", "kept", "beside", "wanted", "there", "whole", "other")
)
"""Variable names that do not say what the variable holds."""
MOST_UNTYPED = 30
"""`dict[str, Any]` and `Mapping[str, Any]` in the whole package: where JSON or yaml comes in or goes out."""


def bound_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield the names of variables and parameters that a module binds, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_vague_variable_names(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    vague = [f"{name} (line {line})" for name, line in bound_names(tree) if name in VAGUE_NAMES]
    assert not vague


def test_module_file_names_are_unique() -> None:
    names = Counter(path.name for path in PACKAGE if path.name != "__init__.py")
    assert not [name for name, count in names.items() if count > 1]


def test_untyped_dictionaries_are_rare() -> None:
    texts = [path.read_text(encoding="utf-8") for path in PACKAGE]
    assert sum(text.count("dict[str, Any]") + text.count("Mapping[str, Any]") for text in texts) <= MOST_UNTYPED


def test_tests_read_no_files_outside_the_repository() -> None:
    outside = "../" + "shared"
    readers = [path for path in (ROOT / "tests").rglob("*.py") if outside in path.read_text(encoding="utf-8")]
    assert not readers
