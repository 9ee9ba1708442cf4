"""The features of slides, in the files of any supported producer."""

import copy
import difflib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from mil.errors import EncoderError, FeatureError, MilError
from mil.features import formats
from mil.features.content_samples import TILES, ContentSample, Samples, sample
from mil.features.encoders import Encoder, folded, of_blocks
from mil.features.feature_copy import FeatureCopy
from mil.features.fingerprints import Fingerprint, State, fingerprint, state_of
from mil.features.formats import DETECTED, TILE, Header, Reading, Slide
from mil.features.geometry import Expected, Geometry, common_geometry
from mil.features.packed import Packed
from mil.features.pieces import Pieces
from mil.features.places import SlidePlaces, places_of
from mil.features.processes import Progress, map_in_processes
from mil.features.slide_files import listing
from mil.features.survey import FILES_OF_A_PROCESS, SECONDS, reading_of, survey
from mil.findings import Checked, Finding
from mil.progress import advance, counted
from mil.storage import answered, limited, retried

_ROWS = {TILE: "tiles", "slide": "whole slides"}
LARGE_BYTES = 2**29
"""Stored features of a bag from which on prediction reads it in pieces: twice or more often, in bounded memory."""
PAGE_BYTES, GAP_BYTES = 2**12, 2**16
"""Tiles between two drawn ones are read with them up to this size: of a packed file those that share a page, of other
files those that are read faster than they are skipped."""
_PLACE = 16
"""Bytes of the two coordinates of a tile."""


class FeatureStore:
    """The feature files under a folder, one for each slide, or the file into which `mil convert` packed them.

    The id of a slide is the name of its file without endings (see `slide_names.slide_id`). The folder is listed once,
    with nested folders and links. Each read opens and closes its file, so a store can be sent to worker processes;
    slides that it keeps in memory (`keep`) are not sent.

    Args:
        folder: The folder with the files, at any depth; or the packed file.
        encoder: The encoder of the features; None takes the one that the files name.
        encoders: Encoders whose names and aliases are recognised.
        reading: Options for files whose content is ambiguous.
        expected: The expected size of tiles; None expects the encoder's.
        header_seconds: Time limit for reading the header of one file.
        slide_mpps: Micrometres a level-0 pixel of single slides, before that of `reading`.

    Attributes:
        encoder: The given encoder, or the one that `resolve` determined.
        verified: Whether every file that `resolve` read names its encoder.
        geometry: Size of the tiles, determined by `resolve`.

    Raises:
        FeatureError: There is no folder, no feature file in it, or a slide has two files.
    """

    def __init__(
        self,
        folder: Path,
        encoder: Encoder | None = None,
        encoders: Sequence[Encoder] = (),
        reading: Reading = DETECTED,
        expected: Expected | None = None,
        header_seconds: float = SECONDS,
        slide_mpps: Mapping[str, float] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.encoder = encoder
        self.encoders = tuple(encoders)
        self.reading = reading
        self.expected = expected
        self.header_seconds = header_seconds
        self.slide_mpps = dict(slide_mpps or {})
        self.verified = False
        self.geometry = Geometry()
        self._packed = Packed(self.folder) if self.folder.is_file() else None
        self._paths = listing(self.folder) if self._packed is None else dict.fromkeys(self._packed.slides, self.folder)
        self._headers: dict[str, Header] = {}
        self._layouts: dict[str, str] = {}
        self._states: dict[str, State] = {}  # of the files when their headers were read
        self._fingerprints: dict[str, Fingerprint] = {}  # those that were first asked for
        self._kept: dict[str, Slide] | None = None
        self._compared: set[str] = set()  # a file that changes later shows it in size or time
        self._copy: FeatureCopy | None = None

    def use_copy(self, feature_copy: FeatureCopy) -> None:
        """Read the slides of a copy from there, and everything else as before."""
        self._copy = feature_copy
        for slide in feature_copy.fingerprints:
            for of_its_file in (self._headers, self._layouts, self._states, self._kept or {}):
                of_its_file.pop(slide, None)

    def is_copied(self, slide: str) -> bool:
        """Return whether a slide is read from a copy."""
        return self._copy is not None and self._copy.has(slide, self.slide_mpps)

    @property
    def is_packed(self) -> bool:
        """Whether the slides' own files are one file that `mil convert` wrote."""
        return self._packed is not None

    @property
    def rounding(self) -> tuple[str, float] | None:
        """Type of the copy, and the largest change of a value by it; None where no value was changed."""
        if self._copy is None or not self._copy.rounding:
            return None
        return self._copy.dtype, self._copy.rounding

    def _packed_with(self, slide: str) -> Packed | None:
        """Return the packed file that a slide is read from; None for a file of its own."""
        if self._copy is not None and self._copy.has(slide, self.slide_mpps):
            return self._copy.packed
        return self._packed

    def expecting(self, encoder: Encoder, expected: Expected) -> "FeatureStore":
        """Return a store of the same files, whose headers are read once for both, that expects another encoder."""
        store = copy.copy(self)
        store.encoder, store.expected = encoder, expected
        store.verified, store.geometry = False, Geometry()
        return store

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_kept": None}

    @property
    def slides(self) -> list[str]:
        """Ids of the slides, sorted."""
        return list(self._paths)

    def __contains__(self, slide: object) -> bool:
        return slide in self._paths

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def folders(self) -> list[Path]:
        """The folders or packed files that are read."""
        return [self.folder]

    @property
    def stores(self) -> "list[FeatureStore]":
        """The stores that read files, one for each encoder."""
        return [self]

    def copies_changed(self) -> None:
        """Forget what was joined from the files of several encoders, which are read from other places now."""

    def lacking(self, slide: str) -> list[str]:
        """Return the encoders that have no file of a slide, where several are joined and another has one."""
        return []

    def sources(self, slide: str) -> list[Path]:
        """Return the files of a slide, one for each encoder.

        Raises:
            FeatureError: There is none.
        """
        return [self.path(slide)]

    def path(self, slide: str) -> Path:
        """Return the file of a slide.

        Raises:
            FeatureError: There is none.
        """
        if slide not in self._paths:
            near = difflib.get_close_matches(slide, self._paths, n=1)
            hint = f"; the nearest name is '{near[0]}'" if near else ""
            raise FeatureError(f"slide '{slide}' has no features under {self.folder}{hint}")
        return self._paths[slide]

    def header(self, slide: str) -> Header:
        """Return the header of a slide's file, which is read once.

        Raises:
            FeatureError: The file is missing, broken, or of unknown layout.
        """
        if slide not in self._headers:
            header = self.headers([slide])[slide]
            if isinstance(header, FeatureError):
                raise header
        return self._headers[slide]

    def headers(
        self, slides: Iterable[str], workers: int = 2, progress: Progress | None = None
    ) -> dict[str, Header | FeatureError]:
        """Return the headers of many slides, read once and in several processes; for a broken file, the error.

        Args:
            slides: Ids of the slides.
            workers: Number of processes.
            progress: Called with the number of files read, and their total number; None: `mil.progress`.

        Raises:
            FeatureError: A slide is not in the store.
        """
        paths = {slide: self.path(slide) for slide in slides}
        unread = {slide: path for slide, path in paths.items() if slide not in self._headers}
        errors: dict[str, FeatureError] = {}
        packed = {slide: file for slide in unread if (file := self._packed_with(slide)) is not None}
        self._headers |= {slide: file.header(slide) for slide, file in packed.items()}
        unread = {slide: path for slide, path in unread.items() if slide not in packed}
        self._states |= {slide: state for slide, path in unread.items() if (state := _state(path)) is not None}
        shown = progress or partial(advance, "reading headers")
        examination = survey(unread, self.reading, workers, shown, self.header_seconds, self.slide_mpps)
        for slide, examined in examination.items():
            if isinstance(examined, FeatureError):
                errors[slide] = examined
            else:
                self._layouts[slide], self._headers[slide] = examined
        return {slide: errors.get(slide) or self._headers[slide] for slide in paths}

    def valid_headers(self, slides: Iterable[str]) -> dict[str, Header]:
        """Return the headers of the given slides.

        Raises:
            FeatureError: A file is missing or broken; the first of several.
        """
        headers: dict[str, Header] = {}
        for slide, header in self.headers(slides).items():
            if isinstance(header, FeatureError):
                raise header
            headers[slide] = header
        return headers

    def keep(self, slides: Iterable[str], room: int) -> bool:
        """Keep slides in memory once they are read, if all of these fit into `room` bytes; return whether they do.

        It is all or none: slides of a cohort that does not fit would rarely be used twice in a shuffled epoch.
        """
        headers = self.valid_headers(slides).values()
        needed = sum(_bytes(header) for header in headers)
        self._kept = {} if needed <= room else None
        return self.keeps

    @property
    def keeps(self) -> bool:
        """Whether slides stay in memory once they are read."""
        return self._kept is not None

    def read(self, slide: str, check: bool = True) -> Slide:
        """Return a slide; its tensors must not be modified.

        Args:
            slide: Id of the slide.
            check: Also check for NaN and infinite values.

        Raises:
            FeatureError: The file is missing, broken, empty, not finite, or changed since its header was read.
            EncoderError: The width is not the encoder's.
        """
        if self._kept is None or not check:
            return self._read(slide, check)
        if slide not in self._kept:
            self._kept[slide] = self._read(slide, check)
        return self._kept[slide]

    def _read(self, slide: str, check: bool) -> Slide:
        path, header = self.path(slide), self.header(slide)
        content = answered(lambda: self._content(slide, path, header), path, FeatureError, _bytes(header))
        self._check_same(slide, path)
        if content.features.shape != (header.tiles, header.width):
            now = tuple(content.features.shape)
            raise FeatureError(f"{path} has changed while it was in use: {now}, was {(header.tiles, header.width)}")
        self._check_header(slide, path, header)
        if check:
            _check_finite(path, content.features)
        return content

    def _check_same(self, slide: str, path: Path) -> None:
        before, now = self._states.get(slide), _state(path)
        if before is None or now == before:
            return
        if now is None or before.shows_change(now):
            raise FeatureError(f"{path} has changed while it was in use: it was written anew, or touched")
        if slide in self._fingerprints and not self._fingerprints[slide].has_same_content(fingerprint(path)):
            raise FeatureError(
                f"{path} has changed while it was in use: other content, with the size and time of before"
            )
        self._states[slide] = now

    def _check_header(self, slide: str, path: Path, header: Header) -> None:
        if header.tiles == 0:
            raise FeatureError(f"{path} has zero tiles, expected at least one")
        if self.encoder is not None and header.width != self.encoder.dim:
            raise EncoderError(self._other_width(slide, self.encoder))
        if self.encoder is not None and (header.level == TILE) != (self.encoder.level == TILE):
            raise EncoderError(f"'{slide}' is a vector of a {header.level}, encoder '{self.encoder.name}' is not")

    def pieces(self, slide: str) -> Pieces:
        """Return a slide whose features are read in pieces, with the checks of `read` on what is read.

        Raises:
            FeatureError: As `read`, at once or when a piece is read.
            EncoderError: The width is not the encoder's.
        """
        path, header = self.path(slide), self.header(slide)
        self._check_header(slide, path, header)

        def read(runs: Sequence[slice]) -> list[Tensor]:
            pieces = answered(lambda: self._runs(slide, path, header, runs), path, FeatureError, _bytes(header))
            self._check_same(slide, path)
            for piece in pieces:
                _check_finite(path, piece)
            return pieces

        return Pieces(read, header, PAGE_BYTES if self._packed_with(slide) is not None else GAP_BYTES)

    def features(self, slide: str) -> Tensor:
        """Return the features of a slide, those of a large one as a tensor that is read in pieces.

        Raises:
            FeatureError: As `read`, also when the features are read.
        """
        header = self.header(slide)
        if self.keeps or header.tiles * header.width * header.itemsize <= LARGE_BYTES:
            return self.read(slide).features
        self.verify(slide)
        return self.pieces(slide).rows()

    def verify(self, slide: str, is_drawn: bool = False) -> None:
        """Compare a slide with its digest or checksums, where it has some, before it is read in pieces; once a process.

        Args:
            slide: Id of the slide.
            is_drawn: Whether only some of its tiles are read. Of a packed file these are not compared: its digests were
                when it was written, and need all tiles.

        Raises:
            FeatureError: It differs.
        """
        packed = self._packed_with(slide)
        if packed is None and slide not in self._compared:
            path = self.path(slide)
            answered(lambda: formats.compare(path), path, FeatureError, _bytes(self.header(slide)))
            self._compared.add(slide)
        if is_drawn:
            return
        if packed is not None:
            answered(lambda: packed.compare(slide), packed.path, FeatureError, _bytes(self.header(slide)))

    def _runs(self, slide: str, path: Path, header: Header, runs: Sequence[slice]) -> list[Tensor]:
        if (packed := self._packed_with(slide)) is not None:
            return packed.read_rows(slide, runs)
        reading = reading_of(self.reading, self.slide_mpps, slide)
        return formats.read_rows(path, self._layouts[slide], header, reading, runs)

    def coords(self, slide: str) -> Tensor | None:
        """Return the coordinates `(n, 2)` of a slide's tiles, without its features; None where there are none.

        Raises:
            FeatureError: The file is missing, broken, or changed since its header was read.
        """
        path, header = self.path(slide), self.header(slide)
        if self._kept is not None and slide in self._kept:
            return self._kept[slide].coords
        if (packed := self._packed_with(slide)) is not None:
            return packed.coords(slide)
        reading = reading_of(self.reading, self.slide_mpps, slide)
        coords = answered(lambda: formats.read_coords(path, self._layouts[slide], header, reading), path, FeatureError)
        self._check_same(slide, path)
        return coords

    def _content(self, slide: str, path: Path, header: Header) -> Slide:
        if (packed := self._packed_with(slide)) is not None:
            return packed.read(slide)
        return formats.read(path, self._layouts[slide], header, reading_of(self.reading, self.slide_mpps, slide))

    def one_of_each_layout(self, slides: Iterable[str]) -> list[str]:
        """Return the first of the slides of each layout; their headers have been read."""
        first: dict[str, str] = {}
        for slide in slides:
            first.setdefault(self._layouts.get(slide, ""), slide)
        return list(first.values())

    def set_resolutions(self, slide_mpps: Mapping[str, float]) -> None:
        """Set the resolution of single slides, as a table of slides or their scans state it.

        Args:
            slide_mpps: Micrometres a level-0 pixel, by slide; other slides have that of `reading`. A packed file keeps
                the positions that were computed when it was written.
        """
        if dict(slide_mpps) == self.slide_mpps:
            return
        self.slide_mpps = dict(slide_mpps)
        self._headers, self._layouts = {}, {}
        self._kept = None if self._kept is None else {}

    def places(self, slide: str) -> SlidePlaces | None:
        """Return where the tiles of a slide lie on its scan, in the order of `read`; None without coordinates.

        Raises:
            FeatureError: As `read`; or tiles lie outside the slide whose size the file states.
        """
        mpp = self.slide_mpps.get(slide, self.reading.slide_mpp)
        places = places_of(self.coords(slide), self.header(slide), mpp)
        if places is not None and places.slide_size is not None:
            places.check_within(*places.slide_size, slide)
        return places

    def fingerprints(self, slides: Iterable[str], workers: int = 8) -> dict[str, Fingerprint]:
        """Return what shows later whether the slides are the same; of packed files by their stored digests.

        Of slides that are read from a copy it is what their own files were like when they were compared with it.

        Args:
            slides: Ids of the slides.
            workers: Threads that read samples.

        Raises:
            FeatureError: A file is missing or cannot be read.
        """
        ids = list(slides)
        copied = {} if self._copy is None else self._copy.fingerprints
        read = self.own_fingerprints([slide for slide in ids if slide not in copied], workers)
        return {slide: copied[slide] if slide in copied else read[slide] for slide in ids}

    def own_fingerprints(self, slides: Iterable[str], workers: int = 8) -> dict[str, Fingerprint]:
        """Return the fingerprints of the slides' own files, which are read for it; as `fingerprints`."""
        paths = {slide: self.path(slide) for slide in slides}
        if self._packed is not None:
            packed, modified = self._packed, state_of(self.folder).modified
            sizes = {slide: packed.header(slide).tiles * packed.header(slide).width for slide in paths}
            return {slide: Fingerprint(sizes[slide], modified, packed.sha256(slide)) for slide in paths}
        with ThreadPoolExecutor(workers) as threads:
            try:
                fingerprints = dict(zip(paths, threads.map(_retried_fingerprint, paths.values()), strict=True))
            except OSError as error:
                raise FeatureError(f"{error.filename or self.folder} cannot be read: {error.strerror}") from error
        self._fingerprints = fingerprints | self._fingerprints
        return fingerprints

    def samples(self, slides: Iterable[str], tiles: int = TILES) -> dict[str, Samples]:
        """Return values of some tiles of the slides, the same whatever file holds them; without those that have none.

        Args:
            slides: Ids of the slides.
            tiles: How many tiles of each.
        """
        headers = self.headers(slides, progress=partial(advance, "reading headers to compare"))
        ids = [slide for slide, header in headers.items() if isinstance(header, Header)]
        if len(ids) <= FILES_OF_A_PROCESS:
            sampled = {slide: _sampled(self, tiles, slide) for slide in ids}
        else:
            shown = partial(advance, "comparing features")
            sampled = map_in_processes(
                ids, partial(_sampled, self, tiles), lambda slide, reason: None, 2, shown, self.header_seconds
            )
        return {slide: (each,) for slide, each in sampled.items() if each is not None}

    def usable(self, slides: Iterable[str]) -> Checked[list[str]]:
        """Return the slides that can be read, have tiles and are finite, and a warning that counts the others."""
        ids = list(slides)
        reasons = self.unusable(ids)
        usable = [slide for slide in ids if slide not in reasons]
        if not reasons:
            return Checked(usable)
        message = (
            f"{len(reasons)} of {len(ids)} slides cannot be used and are left out; the first: "
            f"{next(iter(reasons.values()))}"
        )
        return Checked(usable, (Finding.of_items("warning", "unusable", message, reasons),))

    def unusable(self, slides: Iterable[str]) -> dict[str, str]:
        """Return, of slides that cannot be read, have no tiles or are not finite, why; every slide is read."""
        ids = list(slides)
        reasons = {slide: self._error_of(slide) for slide in counted(ids, "reading features", len(ids))}
        return {slide: reason for slide, reason in reasons.items() if reason}

    def _error_of(self, slide: str) -> str:
        try:
            self.read(slide)
        except FeatureError as error:
            return str(error)
        return ""

    def resolve(self, slides: Iterable[str]) -> Checked[Encoder]:
        """Determine the common encoder of the slides and return it, with warnings; also set `geometry` and `verified`.

        Files that do not name their encoder, and float64 features, cause warnings.

        Raises:
            EncoderError: The files differ in encoder, width or size of tiles, or from the given ones; or no encoder is
                known.
            FeatureError: A file is missing or broken.
        """
        headers = self.valid_headers(slides)
        warnings = _float64_warnings(headers)
        level = self._only_level(headers)
        # Files of empty slides may not state their width.
        width = self._only_width({slide: header for slide, header in headers.items() if header.width})
        named = {slide: header.encoder for slide, header in headers.items() if header.encoder}
        blocks = {header.blocks for header in headers.values() if header.tiles}
        if self.encoder is None and len(blocks) == 1 and any(blocks):
            self.encoder = of_blocks(self.encoders, blocks.pop())
        if self.encoder is None:
            encoder = self._only_name(named, width, level)
        else:
            encoder = self._expected(named, self.encoder, level)
        if encoder.dim != width:
            raise EncoderError(self._other_width(next(s for s in headers if headers[s].width), encoder))
        self.verified = len(named) == len(headers)
        if named and not self.verified:
            silent = len(headers) - len(named)
            message = f"{silent} of {len(headers)} slides do not say their encoder, taken as '{encoder.name}'"
            warnings.append(Finding("warning", "encoder-unnamed", message, silent))
        self.geometry = common_geometry(headers, self.expected or _expected_by(encoder), self.folder)
        self.encoder = encoder
        return Checked(encoder, tuple(warnings))

    def _only_level(self, headers: dict[str, Header]) -> str:
        """Return what the rows of all files are vectors of, "tile" or "slide"; those of patients count as of slides."""
        levels = {slide: header.level for slide, header in headers.items() if header.tiles}
        groups = _grouped((slide, level) for slide, level in levels.items())
        if len(groups) > 1:
            raise EncoderError(f"features under {self.folder} are of {_described(groups)}, expected one of them")
        return TILE if set(groups) <= {TILE} else "slide"

    def _only_width(self, headers: dict[str, Header]) -> int:
        if not headers:
            raise FeatureError(f"{self.folder}: no slide with tiles among those asked for")
        groups = _grouped((slide, str(header.width)) for slide, header in headers.items())
        if len(groups) > 1:
            raise EncoderError(f"features under {self.folder} differ in width: {_described(groups)}, expected one")
        return int(next(iter(groups)))

    def _only_name(self, named: dict[str, str], width: int, level: str) -> Encoder:
        encoders = [encoder for encoder in self.encoders if encoder.level == level]
        groups = _grouped((slide, _canonical(encoders, name, width)) for slide, name in named.items())
        if len(groups) > 1:
            raise EncoderError(f"features under {self.folder} come from {_described(groups)}, expected one encoder")
        if not groups:
            fitting = ", ".join(encoder.name for encoder in encoders if encoder.dim == width)
            hint = f", such as {fitting}" if fitting else ""
            raise EncoderError(
                f"features under {self.folder}, {width} wide, do not name their encoder: give encoder=...{hint}"
            )
        name = next(iter(groups))
        stated = next(iter(named.values()))
        return next((encoder for encoder in encoders if encoder.name == name), Encoder(stated, width, level=level))

    def _expected(self, named: dict[str, str], encoder: Encoder, level: str) -> Encoder:
        if encoder.level != level:
            raise EncoderError(
                f"features under {self.folder} are vectors of {_ROWS[level]}, encoder '{encoder.name}' makes those of "
                f"{_ROWS[encoder.level]}"
            )
        others = _grouped((slide, name) for slide, name in named.items() if not encoder.answers_to(name))
        if others:
            entries = ",".join(f"{part.name}=DIR" for part in encoder.parts)
            hint = f", the features of each: {entries}" if entries else ""
            raise EncoderError(
                f"features under {self.folder} come from {_described(others)}, expected encoder '{encoder.name}'{hint}"
            )
        return encoder

    def _other_width(self, slide: str, encoder: Encoder) -> str:
        header = self._headers[slide]
        fitting = [candidate.name for candidate in self.encoders if candidate.dim == header.width]
        source = f" (from '{header.encoder}')" if header.encoder else f" (like {', '.join(fitting)})" if fitting else ""
        return f"features of '{slide}' are {header.width} wide{source}, encoder '{encoder.name}' has {encoder.dim}"


def _canonical(encoders: Sequence[Encoder], name: str, width: int) -> str:
    # Producers use one name for the class token with and without the mean of the other tokens: the width decides.
    aliased = [encoder for encoder in encoders if encoder.answers_to(name)]
    fitting = [encoder.name for encoder in aliased if encoder.dim == width] or [encoder.name for encoder in aliased]
    return next(iter(fitting), folded(name))


def _bytes(header: Header) -> int:
    return header.tiles * (header.width * header.itemsize + _PLACE)


def _state(path: Path) -> State | None:
    """Return size and times of a file; None where it cannot be looked at, which reading it reports."""
    try:
        return state_of(path)
    except OSError:
        return None


def _sampled(store: FeatureStore, tiles: int, slide: str) -> ContentSample | None:
    try:
        return sample(store.pieces(slide), tiles, singly=store.path(slide).suffix.lower() == ".zarr")
    except MilError:  # training says what is wrong with it
        return None


def _retried_fingerprint(path: Path) -> Fingerprint:
    return limited(lambda: retried(lambda: fingerprint(path), path, FeatureError), path, FeatureError)


def _check_finite(path: Path, features: Tensor) -> None:
    # Both extremes are NaN where any value is; rows are counted only then.
    if all(torch.isfinite(extreme) for extreme in torch.aminmax(features)):
        return
    bad = int((~torch.isfinite(features)).any(dim=1).sum())
    raise FeatureError(f"{path}: {bad} of {len(features)} tiles have NaN or infinite values, expected finite ones")


def _expected_by(encoder: Encoder) -> Expected:
    return Expected(encoder.mpp, encoder.tile_px, f"encoder '{encoder.name}'", f"encoder={encoder.name} encoder")


def _float64_warnings(headers: dict[str, Header]) -> list[Finding]:
    count = sum(header.dtype == "float64" for header in headers.values())
    message = f"{count} of {len(headers)} slides hold float64 features, read as float32"
    return [Finding("warning", "float64", message, count)] if count else []


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for slide, value in pairs:
        groups[value].append(slide)
    return dict(groups)


def _described(groups: dict[str, list[str]]) -> str:
    return " and ".join(f"'{value}' ({len(slides)}, e.g. slide '{slides[0]}')" for value, slides in groups.items())
