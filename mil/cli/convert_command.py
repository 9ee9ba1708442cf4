"""`mil convert`."""

import math
import sys
import time
from pathlib import Path

from mil.cli.progress import bars
from mil.cohort.slide_resolutions import slide_mpps_in
from mil.errors import ConfigError
from mil.features.formats import Reading
from mil.features.packed import Packed
from mil.features.packing import Packing, pack
from mil.features.store import FeatureStore

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
    store = FeatureStore(source, reading=reading, slide_mpps=slide_mpps)
    slides = store.usable(store.slides).require() if skip_bad else store.slides
    with bars() as advance:
        packing = pack(store, out, slides, dtype, advance)
    sys.stdout.writelines(f"{line}\n" for line in (*_summary(packing, out), str(out)))


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
