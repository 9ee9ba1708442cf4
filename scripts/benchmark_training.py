"""How fast `mil train` is, as ratios to two peers and to the matrix products alone, and how much memory it needs.

usage: python scripts/benchmark_training.py --bench FOLDER [--peer-python .venv-peer/bin/python] [--pairs 5]

FOLDER holds the peers: cohort.py, peer_loop.py, peer_torchmil.py and roofline.py. As the machine is noisy, `mil` and
the peers run in turn, each in its own process; the first epoch of each is warm-up; reported are the medians of the
pairwise ratios, with the smallest and the largest. `mil train` runs as a user types it, from TRIDENT files, with gated
ABMIL 1,024 -> 512 -> 256, dropout 0.25, four whole bags a step and Adam 1e-4; validation, early stopping and baseline
are off.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

EPOCHS = 4
TRAIN = [
    "tool=binary", "model=abmil_gated", "optimizer.lr=1e-4", "optimizer.weight_decay=1e-5", "schedule=constant",
    "callbacks=none", "split=none", "split.select=0.02", "baseline=false", "trainer.limit_val_batches=0",
    "trainer.enable_progress_bar=false", "data.batch_bags=4", "data.memory=0", f"trainer.max_epochs={EPOCHS}",
]  # fmt: skip


def main() -> None:
    """Print one line per measurement, then the ratios."""
    options = _options()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        small, large = _cohort(options.bench, work / "small", 96), _cohort(options.bench, work / "large", options.large)
        ours, loop, torchmil, roof = [], [], [], []
        for pair in range(options.pairs):
            ours.append(_ours(small, work / f"run{pair}"))
            loop.append(_peer(sys.executable, options.bench / "peer_loop.py", small, EPOCHS))
            if options.peer_python:
                torchmil.append(_peer(options.peer_python, options.bench / "peer_torchmil.py", small, EPOCHS, 4))
            roof.append(_json(sys.executable, options.bench / "roofline.py", 150_000)["bf16_tiles_per_s"])
            rates = f"ours {ours[-1]:,.0f} tiles/s, loop {loop[-1]:,.0f}, bf16 roofline {roof[-1]:,.0f}"
            print(f"pair {pair + 1}: {rates}", flush=True)
        for peer, peer_rates in (("the plain loop", loop), ("torchmil", torchmil), ("the bf16 roofline", roof)):
            if peer_rates:
                ratios = [rate / peer_rate for rate, peer_rate in zip(ours, peer_rates, strict=True)]
                middle, least, most = statistics.median(ratios), min(ratios), max(ratios)
                print(f"ours / {peer}: {middle:.2f} ({least:.2f} to {most:.2f}), {len(ratios)} pairs", flush=True)
        for slides, cohort in ((96, small), (options.large, large)):
            print(f"peak memory at {slides} slides: {_peak(cohort, work / f'memory{slides}'):.2f} GB, all processes")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=Path, required=True, help="folder of the peers' scripts")
    parser.add_argument("--peer-python", default="", help="an interpreter with torchmil==1.0.2")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--large", type=int, default=960, help="slides of the second memory measurement")
    return parser.parse_args()


def _cohort(bench: Path, out: Path, slides: int) -> Path:
    # only TRIDENT's files are needed of the large cohort, but cohort.py decides what it writes
    subprocess.run([sys.executable, bench / "cohort.py", out, "--slides", str(slides)], check=True)
    return out


def _command(cohort: Path, run: Path, words: Sequence[str] = ()) -> list[str]:
    data = [f"data.cohort={cohort}/cohort.csv", f"data.features={cohort}/trident", f"hydra.run.dir={run}"]
    return [sys.executable, "-m", "mil", "train", *TRAIN, *data, *words]


def _ours(cohort: Path, run: Path) -> float:
    """Return tiles per second from the log of the run: median over the epochs after the first."""
    subprocess.run(_command(cohort, run), check=True, capture_output=True)
    log = (run / "log.txt").read_text()
    tiles = int(re.search(r"\((\d+) tiles\) train", log)[1])  # type: ignore[index]  # the log always has this line
    seconds = [float(duration) for duration in re.findall(r"epoch \d+ of .* ([\d.]+) s$", log, re.MULTILINE)]
    return tiles / statistics.median(seconds[1:])


def _peer(python: str, script: Path, cohort: Path, *arguments: int) -> float:
    return float(_json(python, script, cohort, *arguments)["tiles_per_s"])


def _json(*command: object) -> dict[str, float]:
    done = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def _peak(cohort: Path, run: Path) -> float:
    """Return the largest sum of proportional set sizes over the run's processes, in GB; shared pages count once."""
    process = subprocess.Popen(
        _command(cohort, run, ["trainer.max_epochs=1"]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, sum(_pss(place) for place in _tree(process.pid)))
        time.sleep(0.1)
    return peak / 1e6


def _tree(root: int) -> list[int]:
    processes = [root]
    for parent in processes:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                processes += [int(child) for child in children.read_text().split()]
            except OSError:  # the process has ended
                continue
    return processes


def _pss(process: int) -> int:
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:  # the process has ended
        return 0
    return int(re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)[1])  # type: ignore[index]  # the kernel's format


if __name__ == "__main__":
    main()
