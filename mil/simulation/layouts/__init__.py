"""Writers of feature files in the layouts of their producers, one module for each container.

A writer stores the features `(n, d)` of one slide, at cells `(n, 2)` of a grid, in a folder; a `Scan` says how the
slide was scanned and tiled. Coordinates are in the unit of each producer. `TABLES` writes what a producer's software
needs besides.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from mil.errors import ConfigError
from mil.simulation.layouts.scan import EXTENT, SCAN, Floats, Ints, Scan
from mil.simulation.layouts.write_arrays import write_flamby, write_owkin, write_torchmil
from mil.simulation.layouts.write_hdf5 import write_clam, write_mussel, write_nnmil, write_stamp, write_trident
from mil.simulation.layouts.write_lazyslide import write_lazyslide
from mil.simulation.layouts.write_pickles import write_clam_pt, write_mil_baseline, write_slideflow, write_trident_pt
from mil.simulation.layouts.write_tables import TABLES

__all__ = ["EXTENT", "LAYOUTS", "TABLES", "require"]


class Writer(Protocol):
    """Writes one slide into the folder of features."""

    def __call__(self, folder: Path, slide: str, features: Floats, cells: Ints, scan: Scan = SCAN) -> None:
        """Write features `(n, d)` of tiles at `cells` `(n, 2)`."""


LAYOUTS: Mapping[str, Writer] = {
    "trident": write_trident,
    "trident_pt": write_trident_pt,
    "clam": write_clam,
    "clam_pt": write_clam_pt,
    "nnmil": write_nnmil,
    "stamp": write_stamp,
    "mussel": write_mussel,
    "slideflow": write_slideflow,
    "mil_baseline": write_mil_baseline,
    "owkin": write_owkin,
    "flamby": write_flamby,
    "torchmil": write_torchmil,
    "lazyslide": write_lazyslide,
}

_EXTRA = {"lazyslide": ("zarr", "pyarrow")}


def require(layout: str) -> None:
    """Check that the libraries of a layout are installed.

    Raises:
        ConfigError: The extra `mil-zoo[zarr]` is not installed.
    """
    if missing := [name for name in _EXTRA.get(layout, ()) if importlib.util.find_spec(name) is None]:
        raise ConfigError(f'layout: {layout} needs {" and ".join(missing)}: pip install "mil-zoo[zarr]"')
