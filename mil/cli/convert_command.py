"""`mil convert`."""

import math
import sys
import time
from pathlib import Path

from mil.cli.progress import bars
from mil.errors import ConfigError
from mil.features.formats import Reading
from mil.features.packed import Packed
from mil.features.packing import Packing, pack
from mil.features.store import FeatureStore

_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def convert(source: Path, out: Path, dtype: str | None, skip_bad: bool, reading: Reading) -> None:
    """Packs a folder and says what became of it.

    Raises:
        MilError: what cannot be read, or written.
    """
    if reading.slide_mpp is not None and not 0 < reading.slide_mpp < math.inf:
        raise ConfigError(f"--slide-mpp is {reading.slide_mpp:g}, expected micrometres a pixel, above 0")
    store = FeatureStore(source, reading=reading)
    slides = store.sound(store.slides).require() if skip_bad else store.slides
    with bars() as advance:
        done = pack(store, out, slides, dtype, advance)
    sys.stdout.writelines(f"{line}\n" for line in (*_told(done, out), str(out)))


def _told(done: Packing, out: Path) -> list[str]:
    change = done.after / max(done.before, 1)
    compared = f"{1 - change:.0%} smaller" if change < 1 else f"{change - 1:.0%} larger"
    start = time.perf_counter()
    slides = len(Packed(out).slides)
    opened = time.perf_counter() - start
    lines = [
        f"{slides} slides, {done.tiles} tiles, each read back and compared",
        f"{_size(done.before)} before, {_size(done.after)} now: {compared}; opens in {1000 * opened:.0f} ms",
    ]
    if done.resumed:
        lines.append(f"{done.resumed} slides were there from an interrupted conversion")
    if done.rounding:
        lines.append(f"values were rounded to {done.dtype}, by at most {done.rounding:.3g}")
    return lines


def _size(count: int) -> str:
    value, unit = float(count), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {_UNITS[unit]}" if unit else f"{count} bytes"
