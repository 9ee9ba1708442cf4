"""Names of a package that are imported when they are first used, so that importing the package stays quick."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_attributes(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` for a package.

    Args:
        package: `__name__` of the package.
        modules: For each name the submodule of the package that defines it.
    """

    def import_attribute(name: str) -> Any:
        """Import a name from its submodule.

        Raises:
            AttributeError: The package has no such name.
        """
        if name in modules:
            return getattr(import_module(f"{package}.{modules[name]}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules})

    return import_attribute, names
