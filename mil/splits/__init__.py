"""How patients are divided into training, model selection and final test: strategies, imported when first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mil.splits.by_site import LeaveOneSiteOut as LeaveOneSiteOut
    from mil.splits.by_site import SitePreserved as SitePreserved
    from mil.splits.folds import AllTrain as AllTrain
    from mil.splits.folds import Fixed as Fixed
    from mil.splits.folds import HoldOut as HoldOut
    from mil.splits.folds import KFold as KFold
    from mil.splits.folds import Nested as Nested

_MODULES = {
    "AllTrain": "folds",
    "Fixed": "folds",
    "HoldOut": "folds",
    "KFold": "folds",
    "LeaveOneSiteOut": "by_site",
    "Nested": "folds",
    "SitePreserved": "by_site",
}


def __getattr__(name: str) -> Any:
    """Import a strategy when it is first used."""
    if name in _MODULES:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
