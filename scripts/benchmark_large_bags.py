"""Memory and time of predicting, and of explaining, one very large bag with every model.

usage: python scripts/benchmark_large_bags.py [--tiles 1000000] [--width 1024] [--models NAME ...] [--work FOLDER]
                                              [--explain] [--out FILE]

The bag is one HDF5 file of random float16 features, written to the work folder once. Every model, with random weights,
reads it in a process of its own with one thread; "above" is the peak resident memory of the process less that of the
same process when everything was imported, the model built and the header of the file read. `--explain` also scores all
tiles with the default method.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from mil import config
from mil.files import write

ROOT = Path(__file__).resolve().parents[1]
GB, BLOCK = 10**9, 10_000


def main() -> None:
    """Measure every model, then print the table."""
    options = _options()
    if options.one:
        print(json.dumps(_measured(options.one, options)))
        return
    folder = _written(options)
    rows = []
    for name in options.models:
        row = _apart(name, options)
        rows.append([name, *row])
        print(*rows[-1], f"of {folder}", flush=True)
    table = "\n".join(["| model | cost | GB above | seconds | result |", "|---|---|---|---|---|", *map(_line, rows)])
    if options.out:
        write(options.out, table + "\n")
    print(table)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=10**6)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--models", nargs="+", default=config.choices("model"), choices=config.choices("model"))
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "benchmark_large_bags", help="folder of the bag")
    parser.add_argument("--explain", action="store_true", help="also score every tile with the default method")
    parser.add_argument("--out", type=Path, help="Markdown file for the table")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


def _written(options: argparse.Namespace) -> Path:
    """Return the folder with the bag, which is written where it is missing."""
    import h5py
    import numpy as np

    folder: Path = options.work / f"{options.tiles}x{options.width}"
    if (folder / "S.h5").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    rng, side = np.random.default_rng(0), int(np.ceil(np.sqrt(options.tiles)))
    with h5py.File(folder / "S.h5.partial", "w") as file:
        features = file.create_dataset("features", (options.tiles, options.width), "f2", chunks=(32, options.width))
        for start in range(0, options.tiles, BLOCK):
            count = min(BLOCK, options.tiles - start)
            features[start : start + count] = rng.standard_normal((count, options.width), np.float32).astype("f2")
        tile = np.arange(options.tiles)
        file["coords"] = 512 * np.stack([tile % side, tile // side], 1)
    (folder / "S.h5.partial").rename(folder / "S.h5")
    return folder


def _apart(name: str, options: argparse.Namespace) -> list[str]:
    arguments = ["--tiles", options.tiles, "--width", options.width, "--work", options.work]
    command = [sys.executable, __file__, "--one", name, *arguments, *(["--explain"] if options.explain else [])]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        return ["", "", "", done.stderr.strip().rpartition("\n")[2][:200] or f"ended with {done.returncode}"]
    row: list[str] = json.loads(done.stdout)
    return row


def _measured(name: str, options: argparse.Namespace) -> list[str]:
    import torch

    from mil.explain.explain_patients import read_bag
    from mil.explain.explained_model import ExplainedModel
    from mil.explain.methods import MethodOptions, single_tile
    from mil.features.batches import BagDataset
    from mil.features.encoders import Encoder
    from mil.features.store import FeatureStore
    from mil.inference.forward import logits
    from mil.study import build
    from mil.study.compose import compose

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build.model(compose([f"model={name}"]), options.width, 1).eval()
    store = FeatureStore(_written(options), Encoder("any", options.width))
    dataset = BagDataset(store, [["S"]], torch.zeros(1))
    dataset.read_headers()
    before, started = _peak(), time.perf_counter()
    try:
        result = f"logit {float(logits(model, dataset)):.6f}"
        if options.explain:
            explained = ExplainedModel(model, None, torch.zeros(options.width))
            scores = single_tile.score(explained, read_bag(dataset, 0), MethodOptions()).scores
            result += f", {len(scores)} scores"
    except Exception as error:
        result = str(error)
    seconds = time.perf_counter() - started
    return [model.cost, f"{(_peak() - before) / GB:.2f}", f"{seconds:.0f}", result]


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _line(row: list[str]) -> str:
    return f"| {' | '.join(row)} |"


if __name__ == "__main__":
    main()
