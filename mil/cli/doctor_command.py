"""`mil doctor`: what a report of a fault needs to know of the machine, and nothing of patients.

Names of users, hosts and folders stay out.
"""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from mil import __version__

DISTRIBUTION = "mil-zoo"
LIBRARIES = ("torch", "lightning", "hydra-core", "numpy", "pandas", "scipy", "scikit-learn", "lifelines", "h5py")
GIB = 2**30
SCARCE_GIB = 5
"""Free disk below which a cohort of features may not fit."""


def lines() -> Iterator[str]:
    """Yield the lines of the report, each `what: value`; a line that begins with `!` names what may go wrong."""
    yield f"mil-zoo: {__version__}"
    yield f"python: {platform.python_version()} ({platform.system()} {platform.release()}, {platform.machine()})"
    yield "libraries: " + ", ".join(f"{name} {_version(name)}" for name in LIBRARIES)
    yield from _extras()
    yield from _torch()
    yield from _memory()
    yield from _folders()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _extras() -> Iterator[str]:
    """Each extra, and what of it is missing."""
    declared = [Requirement(line) for line in requires(DISTRIBUTION) or ()]
    for extra in metadata(DISTRIBUTION).get_all("Provides-Extra") or ():
        if extra in ("test", "dev"):
            continue
        needed = [each for each in declared if each.marker and each.marker.evaluate({"extra": extra})]
        missing = [each.name for each in needed if _version(each.name) == "missing"]
        yield f"extra {extra}: " + (f"not installed ({', '.join(missing)} missing)" if missing else "installed")


def _torch() -> Iterator[str]:
    import torch

    from mil.inference.forward import device
    from mil.training.chosen_precision import precision

    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    yield f"torch build: {torch.__version__}, {cuda}"
    names = [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())]
    yield "GPU: " + (", ".join(names) or "none")
    yield f"device used: {device()}, precision chosen in training: {precision('auto')}"
    yield f"CPUs: {os.cpu_count()}, of them usable {_usable_cpus()}; threads of torch: {torch.get_num_threads()}"


def _usable_cpus() -> int | None:
    """Those that this process may use, fewer than all in a container or a cluster's job."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _memory() -> Iterator[str]:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    yield f"memory: {pages * size / GIB:.1f} GiB"


def _folders() -> Iterator[str]:
    from mil.study.build import cache_dir

    cache = "cache (MIL_CACHE)" if os.environ.get("MIL_CACHE") else "cache"
    places = {"working folder": Path.cwd(), cache: cache_dir(), "temporary files": Path(tempfile.gettempdir())}
    for name, folder in places.items():
        place = next(path for path in (folder, *folder.parents) if path.exists())
        free, writable = shutil.disk_usage(place).free / GIB, os.access(place, os.W_OK | os.X_OK)
        yield f"{name}: {free:.1f} GiB free, {'writable' if writable else 'not writable'}"
        if not writable:
            yield f"! {name}: not writable" + ("; MIL_CACHE names another folder" if name == cache else "")
        if free < SCARCE_GIB:
            yield f"! {name}: less than {SCARCE_GIB} GiB free; features of one slide take 10 to 150 MB"


def show() -> None:
    """Print the report."""
    sys.stdout.write("".join(f"{line}\n" for line in lines()))
