"""Which explanations can be believed: method by model and endpoint, on simulated cohorts and on colon nuclei.

usage: scripts/benchmark_explain [--cohorts regional diffuse sparse crc_nuclei] [--models NAME ...] [--work DIR]
                                 [--data DIR] [--out FILE]
       scripts/benchmark_explain --time

A simulated cohort has 160 patients with 200 tiles each, 64 wide, at contrast 2, of whom 110 train and 50 are reported;
crc_nuclei has 60 patients with 165 nuclei each in five folds, every patient reported by the fold that did not train on
it, and the truth for every nucleus. Models are trained in one and the same way: Adam at 1e-3, weight decay 1e-3, 25
epochs, batches of 16 bags, embeddings 64 wide. Maps are measured on at most 25 reported patients of a cell, see
`mil.explain.measure_faithfulness`. Results are stored in the work folder; a cell that is there is not computed again.

`--time` explains and predicts one bag of 100,000 tiles by the default method and prints the ratio and the peak memory.
"""

import argparse
import os
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from mil.bags import Bags
from mil.endpoints.classification import Binary
from mil.endpoints.endpoint import Endpoint
from mil.explain.explained_model import ExplainedModel
from mil.explain.measure_faithfulness import FaithfulnessMeter, TrueTiles, discriminant
from mil.explain.methods import MethodOptions, scorers
from mil.features.store import FeatureStore
from mil.files import read_json, write
from mil.models.mil_model import MILModel
from mil.report.sections.explanations import Faithfulness
from mil.runs.faithfulness_run import phenotypes_of, telling_tiles
from mil.simulation.simulated_cohort import cached
from mil.stats.estimate import Estimate
from mil.study import build
from mil.study.compose import compose

ROOT = Path(__file__).resolve().parents[1]
REAL_DATA = Path(os.environ.get("MIL_REAL_DATA", "real_data"))
SIGNALS = ("regional", "diffuse", "sparse")
ENDPOINTS = {"binary": "msi-crc", "hrd": "hrd-breast", "survival": "surv-crc", "number": "regression"}
"""Tools whose endpoint and simulated target are taken."""
MODELS = {
    "binary": ("abmil_gated", "additive", "max", "transformer"),
    "hrd": ("abmil_gated",),
    "survival": ("abmil_gated",),
    "number": ("abmil_gated",),
}
SIZES = {"embed_dim": 64, "attention_dim": 32, "hidden_dim": 64, "heads": 4}
TRAINED, MEASURED, FOLDS, EPOCHS, BATCH = 110, 25, 5, 25, 16
TIMED = 100_000


@dataclass(frozen=True, eq=False)
class Data:
    """Bags in memory with targets, and which tiles tell."""

    bags: Sequence[Tensor]
    target: Tensor
    telling: Sequence[NDArray[np.bool_]]
    roles: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]
    """trained and reported patients of each fold"""


def main() -> int:
    """Run the cells and print the tables."""
    options = _options()
    if options.time:
        print(_timed())
        return 0
    rows = [row for cohort in options.cohorts for row in _rows(cohort, options)]
    table = _table(rows)
    if options.out is not None:
        write(options.out, table)
    print(table)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cohorts", nargs="*", default=[*SIGNALS, "crc_nuclei"], choices=[*SIGNALS, "crc_nuclei"])
    names = [*dict.fromkeys(name for models in MODELS.values() for name in models)]
    parser.add_argument("--models", nargs="*", default=names, choices=names)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "benchmark_explain")
    parser.add_argument("--data", type=Path, default=REAL_DATA, help="folder of real data; default: $MIL_REAL_DATA")
    parser.add_argument("--out", type=Path, help="Markdown file for the table")
    parser.add_argument("--time", action="store_true", help="time the default method on a large bag instead")
    return parser.parse_args()


@dataclass(frozen=True)
class Row:
    """A cell of the table: one model on one cohort."""

    cohort: str
    endpoint: str
    model: str
    score: str
    measured: Faithfulness


def _rows(cohort: str, options: argparse.Namespace) -> Iterator[Row]:
    kinds = ("binary",) if cohort == "crc_nuclei" else tuple(ENDPOINTS)
    for kind in kinds:
        models = MODELS[kind][:2] if cohort == "crc_nuclei" else MODELS[kind]
        for model in (name for name in models if name in options.models):
            path = options.work / f"{cohort}--{kind}--{model}.json"
            if not path.is_file():
                score, measured = _cell(cohort, kind, model, options)
                write(path, f'{{"score": "{score}", "measured": {measured.model_dump_json()}}}\n')
            stored = read_json(path)
            measured = Faithfulness.model_validate(stored["measured"])
            print(f"{cohort} {kind} {model}: {stored['score']}", file=sys.stderr, flush=True)
            yield Row(cohort, kind, model, stored["score"], measured)


def _cell(cohort: str, kind: str, name: str, options: argparse.Namespace) -> tuple[str, Faithfulness]:
    config = compose([f"tool={ENDPOINTS[kind]}", f"model={name}"])
    data = _crc(options.data) if cohort == "crc_nuclei" else _simulated(cohort, kind, options.work)
    meter, scores = FaithfulnessMeter(list(scorers().values()), MethodOptions(permutations=16)), list[float]()
    most = MEASURED if cohort != "crc_nuclei" else len(data.bags)
    for fold, (train, report) in enumerate(data.roles):
        endpoint: Endpoint = Binary() if cohort == "crc_nuclei" else build.endpoint(config)
        endpoint.fit(data.target[train])
        options_of = {key: value for key, value in SIZES.items() if key in _accepted(config.model.target)}
        network = build.create_model(name, data.bags[0].shape[1], endpoint.out_dim, **options_of)
        _train(network, endpoint, data, train, fold)
        logits = _logits(network, data, train)
        endpoint.finish(logits, data.target[train])
        scores.append(float(endpoint.score(_logits(network, data, report), data.target[report])[endpoint.metric]))
        tiles = torch.cat([data.bags[row] for row in train])
        model = ExplainedModel(network.eval(), endpoint, tiles.mean(0))
        direction = discriminant(tiles, np.concatenate([data.telling[row] for row in train]))
        for row in report[: max(1, most // len(data.roles))]:
            bag, output = data.bags[row], model.outputs[0].name
            oracle = {output: (bag.double() @ direction).numpy()}
            truth = TrueTiles(telling={output: data.telling[row]}, oracle=oracle)
            meter.add(model, f"{fold}-{row}", Bags(bag, (len(bag),)), truth)
    section = meter.section()
    first = model.outputs[0].name
    return f"{endpoint.metric} {np.mean(scores):.2f}", Faithfulness(
        maps=tuple(each for each in section.maps if each.output == first)
    )


def _accepted(target: str) -> set[str]:
    import importlib
    import inspect

    module, _, name = target.rpartition(".")
    return set(inspect.signature(getattr(importlib.import_module(module), name).__init__).parameters)


def _train(network: MILModel, endpoint: Endpoint, data: Data, train: NDArray[np.intp], seed: int) -> None:
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=1e-3)
    network.train()
    for _ in range(EPOCHS):
        for rows in torch.split(torch.from_numpy(train)[torch.randperm(len(train))], BATCH):
            optimizer.zero_grad()
            loss = network.loss(network(Bags.pack([data.bags[row] for row in rows])), data.target[rows], endpoint)
            torch.autograd.backward(loss)
            optimizer.step()
    network.eval()


def _logits(network: MILModel, data: Data, rows: NDArray[np.intp]) -> Tensor:
    with torch.inference_mode():
        return torch.cat([network(Bags(data.bags[row], (len(data.bags[row]),))).logits for row in rows]).clone()


def _simulated(signal: str, kind: str, work: Path) -> Data:
    words = ["patients=160", "tiles=200", "width=64", "slides=1", "contrast=2", f"signal={signal}", "clinical={}"]
    config = compose([f"tool={ENDPOINTS[kind]}", *(f"simulation.{word}" for word in words)])
    folder = cached(build.simulation(config), work / "cohorts")
    table = pd.read_csv(folder / "cohort.csv", dtype=str)
    endpoint, store = build.endpoint(config), FeatureStore(folder / "features")
    output = endpoint.explained()[0].name
    store.encoders = ()
    bags = [store.read(slide).features.float() for slide in table["slide"]]
    telling = [telling_tiles(output, phenotypes_of(folder, slide)) for slide in table["slide"]]
    rows = np.arange(len(bags))
    return Data(bags, endpoint.encode(table.set_index("patient")), telling, [(rows[:TRAINED], rows[TRAINED:])])


def _crc(folder: Path) -> Data:
    source = folder / "crc_nuclei_mil" / "main_60"
    stored, bags = np.load(source / "features_efflite0_1280.npz"), pd.read_csv(source / "bags.csv")
    owner = stored["bag_id"]
    features = [torch.from_numpy(stored["X"][owner == bag]).float() for bag in bags["bag_id"]]
    telling = [stored["instance_label"][owner == bag] == 1 for bag in bags["bag_id"]]
    label = bags["label"].to_numpy()
    roles = list(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(label, label))
    return Data(features, torch.from_numpy(label).float(), telling, roles)


def _table(rows: Sequence[Row]) -> str:
    """Return two tables with a row for each model on each cohort: AUROC against the true tiles, and the gain."""
    parts = []
    for title, name in (("AUROC of the map against the true tiles", "telling"), ("Gain over a random order", "srg")):
        heads = ("data", "endpoint", "model", "its score", "n", *scorers(), *(["oracle"] if name == "telling" else []))
        lines = [f"{title}, mean over n patients (95% interval):", "", f"| {' | '.join(heads)} |"]
        lines.append(f"|{' --- |' * len(heads)}")
        for row in rows:
            maps = {each.method: each for each in row.measured.maps}
            values = [getattr(maps[method], name) if method in maps else None for method in scorers()]
            if name == "telling":
                values.append(next(iter(maps.values())).telling_oracle)
            n = max(value.counts["n"] for value in values if value is not None)
            cells = (row.cohort, row.endpoint, row.model, row.score, str(n), *map(_shown, values))
            lines.append(f"| {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _shown(estimate: Estimate | None) -> str:
    if estimate is None or estimate.value is None:
        return "–"
    interval = "" if estimate.low is None or estimate.high is None else f" ({estimate.low:.2f} to {estimate.high:.2f})"
    return f"{estimate.value:.2f}{interval}"


def _timed() -> str:
    """Return how long the default method takes for a large bag, by the time of predicting it."""
    torch.manual_seed(0)
    network = build.create_model("abmil_gated", 1024, 1).eval()
    bag = Bags(torch.randn(TIMED, 1024), (TIMED,))
    model, scorer = ExplainedModel(network, Binary(), bag.features.mean(0)), scorers()["single"]
    model(Bags(bag.features[:4096], (4096,)))  # compiles kernels
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = {"predict": list[float](), "explain": list[float]()}
    for _ in range(3):
        for what in times:
            start = time.perf_counter()
            _ = model(bag) if what == "predict" else scorer.score(model, bag, MethodOptions())
            times[what].append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    predict, explain = (float(np.median(values)) for values in times.values())
    grown = (peak - before) / 2**20
    return (
        f"{TIMED:,} tiles of 1,024 features, gated ABMIL, median of 3: predict {predict:.2f} s, "
        f"explain {explain:.2f} s, ratio {explain / predict:.2f}, memory beyond the bag {grown:.2f} GB"
    )


if __name__ == "__main__":
    sys.exit(main())
