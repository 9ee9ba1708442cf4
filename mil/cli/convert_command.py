"""`mil convert`: pack feature files, and say how they were understood."""

import math
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from mil.cohort.slide_resolutions import slide_mpps_in
from mil.errors import ConfigError, printable
from mil.features.formats import Header, Reading
from mil.features.joined_store import open_store
from mil.features.packed import Packed
from mil.features.packing import Packing, pack
from mil.study.build import known_encoders

_SHOWN = 5
"""Different values that a line shows."""
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def convert(
    source: Path, out: Path, dtype: str | None, skip_bad: bool, reading: Reading, slides_table: Path | None = None
) -> None:
    """Pack a folder of feature files and print sizes, rounding and the packed file.

    Raises:
        MilError: A file cannot be read or written.
    """
    if reading.slide_mpp is not None and not 0 < reading.slide_mpp < math.inf:
        raise ConfigError(f"--slide-mpp is {reading.slide_mpp:g}, expected micrometres a pixel, above 0")
    slide_mpps = None if slides_table is None else slide_mpps_in(slides_table)
    store = open_store(source, None, known_encoders(), reading, slide_mpps=slide_mpps)
    slides = store.slides
    if skip_bad:
        reasons = store.unusable(slides)
        slides = [slide for slide in slides if slide not in reasons]
        sys.stderr.writelines(f"skipped: {printable(reason)}\n" for reason in reasons.values())
        sys.stderr.write(f"skipped: {len(reasons)} of {len(store)} slides, which cannot be used\n" if reasons else "")
    packing = pack(store, out, slides, dtype)
    lines = (*_summary(packing, out), *_understood(store.valid_headers(slides).values()), str(out))
    sys.stdout.writelines(f"{printable(line)}\n" for line in lines)


def _understood(headers: Iterable[Header]) -> Iterator[str]:
    """Yield producer, encoder, resolution and extent as the files were read, each value with its number of slides."""
    headers = list(headers)
    values = {
        "producer": [header.producer for header in headers],
        "encoder": [f"{header.encoder or 'not stated'}, {header.width} wide" for header in headers],
        "resolution": [_measure(header.mpp, "micrometres a pixel") for header in headers],
        "tile": [_measure(header.tile_px, "pixels wide") for header in headers],
        "extent": [_measure(header.extent, "level-0 pixels") for header in headers],
        "positions": ["level-0 coordinates" if header.has_coords else "none" for header in headers],
    }
    for name, stated in values.items():
        counts = Counter(stated).most_common()
        shown = "; ".join(f"{value} ({count} slides)" if len(counts) > 1 else value for value, count in counts[:_SHOWN])
        yield f"{name}: {shown}{f'; and {len(counts) - _SHOWN} more' if len(counts) > _SHOWN else ''}"


def _measure(value: float | None, unit: str) -> str:
    return "not stated" if value is None else f"{value:.4g} {unit}"


def _summary(packing: Packing, out: Path) -> list[str]:
    change = packing.after / max(packing.before, 1)
    compared = f"{1 - change:.0%} smaller" if change < 1 else f"{change - 1:.0%} larger"
    start = time.perf_counter()
    slides = len(Packed(out).slides)
    opened = time.perf_counter() - start
    lines = [
        f"{slides} slides, {packing.tiles} tiles, each read back and compared",
        f"{_size(packing.before)} before, {_size(packing.after)} now: {compared}; opens in {1000 * opened:.0f} ms",
    ]
    if packing.resumed:
        lines.append(f"{packing.resumed} slides were kept from an interrupted conversion")
    if packing.rounding:
        lines.append(f"values were rounded to {packing.dtype}, by at most {packing.rounding:.3g}")
    return lines


def _size(count: int) -> str:
    value, unit = float(count), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {_UNITS[unit]}" if unit else f"{count} bytes"
