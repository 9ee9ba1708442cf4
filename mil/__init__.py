"""A multiple-instance-learning model zoo with a training command line for computational pathology."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mil.study.build import create_model as create_model
    from mil.zoo.predictor import load as load

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`mil.create_model` and `mil.load`, imported once they are asked for: `import mil` loads no torch."""
    if name == "create_model":
        from mil.study.build import create_model

        return create_model
    if name == "load":
        from mil.zoo.predictor import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
