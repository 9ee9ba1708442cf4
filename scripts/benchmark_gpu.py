"""How fast training is on a GPU, how much of its memory it takes, and whether models say there what they say on a CPU.

usage: scripts/benchmark_gpu [--slides 96] [--out FILE]      on a machine with a CUDA GPU, in under eight minutes
       scripts/benchmark_gpu --dry [--out FILE]              the same code on a CPU, tiny bags; its speeds mean nothing

Rates are tiles a second, the median over the epochs or passes after the first. `mil train` runs in this process as a
user types it: gated ABMIL 1,024 -> 512 -> 256, dropout 0.25, four whole bags a step, bfloat16, fused Adam, without
validation. It reads TRIDENT's files anew in each epoch, or keeps the features on the GPU (`data.memory`). The plain
loop trains the same model on one bag a step in single precision, from features in memory. The bandwidths say how many
tiles could be copied from page-locked memory, and read in the memory of the GPU, a second, if nothing were computed
with them. The script ends with 1 where logits differ from those of the CPU by more than 0.001 of the largest.
"""

import argparse
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor, nn

from mil import config
from mil.bags import Bags
from mil.cli.main import app
from mil.files import write
from mil.study import build
from mil.study.compose import compose

WIDTH, EPOCHS, TOLERANCE, GB = 1024, 4, 1e-3, 10**9
TRAIN = [
    "tool=binary", "model=abmil_gated", "optimizer.lr=1e-4", "optimizer.weight_decay=1e-5", "schedule=constant",
    "callbacks=none", "split=none", "split.select=0.02", "baseline=false", "resamples=10",
    "trainer.limit_val_batches=0",
    "trainer.enable_progress_bar=false", "trainer.precision=bf16-mixed", "data.batch_bags=4", "data.workers=0",
    f"trainer.max_epochs={EPOCHS}",
]  # fmt: skip


def main() -> int:
    """Print the tables; return 1 where a model differs from the CPU."""
    options = _options()
    if not options.dry and not torch.cuda.is_available():
        sys.stderr.write("benchmark_gpu: this machine has no CUDA GPU; --dry runs the same code on the CPU\n")
        return 2
    device, started = torch.device("cpu" if options.dry else "cuda"), time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        slides = _cohort(Path(name), 6 if options.dry else options.slides, 60 if options.dry else 1500)
        rates = _rates(Path(name), slides, device)
    differences = _differences(device, 40 if options.dry else 4000)
    seconds = time.perf_counter() - started
    text = "\n".join([_rate_table(rates), "", _difference_table(differences), "", _hardware(device, seconds)])
    print(text)
    if options.out:
        write(options.out, text + "\n")
    return int(max(differences.values()) > TOLERANCE)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, default=96, help="slides of about 1,500 tiles each")
    parser.add_argument("--dry", action="store_true", help="on the CPU with tiny bags, to try the script")
    parser.add_argument("--out", type=Path, help="Markdown file for the tables")
    return parser.parse_args()


def _cohort(folder: Path, slides: int, tiles: int) -> list[Tensor]:
    """Write a cohort of TRIDENT's files, and return the features of its slides."""
    rng, rows, features = np.random.default_rng(0), ["patient,slide,site,label"], []
    (folder / "trident").mkdir()
    for number, size in enumerate(rng.integers(tiles // 2, 3 * tiles // 2, slides)):
        drawn, index = rng.standard_normal((size, WIDTH), np.float32).astype("f2"), np.arange(size)
        with h5py.File(folder / "trident" / f"S{number}.h5", "w") as file:
            file.create_dataset("features", data=drawn).attrs["encoder"] = "uni_v1"
            places = file.create_dataset("coords", data=256 * np.stack([index % 100, index // 100], 1))
            places.attrs.update(
                patch_size=256, patch_size_level0=256, level0_magnification=20, target_magnification=20, overlap=0
            )
        rows.append(f"P{number},S{number},site,{number % 2}")
        features.append(torch.from_numpy(drawn))
    (folder / "cohort.csv").write_text("\n".join(rows) + "\n")
    return features


def _rates(folder: Path, slides: list[Tensor], device: torch.device) -> dict[str, tuple[float, float]]:
    """Return tiles a second and the peak GB of the GPU's memory of each way."""
    loop, *copies = (measured(slides, device) for measured in (_loop, _copied, _read))
    return {
        "`mil train`, from files": _trained(folder, device, "data.memory=0"),
        "`mil train`, features kept in memory": _trained(folder, device, "data.memory=8"),
        "plain loop: one bag a step, single precision": loop,
        "copies from page-locked memory alone": copies[0],
        "reads of the device's memory alone": copies[1],
    }


def _trained(folder: Path, device: torch.device, memory: str) -> tuple[float, float]:
    run = folder / memory
    data = [f"data.cohort={folder}/cohort.csv", f"data.features={folder}/trident", f"hydra.run.dir={run}"]
    _forget_peak(device)
    app(["train", *TRAIN, f"trainer.accelerator={device.type}", memory, *data], standalone_mode=False)
    log = (run / "log.txt").read_text()
    tiles = int(re.search(r"\((\d+) tiles\) train", log)[1])  # type: ignore[index]  # the log always has this line
    seconds = [float(duration) for duration in re.findall(r"epoch \d+ of .* ([\d.]+) s$", log, re.MULTILINE)]
    return tiles / max(statistics.median(seconds[1:]), 0.05), _peak(device)  # the log rounds to tenths


class _GatedAttention(nn.Module):
    """The model as it is written in most projects."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(WIDTH, 512), nn.ReLU(), nn.Dropout(0.25))
        self.value = nn.Sequential(nn.Linear(512, 256), nn.Tanh(), nn.Dropout(0.25))
        self.gate = nn.Sequential(nn.Linear(512, 256), nn.Sigmoid(), nn.Dropout(0.25))
        self.score, self.head = nn.Linear(256, 1), nn.Linear(512, 2)

    def forward(self, tiles: Tensor) -> Tensor:
        embedded = self.embed(tiles)
        attention = self.score(self.value(embedded) * self.gate(embedded)).softmax(0)
        logits: Tensor = self.head(attention.t() @ embedded)
        return logits


def _loop(slides: list[Tensor], device: torch.device) -> tuple[float, float]:
    model = _GatedAttention().to(device)
    optimizer, labels = torch.optim.Adam(model.parameters(), lr=1e-4), torch.tensor([0, 1], device=device)

    def epoch() -> None:
        for number, features in enumerate(slides):
            label = labels[number % 2 : number % 2 + 1]
            loss = nn.functional.cross_entropy(model(features.float().to(device)), label)
            torch.autograd.backward(loss)
            optimizer.step()
            optimizer.zero_grad()

    return _timed(epoch, slides, device)


def _copied(slides: list[Tensor], device: torch.device) -> tuple[float, float]:
    ready = [features.pin_memory() if device.type == "cuda" else features for features in slides]

    def copy() -> None:
        for features in ready:
            torch.empty_like(features, device=device).copy_(features, non_blocking=True)

    return _timed(copy, slides, device)


def _read(slides: list[Tensor], device: torch.device) -> tuple[float, float]:
    near = [features.to(device) for features in slides]

    def read() -> None:
        for features in near:
            features.amax(0)

    return _timed(read, slides, device)


def _timed(work: Callable[[], None], slides: list[Tensor], device: torch.device) -> tuple[float, float]:
    """Return tiles a second and the peak memory in GB of work with all tiles."""
    seconds = []
    _forget_peak(device)
    for _ in range(EPOCHS):
        _wait(device)
        started = time.perf_counter()
        work()
        _wait(device)
        seconds.append(time.perf_counter() - started)
    return sum(map(len, slides)) / statistics.median(seconds[1:]), _peak(device)


def _differences(device: torch.device, tiles: int) -> dict[str, float]:
    """Return the largest difference of each model's logits to those of the CPU, as a share of the largest of them."""
    generator, tile = torch.Generator().manual_seed(0), torch.arange(2 * tiles)
    bags = Bags(torch.randn(2 * tiles, WIDTH, generator=generator), (tiles // 2, tiles + tiles // 2))
    bags = Bags(bags.features, bags.sizes, 512 * torch.stack([tile % 50, tile // 50], 1))
    differences = {}
    for name in config.choices("model"):
        torch.manual_seed(0)
        model = build.model(compose([f"model={name}"]), WIDTH, 2).eval()
        with torch.inference_mode():
            expected = model(bags).logits
            logits = model.to(device)(bags.to(device)).logits.cpu()
        differences[name] = float((logits - expected).abs().max() / expected.abs().max().clamp_min(1e-6))
    return differences


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated(device) / GB if device.type == "cuda" else float("nan")


def _rate_table(rates: dict[str, tuple[float, float]]) -> str:
    loop = next(rate for name, (rate, _) in rates.items() if name.startswith("plain loop"))
    lines = [f"| {name} | {rate:,.0f} | {rate / loop:.2f} | {peak:.2f} |" for name, (rate, peak) in rates.items()]
    return "\n".join(["| | tiles a second | to the plain loop | peak GB of the GPU |", "|---|---|---|---|", *lines])


def _difference_table(differences: dict[str, float]) -> str:
    lines = [
        f"| `{name}` | {difference:.1e}{'' if difference <= TOLERANCE else ' **too large**'} |"
        for name, difference in differences.items()
    ]
    return "\n".join(["| model | largest difference to the CPU |", "|---|---|", *lines])


def _hardware(device: torch.device, seconds: float) -> str:
    if device.type == "cpu":
        return (
            f"A dry run on the CPU with tiny bags, torch {torch.__version__}, {seconds:.0f} s: its speeds mean nothing."
        )
    return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, {seconds:.0f} s."


if __name__ == "__main__":
    sys.exit(main())
