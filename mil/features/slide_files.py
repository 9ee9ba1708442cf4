"""List the slides in a folder: the feature files of every producer, at any depth, without their other files."""

import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from mil import storage
from mil.errors import FeatureError
from mil.features.containers import hdf5
from mil.features.formats import companions, slide_of, suffixes

_HDF5 = (".h5", ".hdf5")
_ZARR = ".zarr"
_PAIR = ("h5_files", "pt_files")  # CLAM writes every slide twice, with and without coordinates


def listing(root: Path) -> dict[str, Path]:
    """Return the file of each slide under `root`, by its id; links are followed, and a zarr folder counts as a file.

    Raises:
        FeatureError: There is no folder, no feature file in it, or a slide has two files; or the storage fails, or does
            not answer within `storage.SECONDS`.
    """
    return storage.limited(
        lambda: storage.retried(lambda: _listing(root), root, FeatureError), root, FeatureError, "listing it"
    )


def _listing(root: Path) -> dict[str, Path]:
    if not root.is_dir():
        raise FeatureError(f"{root} is no folder, expected one with feature files, or a file that mil convert wrote")
    paths: dict[str, Path] = {}
    for path in _files(root):
        slide = slide_of(path)
        paths[slide] = _preferred(slide, paths.get(slide, path), path)
    if not paths:
        raise FeatureError(f"{root} holds no feature files ({', '.join(suffixes())}), nor do the folders in it")
    return dict(sorted(paths.items()))


def _preferred(slide: str, first: Path, second: Path) -> Path:
    if os.path.realpath(first) == os.path.realpath(second):
        return first
    ways = {path.parent.name: path for path in (first, second)}
    if set(ways) == set(_PAIR) and first.parent.parent == second.parent.parent:
        return ways[_PAIR[0]]
    raise FeatureError(f"slide '{slide}' is there twice: {first} and {second}, expected one file a slide")


def _files(root: Path) -> Iterator[Path]:
    if root.suffix.lower() == _ZARR:
        yield root
        return
    endings, seen = suffixes(), set[str]()
    for name, folders, files in storage.walked(root, follow=True):
        real = os.path.realpath(name)
        if real in seen:  # a link to a parent folder, or to a folder listed before
            folders.clear()
            continue
        seen.add(real)
        # a zarr folder counts as a file
        candidates = sorted(entry for entry in (*files, *filter(_zarr, folders)) if entry.lower().endswith(endings))
        folders[:] = sorted(entry for entry in folders if not (_zarr(entry) or _folder_aside(entry)))
        paths = [Path(name, entry) for entry in candidates if not _file_aside(entry)]
        if paths and not (Path(name).name == "patches" and Path(name) != root and _positions_only(paths[0])):
            yield from paths


def _zarr(folder: str) -> bool:
    return folder.lower().endswith(_ZARR)


def _folder_aside(name: str) -> bool:
    """Return whether a folder is hidden, or is one that a producer writes next to the features."""
    return name.startswith(".") or any(fnmatchcase(name, pattern) for pattern in companions())


def _file_aside(name: str) -> bool:
    return name.startswith(".") or name.endswith(companions())


def _positions_only(path: Path) -> bool:
    if path.suffix.lower() not in _HDF5:
        return False
    try:
        with hdf5.opened(path) as file:
            return hdf5.has(file, "coords") and not hdf5.has(file, "features")
    except FeatureError:
        return False  # not skipped: the error is reported when its slide is read
