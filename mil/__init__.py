"""A multiple-instance-learning model zoo with a training command line for computational pathology.

Study, Run, Predictor: patients with features and targets; a finished run; a loaded tool.
fit, evaluate, predict, predict_tools, load, create_model, explain: functions, see `mil.api` and
`mil.explain.explain_bags`.
endpoints, splits: what can be predicted, and how patients are divided.

All of these are imported when they are first used: `import mil` loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mil import endpoints as endpoints
    from mil import splits as splits
    from mil.api import Predictor as Predictor
    from mil.api import Run as Run
    from mil.api import Study as Study
    from mil.api import create_model as create_model
    from mil.api import evaluate as evaluate
    from mil.api import fit as fit
    from mil.api import load as load
    from mil.api import predict as predict
    from mil.api import predict_tools as predict_tools
    from mil.explain.explain_bags import explain as explain

__version__ = "0.2.0"
__all__ = [
    "Predictor",
    "Run",
    "Study",
    "create_model",
    "endpoints",
    "evaluate",
    "explain",
    "fit",
    "load",
    "predict",
    "predict_tools",
    "splits",
]


def __getattr__(name: str) -> Any:
    """Import a name of the API when it is first used."""
    if name in ("endpoints", "explain", "splits"):
        return import_module(f"mil.{name}")
    if name in __all__:
        return getattr(import_module("mil.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
