"""Slides' features, wherever a producer wrote them."""

import difflib
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mil.data import hdf5
from mil.data.encoders import Encoder, folded
from mil.data.formats import Header, Slide, detect, suffixes
from mil.errors import EncoderError, FeatureError

_log = logging.getLogger(__name__)


class FeatureStore:
    """The feature files under a folder, one a slide; the slide's id is the file's name without its ending.

    The folder is listed once, nested folders and links included. A file is opened for each read and closed again, so
    a store holds no handle, and it can be sent to worker processes.

    Args:
        folder: Where the files lie, at any depth.
        encoder: What made the features; None takes what the files say.
        known: Encoders whose names and aliases are recognised.

    Attributes:
        encoder: As given, or as `resolve` found it.
        verified: Whether every file asked about by `resolve` said its encoder itself.

    Raises:
        FeatureError: No folder, no feature file in it, or a slide that is there twice.
    """

    def __init__(self, folder: Path, encoder: Encoder | None = None, known: Sequence[Encoder] = ()) -> None:
        self.folder = Path(folder)
        self.encoder = encoder
        self.known = tuple(known)
        self.verified = False
        self._paths = _scan(self.folder)
        self._headers: dict[str, Header] = {}
        self._readers: dict[str, Callable[[Path, Header | None], Slide]] = {}

    @property
    def slides(self) -> list[str]:
        """Ids of all slides, sorted."""
        return list(self._paths)

    def __contains__(self, slide: object) -> bool:
        return slide in self._paths

    def __len__(self) -> int:
        return len(self._paths)

    def path(self, slide: str) -> Path:
        """Where a slide's features lie.

        Raises:
            FeatureError: There are none.
        """
        if slide not in self._paths:
            near = difflib.get_close_matches(slide, self._paths, n=1)
            hint = f"; the nearest name is '{near[0]}'" if near else ""
            raise FeatureError(f"slide '{slide}' has no features under {self.folder}{hint}")
        return self._paths[slide]

    def header(self, slide: str) -> Header:
        """What a slide's file says of itself; read once, then remembered.

        Raises:
            FeatureError: Missing, broken, or of no known layout.
        """
        if slide not in self._headers:
            path = self.path(slide)
            layout = detect(path)
            self._readers[slide] = layout.read
            self._headers[slide] = layout.header(path)
        return self._headers[slide]

    def read(self, slide: str, check: bool = True) -> Slide:
        """A slide's whole bag.

        Args:
            slide: Its id.
            check: Also look for NaN and infinite values.

        Raises:
            FeatureError: Missing, broken, empty, not finite, or changed since its header was read.
            EncoderError: Of another width than the encoder's.
        """
        path = self.path(slide)
        if slide not in self._readers:
            self._readers[slide] = detect(path).read
        found = self._readers[slide](path, self._headers.get(slide))
        said = self._headers.setdefault(slide, found.header)
        if found.features.shape != (said.tiles, said.width):
            now = tuple(found.features.shape)
            raise FeatureError(f"{path} has changed while it was in use: {now}, was {(said.tiles, said.width)}")
        if said.tiles == 0:
            raise FeatureError(f"{path} has zero tiles, expected at least one")
        if self.encoder is not None and said.width != self.encoder.dim:
            raise EncoderError(self._other_width(slide, self.encoder))
        if check:
            _refuse_not_finite(path, found.features)
        return found

    def sound(self, slides: Iterable[str]) -> list[str]:
        """Those of these slides that can be read whole, have tiles, and are finite; a warning counts the others."""
        asked = list(slides)
        reasons = {slide: reason for slide in asked if (reason := self._unsound(slide))}
        if reasons:
            first = next(iter(reasons.values()))
            _log.warning("%d of %d slides cannot be used; the first: %s", len(reasons), len(asked), first)
        return [slide for slide in asked if slide not in reasons]

    def _unsound(self, slide: str) -> str:
        try:
            self.read(slide)
        except FeatureError as error:
            return str(error)
        return ""

    def resolve(self, slides: Iterable[str]) -> Encoder:
        """The one encoder of these slides; it stays with the store, and `verified` says whether the files named it.

        Raises:
            EncoderError: Files of several encoders or widths, or of another one than was given, or none is known.
            FeatureError: A file that is missing or broken.
        """
        headers = {slide: self.header(slide) for slide in slides}
        _warn_of_doubles(headers)
        # Empty slides do not always know their width.
        width = self._only_width({slide: said for slide, said in headers.items() if said.width})
        named = {slide: said.encoder for slide, said in headers.items() if said.encoder}
        encoder = self._only_name(named, width) if self.encoder is None else self._expected(named, self.encoder)
        if encoder.dim != width:
            raise EncoderError(self._other_width(next(s for s in headers if headers[s].width), encoder))
        self.verified = len(named) == len(headers)
        if named and not self.verified:
            silent = len(headers) - len(named)
            _log.warning("%d of %d slides do not say their encoder, taken as '%s'", silent, len(headers), encoder.name)
        self.encoder = encoder
        return encoder

    def _only_width(self, headers: dict[str, Header]) -> int:
        if not headers:
            raise FeatureError(f"{self.folder}: no slide with tiles among those asked for")
        groups = _grouped((slide, str(said.width)) for slide, said in headers.items())
        if len(groups) > 1:
            raise EncoderError(f"features under {self.folder} differ in width: {_listed(groups)}, expected one")
        return int(next(iter(groups)))

    def _only_name(self, named: dict[str, str], width: int) -> Encoder:
        groups = _grouped((slide, self._canonical(name)) for slide, name in named.items())
        if len(groups) > 1:
            raise EncoderError(f"features under {self.folder} come from {_listed(groups)}, expected one encoder")
        if not groups:
            fitting = ", ".join(encoder.name for encoder in self.known if encoder.dim == width)
            hint = f", such as {fitting}" if fitting else ""
            raise EncoderError(
                f"features under {self.folder}, {width} wide, do not name their encoder: give encoder=...{hint}"
            )
        name = next(iter(groups))
        said = next(iter(named.values()))
        return next((encoder for encoder in self.known if encoder.name == name), Encoder(said, width))

    def _canonical(self, name: str) -> str:
        return next((encoder.name for encoder in self.known if encoder.answers_to(name)), folded(name))

    def _expected(self, named: dict[str, str], encoder: Encoder) -> Encoder:
        others = _grouped((slide, name) for slide, name in named.items() if not encoder.answers_to(name))
        if others:
            raise EncoderError(
                f"features under {self.folder} come from {_listed(others)}, expected encoder '{encoder.name}'"
            )
        return encoder

    def _other_width(self, slide: str, encoder: Encoder) -> str:
        said = self._headers[slide]
        fitting = [known.name for known in self.known if known.dim == said.width]
        source = f" (from '{said.encoder}')" if said.encoder else f" (like {', '.join(fitting)})" if fitting else ""
        return f"features of '{slide}' are {said.width} wide{source}, encoder '{encoder.name}' has {encoder.dim}"


def _scan(root: Path) -> dict[str, Path]:
    if not root.is_dir():
        raise FeatureError(f"{root} is no folder, expected one with feature files")
    endings = suffixes()
    found: dict[str, Path] = {}
    for path in _files(root, endings):
        slide = path.name[: -len(path.suffix)]
        if slide in found and found[slide].resolve() != path.resolve():
            raise FeatureError(f"slide '{slide}' is there twice: {found[slide]} and {path}, expected one file a slide")
        found.setdefault(slide, path)
    if not found:
        raise FeatureError(f"{root} holds no feature files ({', '.join(endings)}), nor do the folders in it")
    return dict(sorted(found.items()))


def _files(root: Path, endings: tuple[str, ...]) -> Iterable[Path]:
    seen: set[Path] = set()
    for name, folders, files in os.walk(root, followlinks=True):
        folder = Path(name)
        if folder.resolve() in seen:  # a link to a folder above it, or to one already listed
            folders.clear()
            continue
        seen.add(folder.resolve())
        # TRIDENT keeps slide embeddings and tile positions beside the tiles' features.
        folders[:] = sorted(one for one in folders if not one.startswith((".", "slide_features_")))
        own = sorted(folder / one for one in files if one.lower().endswith(endings) and not one.startswith("."))
        if own and not (folder.name == "patches" and folder != root and _positions_only(own[0])):
            yield from own


def _positions_only(path: Path) -> bool:
    try:
        with hdf5.opened(path) as file:
            return hdf5.has(file, "coords") and not hdf5.has(file, "features")
    except FeatureError:
        return False  # not skipped: it is named when its slide is read


def _refuse_not_finite(path: Path, features: Tensor) -> None:
    # Both extremes are NaN where any value is; rows are counted only where there is something to count.
    if all(torch.isfinite(extreme) for extreme in torch.aminmax(features)):
        return
    bad = int((~torch.isfinite(features)).any(dim=1).sum())
    raise FeatureError(f"{path}: {bad} of {len(features)} tiles have NaN or infinite values, expected finite ones")


def _warn_of_doubles(headers: dict[str, Header]) -> None:
    doubles = sum(said.dtype == "float64" for said in headers.values())
    if doubles:
        _log.warning("%d of %d slides hold float64 features, read as float32", doubles, len(headers))


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for slide, value in pairs:
        groups[value].append(slide)
    return dict(groups)


def _listed(groups: dict[str, list[str]]) -> str:
    return " and ".join(f"'{value}' ({len(slides)}, e.g. slide '{slides[0]}')" for value, slides in groups.items())
