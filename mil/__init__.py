"""A multiple-instance-learning model zoo with a training command line for computational pathology."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mil.study.build import create_model as create_model
    from mil.zoo.predictor import load as load

__version__ = "0.1.0"

# Ragged batches bring ever new shapes. oneDNN keeps the kernels that it compiled for the last 1,024, up to a megabyte
# each, and for bfloat16 more than that: 4.8 GB after 3,500 shapes, 0.4 GB with limits. The blocks of `Bags.tilewise`
# need fewer than 128; with room for 16 a step takes 1.8 times as long. The limits are read when torch starts.
for _cache, _limit in (("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128"), ("LRU_CACHE_CAPACITY", "16")):
    os.environ.setdefault(_cache, _limit)


def __getattr__(name: str) -> Any:
    """`mil.create_model` and `mil.load`, imported once they are asked for: `import mil` loads no torch."""
    if name == "create_model":
        from mil.study.build import create_model

        return create_model
    if name == "load":
        from mil.zoo.predictor import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
