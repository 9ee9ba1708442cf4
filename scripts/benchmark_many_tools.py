"""Time of predicting with many tools in one pass, compared with one tool after the other.

usage: python scripts/benchmark_many_tools.py [--tools 27] [--slides 20] [--tiles 5000] [--width 1024] [--pairs 5]
                                              [--embed 512] [--attention 256] [--commands] [--cold] [--work FOLDER]

The slides are TRIDENT's files of random float16 features, the tools gated attention models with random weights. Pairs
of the two ways are measured in turn, so that what else the machine does meets both; printed are the medians and the
median of the pairs' ratios. By default both ways run in this process; with `--commands` each is what a user types: one
`mil predict` for all tools, or one for each. `--cold` drops the files from the page cache before each reading.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

from mil import api, checkpoint, manifest
from mil.endpoints.classification import Binary
from mil.fitted.state import FittedState
from mil.models.abmil import ABMIL
from mil.simulation.layouts.write_hdf5 import write_trident
from mil.study.tool import Tool

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Write slides and tools where they are missing, and measure."""
    options = _options()
    features, tools = _slides(options), _tools(options)

    def apart() -> None:
        for tool in tools:
            _fresh(features, options)
            _predict([tool], features, options)

    def together() -> None:
        _fresh(features, options)
        _predict(tools, features, options)

    ways: list[Callable[[], None]] = [apart, together]
    for way in () if options.commands else ways:
        way()  # the first run in a process also sets things up
    pairs = [[_timed(way) for way in (ways if pair % 2 else ways[::-1])] for pair in range(options.pairs)]
    ordered = [pair if at % 2 else pair[::-1] for at, pair in enumerate(pairs)]
    apart_seconds, together_seconds = (median(pair[at] for pair in ordered) for at in (0, 1))
    ratios = sorted(second / first for first, second in ordered)
    size = f"{options.slides} slides of {options.tiles} tiles x {options.width}"
    how = "commands" if options.commands else "one process"
    print(f"{len(tools)} tools, {size}, {how}{', cold files' if options.cold else ''}, {options.pairs} pairs:")
    print(f"one after the other {apart_seconds:.1f} s, in one pass {together_seconds:.1f} s, medians")
    print(f"ratio {median(ratios):.2f}, from {ratios[0]:.2f} to {ratios[-1]:.2f}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", type=int, default=27)
    parser.add_argument("--slides", type=int, default=20)
    parser.add_argument("--tiles", type=int, default=5000)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--embed", type=int, default=512, help="width of the embedding")
    parser.add_argument("--attention", type=int, default=256, help="width of the attention")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--commands", action="store_true", help="measure processes that are started, as a user would")
    parser.add_argument("--cold", action="store_true", help="read from the disk, not from the page cache")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "benchmark_many_tools")
    return parser.parse_args()


def _slides(options: argparse.Namespace) -> Path:
    """Return the folder of slides."""
    folder: Path = options.work / f"features_{options.slides}_{options.tiles}_{options.width}"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(options.slides):
        if not (folder / f"S{number}.h5").exists():
            tile = np.arange(options.tiles)
            rows = rng.standard_normal((options.tiles, options.width), np.float32)
            write_trident(folder, f"S{number}", rows, np.stack([tile % 100, tile // 100], 1))
    return folder


def _tools(options: argparse.Namespace) -> list[Path]:
    """Return the folders of the checkpoints."""
    endpoint, widths = Binary("MSI", ["MSS", "MSI-H"]), {"embed_dim": options.embed, "attention_dim": options.attention}
    folders = list[Path]()
    for number in range(options.tools):
        torch.manual_seed(number)
        model = ABMIL(options.width, 1, **widths, gated=True)
        stated = {"in_dim": options.width, "out_dim": 1, "gated": True} | widths
        record = manifest.Manifest(
            tool=Tool(name=f"tool-{number}", version="1.0.0"),
            model=manifest.part(model, stated),
            endpoint=manifest.part(endpoint, {"column": "MSI", "classes": ["MSS", "MSI-H"]}),
            fitted=FittedState(endpoint=endpoint.state()),
            encoder=manifest.EncoderRecord(name="simulated", dim=options.width, verified=True),
        )
        folders.append(options.work / f"tools_{options.width}_{options.embed}_{options.attention}" / f"tool-{number}")
        checkpoint.save(folders[-1], model, record)
    return folders


def _predict(tools: list[Path], features: Path, options: argparse.Namespace) -> None:
    if options.commands:
        out = options.work / ("scores.csv" if len(tools) == 1 else "scores")
        words = ["predict", *tools, "--features", features, "--out", out]
        subprocess.run([sys.executable, "-m", "mil", *map(str, words)], check=True, capture_output=True)
    elif len(tools) == 1:
        api.predict(tools[0], features)
    else:
        api.predict_tools(tools, features)


def _fresh(features: Path, options: argparse.Namespace) -> None:
    """Drop the slides from the page cache, if asked to."""
    for path in features.iterdir() if options.cold else ():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _timed(way: Callable[[], None]) -> float:
    started = time.perf_counter()
    way()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
