"""Code outside mil/endpoints uses what endpoints declare and never checks their class."""

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

import mil
from mil.endpoints.endpoint import Endpoint

PACKAGE = Path(mil.__file__).parent
ENDPOINTS = PACKAGE / "endpoints"


def imported_endpoints(tree: ast.Module) -> set[str]:
    """Return the names under which a module imports endpoint classes other than the base class."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mil.endpoints"):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                member = getattr(module, alias.name)
                if inspect.isclass(member) and issubclass(member, Endpoint) and member is not Endpoint:
                    names.add(alias.asname or alias.name)
    return names


def class_checks(source: str) -> Iterator[str]:
    """Yield `line: code` of each isinstance, issubclass, match or comparison of types with an endpoint class."""
    tree = ast.parse(source)
    names = imported_endpoints(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="isinstance" | "issubclass"), args=[_, checked]):
                operands = [checked]
            case ast.MatchClass(cls=checked):
                operands = [checked]
            case ast.Compare(left=ast.Call(func=ast.Name(id="type")), comparators=comparators):
                operands = comparators
            case _:
                continue
        for operand in operands:
            mentioned = {leaf.id for leaf in ast.walk(operand) if isinstance(leaf, ast.Name)}
            if mentioned & names or "endpoints." in ast.unparse(operand):
                yield f"{operand.lineno}: {ast.unparse(operand)}"


@pytest.mark.parametrize(
    "code",
    [
        "isinstance(endpoint, Binary)",
        "isinstance(endpoint, Binary | int)",
        "isinstance(endpoint, (int, Time))",
        "issubclass(endpoint, mil.endpoints.survival.Cox)",
        "type(endpoint) is Time",
        "match endpoint:\n    case Binary():\n        pass",
    ],
)
def test_every_kind_of_class_check_is_detected(code: str) -> None:
    imports = "from mil.endpoints.classification import Binary\nfrom mil.endpoints.survival import Cox as Time"
    assert len(list(class_checks(f"{imports}\n{code}"))) == 1


def test_checks_of_base_class_and_unrelated_classes_are_allowed() -> None:
    imports = "from mil.endpoints.classification import Binary\nfrom mil.endpoints.endpoint import Endpoint"
    assert not list(class_checks(f"{imports}\nisinstance(x, Endpoint)\nisinstance(x, str)\nBinary('label')"))


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_outside_endpoints_checks_endpoint_classes(path: Path) -> None:
    if ENDPOINTS in path.parents:
        pytest.skip("a module of mil/endpoints")
    assert not list(class_checks(path.read_text(encoding="utf-8")))
