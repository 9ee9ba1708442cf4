"""Why a model says what it says: signed scores of tiles, how far they can be believed, and files that viewers open.

The package can be called, `mil.explain(model, bags)`: see `mil.explain.explain_bags.explain`.
"""

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """The package itself, which `mil.explain(model, bags)` calls."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        from mil.explain.explain_bags import explain

        return explain(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
