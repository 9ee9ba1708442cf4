"""A multiple-instance-learning model zoo with a training command line for computational pathology."""

import os

__version__ = "0.1.0"

# Ragged batches hardly ever repeat a shape, and oneDNN keeps the kernels that it compiled for the last 1,024 of them,
# up to a megabyte each, for bfloat16 without any bound that we found: 4.8 GB after 3,500 shapes, 0.4 GB with limits of
# 32, at the same speed. They are read when torch starts.
for _cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.environ.setdefault(_cache, "16")
