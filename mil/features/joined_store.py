"""Features of several encoders of the same tiles, side by side: `FeatureStore` over several folders."""

import copy
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil.errors import EncoderError, FeatureError
from mil.features.content_samples import TILES, Samples
from mil.features.encoders import BETWEEN, Encoder, by_name, joined
from mil.features.feature_folders import feature_folders
from mil.features.fingerprints import Fingerprint
from mil.features.formats import DETECTED, TILE, Header, Reading, Slide
from mil.features.geometry import Expected, Geometry
from mil.features.pieces import Pieces
from mil.features.processes import Progress
from mil.features.store import FeatureStore
from mil.features.survey import SECONDS
from mil.features.tile_matching import Match, match_tiles, refuse_other_tiles, tolerance
from mil.findings import Checked, Finding
from mil.tables import listed

_WIDE = {"float64": "float32"}
"""The type in which every layout reads it."""


class JoinedStore(FeatureStore):
    """The slides of which every encoder has a file; a tile's features are those of all encoders side by side.

    The files of a slide may have their tiles in different orders: tiles are joined by their positions, and come in the
    order of the first encoder. Tiles that an encoder lacks are left out and counted.

    Args:
        folders: The folder or packed file of each encoder, by the name of the encoder.
        encoder: The encoder that a checkpoint was trained on, with its parts; None takes the order of `folders`.
        encoders: Encoders whose names and aliases are recognised.
        reading: Options for files whose content is ambiguous.
        expected: The expected size of tiles; None expects that of each encoder.
        header_seconds: Time limit for reading the header of one file.
        slide_mpps: Micrometres a level-0 pixel of single slides, before that of `reading`.

    Raises:
        FeatureError: There is no folder, no feature file in it, a slide has two files, or no slide has files of all.
        EncoderError: Encoders that the checkpoint does not read, or lacks.
    """

    def __init__(  # a store of stores: what the base class reads from one folder comes from several
        self,
        folders: Mapping[str, Path],
        encoder: Encoder | None = None,
        encoders: Sequence[Encoder] = (),
        reading: Reading = DETECTED,
        expected: Expected | None = None,
        header_seconds: float = SECONDS,
        slide_mpps: Mapping[str, float] | None = None,
    ) -> None:
        if encoder is not None:
            folders = _in_order_of(encoder, folders)
        parts = list(encoder.parts) if encoder is not None else [by_name(encoders, name) for name in folders]
        self.parts = {
            name: FeatureStore(folder, part, encoders, reading, _expected(expected, part), header_seconds, slide_mpps)
            for (name, folder), part in zip(folders.items(), parts, strict=True)
        }
        super().__init__(next(iter(folders.values())), encoder, encoders, reading, expected, header_seconds, slide_mpps)
        self._packed = None
        shared = set.intersection(*(set(store.slides) for store in self.parts.values()))
        self._paths = {slide: self._first.path(slide) for slide in sorted(shared)}
        self._matches: dict[str, Match] = {}
        if not shared:
            names = " and ".join(f"{name} has '{store.slides[0]}'" for name, store in self.parts.items())
            raise FeatureError(f"no slide has features of all encoders: {names}; expected the same names of files")

    @property
    def _first(self) -> FeatureStore:
        return next(iter(self.parts.values()))

    @property
    def folders(self) -> list[Path]:
        """The folder or packed file of each encoder."""
        return [store.folder for store in self.parts.values()]

    @property
    def stores(self) -> list[FeatureStore]:
        """The store of each encoder."""
        return list(self.parts.values())

    def copies_changed(self) -> None:
        """Forget headers, matches and features, which the next read takes from the copies."""
        self._headers, self._matches = {}, {}
        self._kept = None if self._kept is None else {}

    def is_copied(self, slide: str) -> bool:
        """Return whether the features of all encoders are read from copies."""
        return all(store.is_copied(slide) for store in self.parts.values())

    @property
    def rounding(self) -> tuple[str, float] | None:
        """Type of the copies, and the largest change of a value by them."""
        return max(filter(None, (store.rounding for store in self.parts.values())), key=itemgetter(1), default=None)

    def expecting(self, encoder: Encoder, expected: Expected) -> "JoinedStore":
        """Return a store of the same files that expects another encoder, whose parts come in the order of this store.

        Raises:
            EncoderError: It has other parts, or in another order.
        """
        names = list(self.parts)
        if len(encoder.parts) != len(names) or not all(map(Encoder.answers_to, encoder.parts, names)):
            expected_names = [part.name for part in encoder.parts] or [encoder.name]
            raise EncoderError(f"features of {listed(names)}, expected those of {listed(expected_names)}")
        store = copy.copy(self)
        store.parts = {
            name: each.expecting(part, expected)
            for (name, each), part in zip(self.parts.items(), encoder.parts, strict=True)
        }
        store.encoder, store.expected = encoder, expected
        store.verified, store.geometry = False, Geometry()
        return store

    def lacking(self, slide: str) -> list[str]:
        """Return the encoders that have no file of a slide, where another has one; empty for unknown slides."""
        absent = [name for name, store in self.parts.items() if slide not in store]
        return absent if len(absent) < len(self.parts) else []

    def path(self, slide: str) -> Path:
        """Return the first encoder's file of a slide.

        Raises:
            FeatureError: An encoder has none.
        """
        if slide not in self and (absent := self.lacking(slide)):
            present = next(name for name in self.parts if name not in absent)
            raise FeatureError(f"slide '{slide}' has features of {present}, none of {listed(absent)}")
        return super().path(slide)

    def sources(self, slide: str) -> list[Path]:
        """Return the file of each encoder.

        Raises:
            FeatureError: An encoder has none.
        """
        self.path(slide)
        return [store.path(slide) for store in self.parts.values()]

    def headers(
        self, slides: Iterable[str], workers: int = 2, progress: Progress | None = None
    ) -> dict[str, Header | FeatureError]:
        """Return the headers of the joined slides: the number of shared tiles, the width of all encoders together."""
        ids = [slide for slide in slides if self.path(slide)]
        read = {name: store.headers(ids, workers, progress) for name, store in self.parts.items()}
        joined_headers: dict[str, Header | FeatureError] = {}
        for slide in ids:
            if slide not in self._headers:
                try:
                    self._headers[slide] = self._join(slide, {name: read[name][slide] for name in read})
                except FeatureError as error:
                    joined_headers[slide] = error
                    continue
            joined_headers[slide] = self._headers[slide]
        return joined_headers

    def _join(self, slide: str, read: Mapping[str, Header | FeatureError]) -> Header:
        headers: dict[str, Header] = {}
        for name, header in read.items():
            if isinstance(header, FeatureError):
                raise header
            headers[name] = header
        first = next(iter(headers.values()))
        match = self._match(slide, headers)
        if not match.tiles and all(header.tiles for header in headers.values()):
            counts = " and ".join(f"{header.tiles} of {name}" for name, header in headers.items())
            raise FeatureError(
                f"slide '{slide}': of {counts} no tiles lie at the same place within "
                f"{tolerance(first.extent):.3g} level-0 pixels, expected features of the same tiles"
            )
        self._matches[slide] = match
        kinds = {_WIDE.get(header.dtype, header.dtype) for header in headers.values()}
        stated = all(header.encoder for header in headers.values())
        return replace(
            first,
            tiles=match.tiles,
            width=sum(header.width for header in headers.values()),
            dtype=kinds.pop() if len(kinds) == 1 else "float32",
            encoder=BETWEEN.join(self._names()) if stated else None,
            producer=" + ".join(dict.fromkeys(header.producer for header in headers.values())),
            blocks=tuple(zip(self._names(), (header.width for header in headers.values()), strict=True)),
        )

    def _names(self) -> list[str]:
        return [name if store.encoder is None else store.encoder.name for name, store in self.parts.items()]

    def _match(self, slide: str, headers: dict[str, Header]) -> Match:
        """Return which tiles of a slide all encoders have.

        Raises:
            FeatureError: Tiles without positions, which cannot be joined.
            EncoderError: Tiles of different sizes, or vectors of slides next to those of tiles.
        """
        levels = {header.level == TILE for header in headers.values()}
        if len(levels) > 1:
            kinds = " and ".join(f"{name} of a {header.level}" for name, header in headers.items())
            raise EncoderError(f"slide '{slide}': vectors of {kinds}, expected vectors of tiles for all encoders")
        if levels == {False}:  # one vector each
            return Match((None,) * len(headers), 1, (0,) * len(headers))
        refuse_other_tiles(slide, headers)
        places: list[NDArray[np.int64]] = []
        for name, store in self.parts.items():
            coords = store.coords(slide) if headers[name].tiles else torch.empty(0, 2, dtype=torch.int64)
            if coords is None:
                raise FeatureError(f"slide '{slide}': features of {name} have no positions of tiles to join them by")
            places.append(coords.numpy())
        return match_tiles(places, tolerance(next(iter(headers.values())).extent))

    def _content(self, slide: str, path: Path, header: Header) -> Slide:
        rows = self._matches[slide].rows
        blocks = [store.read(slide, check=False).features for store in self.parts.values()]
        taken = [
            block if row is None else block[torch.from_numpy(row)] for block, row in zip(blocks, rows, strict=True)
        ]
        return Slide(_side_by_side(taken), self.coords(slide), header)

    def _runs(self, slide: str, path: Path, header: Header, runs: Sequence[slice]) -> list[Tensor]:
        matched = self._matches[slide].rows
        readers = [store.pieces(slide) for store in self.parts.values()]
        return [
            _side_by_side([_read_rows(reader, rows, run) for reader, rows in zip(readers, matched, strict=True)])
            for run in runs
        ]

    def coords(self, slide: str) -> Tensor | None:
        """Return the first encoder's coordinates `(m, 2)` of the shared tiles."""
        self.header(slide)
        coords, rows = self._first.coords(slide), self._matches[slide].rows[0]
        return coords if coords is None or rows is None else coords[torch.from_numpy(rows)]

    def verify(self, slide: str, is_drawn: bool = False) -> None:
        """Compare a slide with its digests, where it has some."""
        for store in self.parts.values():
            store.verify(slide, is_drawn)

    def one_of_each_layout(self, slides: Iterable[str]) -> list[str]:
        """Return a slide of each layout of each encoder."""
        ids = list(slides)
        return list(dict.fromkeys(slide for store in self.parts.values() for slide in store.one_of_each_layout(ids)))

    def set_resolutions(self, slide_mpps: Mapping[str, float]) -> None:
        """Set the resolution of single slides for all encoders, as `FeatureStore.set_resolutions`."""
        if dict(slide_mpps) != self.slide_mpps:
            self._matches = {}
        for store in self.parts.values():
            store.set_resolutions(slide_mpps)
        super().set_resolutions(slide_mpps)

    def fingerprints(self, slides: Iterable[str], workers: int = 8) -> dict[str, Fingerprint]:
        """Return for each slide one fingerprint of the files of all encoders."""
        ids = list(slides)
        read = [store.fingerprints(ids, workers) for store in self.parts.values()]
        return {slide: _of_all([of_encoder[slide] for of_encoder in read]) for slide in ids}

    def samples(self, slides: Iterable[str], tiles: int = TILES) -> dict[str, Samples]:
        """Return for each slide the samples of the files of all encoders."""
        ids = list(slides)
        read = [store.samples(ids, tiles) for store in self.parts.values()]
        complete = [slide for slide in ids if all(slide in of_encoder for of_encoder in read)]
        return {slide: tuple(each for of_encoder in read for each in of_encoder[slide]) for slide in complete}

    def resolve(self, slides: Iterable[str]) -> Checked[Encoder]:
        """Determine the encoder of each folder, and return them joined, with warnings of tiles that some lack.

        Raises:
            EncoderError: A folder has features of another encoder than the name before it says, or tiles differ.
            FeatureError: A file is missing or broken.
        """
        ids = list(slides)
        self.valid_headers(ids)
        findings: list[Finding] = []
        encoders: list[Encoder] = []
        for name, store in self.parts.items():
            if store.encoder is None:
                store.encoder = _in_house(name, store, ids)
            resolved = store.resolve(ids)
            findings += resolved.findings
            encoders.append(resolved.value_or_raise())
        encoder = joined(encoders) if self.encoder is None else self.encoder
        self.verified = all(store.verified for store in self.parts.values())
        self.geometry = self._first.geometry
        self.encoder = encoder
        return Checked(encoder, (*findings, *self._unmatched(ids)))

    def _unmatched(self, slides: Sequence[str]) -> list[Finding]:
        """Return a warning of the tiles that not all encoders have, with the slides where that is so."""
        counts = {slide: self._matches[slide] for slide in slides if any(self._matches[slide].unmatched)}
        if not counts:
            return []
        lost = np.sum([match.unmatched for match in counts.values()], axis=0)
        everything = lost + sum(self._matches[slide].tiles for slide in slides)
        listing = " and ".join(
            f"{few} of {many} of {name}" for few, many, name in zip(lost, everything, self.parts, strict=True) if few
        )
        message = f"tiles that not all encoders have are left out: {listing}, on {len(counts)} of {len(slides)} slides"
        return [Finding.of_items("warning", "unmatched-tiles", message, counts)]


def open_store(
    features: Path,
    encoder: Encoder | None = None,
    encoders: Sequence[Encoder] = (),
    reading: Reading = DETECTED,
    expected: Expected | None = None,
    slide_mpps: Mapping[str, float] | None = None,
) -> FeatureStore:
    """Return the features in a folder or packed file, or those of several encoders, see `feature_folders`.

    Args:
        features: A path, or `NAME=DIR,NAME=DIR`; of several folders that of `encoder` alone is read where this is a
            single encoder.
        encoder: As in `FeatureStore`, and so are the others.
        encoders: Encoders whose names and aliases are recognised.
        reading: Options for files whose content is ambiguous.
        expected: The expected size of tiles.
        slide_mpps: Micrometres a level-0 pixel of single slides.

    Raises:
        FeatureError: No folder, no feature file in it, or a slide that is there twice.
        EncoderError: Encoders that a checkpoint does not read, or lacks.
        ConfigError: An encoder is named twice.
    """
    return open_folders(folders_for(features, encoder), encoder, encoders, reading, expected, slide_mpps)


def folders_for(features: Path, encoder: Encoder | None = None) -> dict[str, Path]:
    """Return which of the folders of several encoders are read for one, by encoder and in the order of its features.

    Args:
        features: A path, or `NAME=DIR,NAME=DIR`.
        encoder: The encoder of a checkpoint; None reads all.

    Returns:
        Of a single path the empty name with the path.

    Raises:
        EncoderError: Encoders that the checkpoint does not read, or lacks.
        ConfigError: An encoder is named twice.
    """
    folders = feature_folders(features) or {"": features}
    if encoder is None or "" in folders:
        return folders
    if not encoder.parts:
        fitting = [folder for name, folder in folders.items() if encoder.answers_to(name)]
        if not fitting:
            raise EncoderError(f"features are of {listed(list(folders))}, expected encoder '{encoder.name}'")
        return {encoder.name: fitting[0]}
    return _in_order_of(encoder, folders) if len(folders) > 1 else folders


def open_folders(
    folders: Mapping[str, Path],
    encoder: Encoder | None = None,
    encoders: Sequence[Encoder] = (),
    reading: Reading = DETECTED,
    expected: Expected | None = None,
    slide_mpps: Mapping[str, float] | None = None,
) -> FeatureStore:
    """Return the features in the folders that `folders_for` returns; further arguments are those of `open_store`.

    Raises:
        FeatureError: As in `open_store`.
    """
    if len(folders) > 1:
        return JoinedStore(folders, encoder, encoders, reading, expected, slide_mpps=slide_mpps)
    [(name, folder)] = folders.items()
    alone = by_name(encoders, name) if encoder is None and name else encoder
    return FeatureStore(folder, alone, encoders, reading, expected, slide_mpps=slide_mpps)


def _in_house(name: str, store: FeatureStore, slides: Sequence[str]) -> Encoder:
    """Return an encoder that no yaml describes, of the width that the files have."""
    headers = store.valid_headers(slides)
    first = next((header for header in headers.values() if header.width), None)
    if first is None:
        raise FeatureError(f"{store.folder}: no slide with tiles among those asked for")
    return Encoder(name, first.width, level=TILE if first.level == TILE else "slide")


def _expected(expected: Expected | None, part: Encoder | None) -> Expected | None:
    """Return the expected tiles of one encoder, which `tool.tiles` changes for all."""
    if expected is not None or part is None:
        return expected
    return Expected(part.mpp, part.tile_px, f"encoder '{part.name}'", "tool.tiles")


def _in_order_of(encoder: Encoder, folders: Mapping[str, Path]) -> dict[str, Path]:
    """Return the folders in the order of a checkpoint's encoders."""
    ordered = {
        part.name: next((folder for name, folder in folders.items() if part.answers_to(name)), None)
        for part in encoder.parts
    }
    present = {name: folder for name, folder in ordered.items() if folder is not None}
    if len(present) < len(ordered) or len(present) < len(folders):
        raise EncoderError(f"features of {listed(list(folders))}, expected those of {listed(list(ordered))}")
    return present


def _read_rows(reader: Pieces, rows: NDArray[np.int64] | None, run: slice) -> Tensor:
    """Return the features of a run of shared tiles from one encoder's file."""
    first, last, _ = run.indices(reader.header.tiles if rows is None else len(rows))
    if rows is None:
        return reader.drawn(np.arange(first, last))
    ordered, inverse = np.unique(rows[first:last], return_inverse=True)
    return reader.drawn(ordered)[torch.from_numpy(inverse)]


def _side_by_side(blocks: Sequence[Tensor]) -> Tensor:
    dtypes = {block.dtype for block in blocks}
    dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
    return torch.cat([block.to(dtype) for block in blocks], dim=1)


def _of_all(fingerprints: Sequence[Fingerprint]) -> Fingerprint:
    digest = hashlib.sha256("".join(each.sha256 for each in fingerprints).encode()).hexdigest()
    return Fingerprint(sum(each.size for each in fingerprints), max(each.modified for each in fingerprints), digest)
