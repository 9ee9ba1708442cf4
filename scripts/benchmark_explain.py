"""Which explanations can be believed: method by model and endpoint, on simulated cohorts and on colon nuclei.

usage: scripts/benchmark_explain [--cohorts regional diffuse sparse crc_nuclei] [--endpoints KIND ...]
                                 [--models NAME ...] [--seeds 0 1 2] [--work DIR] [--data DIR] [--until HH:MM]
                                 [--out FILE]
       scripts/benchmark_explain --time

A simulated cohort has 120 patients with 48 tiles each, 64 wide, at contrast 4, of whom 90 train and 30 are reported;
crc_nuclei has 60 patients with 165 nuclei each in three folds, every patient reported by the fold that did not train
on it, and the truth for every nucleus. Models are trained in one and the same way: Adam at 2e-3, weight decay 1e-3,
10 epochs, batches of 16 bags, embeddings 64 wide, dropout 0.1; `linear` too, which is solved for otherwise. Maps are
measured on the first 8 reported patients of whom some tiles tell and some do not (5 for models that are no weighted
mean of tiles), of crc_nuclei on 4 of each fold. All seeds share cohort and patients; a seed draws the weights, the
order of training and what methods draw. Shapley values of 4 orders, integrated gradients at 16 points and gains in
steps of 10% are coarser than `mil explain` itself.

A cell takes one to twenty seconds of one core. Cells are stored in the work folder and not computed again; a process
that is stopped, or that ends at `--until`, has lost nothing. The page is of all cells that are stored.

`--time` explains and predicts one bag of 100,000 tiles by the default method and prints the ratio and the peak memory.
"""

import argparse
import importlib
import inspect
import os
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

import explanation_tables as tables
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from mil import config as conf
from mil.bags import Bags
from mil.endpoints.classification import Binary
from mil.endpoints.endpoint import Endpoint
from mil.errors import ConfigError
from mil.explain.coalitions import Coalitions
from mil.explain.explained_model import ExplainedModel
from mil.explain.measure_faithfulness import discriminant
from mil.explain.methods import MethodOptions, integrated_gradients, scorers
from mil.features.store import FeatureStore
from mil.files import write
from mil.models.mil_model import MILModel, Output
from mil.runs.faithfulness_run import phenotypes_of, telling_tiles
from mil.simulation.simulated_cohort import cached
from mil.stats import auroc
from mil.study import build
from mil.study.compose import compose

ROOT = Path(__file__).resolve().parents[1]
REAL_DATA = Path(os.environ.get("MIL_REAL_DATA", "real_data"))
SIGNALS = ("regional", "diffuse", "sparse")
NUCLEI = "crc_nuclei"
ENDPOINTS = {
    "binary": "1",
    "multiclass": "1",
    "multilabel": "first",
    "ordinal": ">= 3",
    "survival": "log hazard",
    "competing_risks": "event",
    "regression": "score",
}
"""Tools whose endpoint and simulated target are taken, and the output whose maps are measured."""
SIZES = {"embed_dim": 64, "attention_dim": 32, "hidden_dim": 64, "query_dim": 32, "heads": 4, "landmarks": 16}
"""Arguments of models that have them; `heads` of those that read tiles together."""
DROPOUT = 0.1
TRAINED, FOLDS, EPOCHS, BATCH, RATE = 90, 3, 10, 16, 2e-3
MEASURED, SLOW, OF_FOLD = 8, 5, 4
STEPS, ORDERS, NEIGHBOURS, PERMUTATIONS, POINTS = 10, 2, 8, 4, 16
TIMED = 100_000


@dataclass(frozen=True, eq=False)
class Data:
    """Bags in memory with targets, and which tiles tell."""

    bags: Sequence[Bags]
    target: Tensor
    telling: Sequence[NDArray[np.bool_]]
    roles: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]
    """trained and reported patients of each fold"""
    most: int
    """patients of each fold whose maps are measured"""

    def measured(self, fold: int) -> list[int]:
        """Return the reported patients of a fold whose maps are measured."""
        defined = [int(row) for row in self.roles[fold][1] if 0 < self.telling[row].sum() < len(self.telling[row])]
        return defined[: self.most]


def main() -> int:
    """Compute the cells that are missing and print the tables."""
    options = _options()
    if options.time:
        print(_timed())
        return 0
    torch.set_num_threads(1)
    integrated_gradients.STEPS = (POINTS,)
    for cell in _cells(options):
        path = options.work / f"{cell.name}.json"
        if path.is_file():
            continue
        if options.until is not None and datetime.now().strftime("%H:%M") >= options.until:
            break
        start = time.perf_counter()
        computed = _computed(cell, options)
        write(path, computed.model_dump_json())
        print(f"{cell.name}: {computed.score}, {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
    paths = sorted(options.work.glob("*.json"))
    text = tables.page([tables.Cell.model_validate_json(path.read_text(encoding="utf-8")) for path in paths], _grid())
    if options.out is not None:
        write(options.out, text)
    print(text)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    models = conf.choices("model")
    parser.add_argument("--cohorts", nargs="*", default=[*SIGNALS, NUCLEI], choices=[*SIGNALS, NUCLEI])
    parser.add_argument("--endpoints", nargs="*", default=list(ENDPOINTS), choices=list(ENDPOINTS))
    parser.add_argument("--models", nargs="*", default=models, choices=models)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "benchmark_explain")
    parser.add_argument("--data", type=Path, default=REAL_DATA, help="folder of real data; default: $MIL_REAL_DATA")
    parser.add_argument("--until", help="begin no cell after this time of day, such as 14:00")
    parser.add_argument("--out", type=Path, help="Markdown file for the tables")
    parser.add_argument("--time", action="store_true", help="time the default method on a large bag instead")
    return parser.parse_args()


def _grid() -> int:
    """Return the number of models on a cohort for an endpoint: simulated cohorts have all endpoints, nuclei one."""
    models = conf.choices("model")
    placeless = sum(not build.create_model(name, 8, 1).reads_places() for name in models)
    return len(models) * len(ENDPOINTS) * len(SIGNALS) + placeless


@dataclass(frozen=True)
class Place:
    """A cell of the table: one model on one cohort with one seed."""

    cohort: str
    endpoint: str
    model: str
    seed: int

    @property
    def name(self) -> str:
        """Of its file."""
        return "--".join((self.cohort, self.endpoint, self.model, str(self.seed)))


def _cells(options: argparse.Namespace) -> Iterator[Place]:
    """Yield the cells, one seed after the other, so that a process that stops early has complete tables."""
    for seed in options.seeds:
        for kind in options.endpoints:
            for cohort in options.cohorts:
                for model in options.models if cohort != NUCLEI or kind == "binary" else ():
                    yield Place(cohort, kind, model, seed)


def _computed(cell: Place, options: argparse.Namespace) -> tables.Cell:
    data = _nuclei(options.data) if cell.cohort == NUCLEI else _simulated(cell.cohort, cell.endpoint, options.work)
    config, wanted = compose([f"tool={cell.endpoint}", f"model={cell.model}"]), ENDPOINTS[cell.endpoint]
    scores, measures, oracles = list[float](), list[dict[str, tuple[float, float]]](), list[float]()
    for fold, (train, report) in enumerate(data.roles):
        endpoint: Endpoint = Binary() if cell.cohort == NUCLEI else build.endpoint(config)
        endpoint.fit(data.target[train])
        torch.manual_seed(1000 * cell.seed + fold)
        sizes = _sizes(config.model.target)
        if cell.model.startswith("clam") and endpoint.membership(data.target[train]) is None:
            sizes["bag_weight"] = 1  # tiles have no classes
        network = build.create_model(cell.model, data.bags[0].features.shape[1], endpoint.out_dim, **sizes)
        if network.reads_places() and data.bags[0].coords is None:
            return tables.Cell(**vars(cell), metric=endpoint.metric, output=wanted, reason="needs places")
        _train(network, endpoint, data, train)
        endpoint.finish(_logits(network, data, train), data.target[train])
        scores.append(float(endpoint.score(_logits(network, data, report), data.target[report])[endpoint.metric]))
        tiles = torch.cat([data.bags[row].features for row in train])
        model = ExplainedModel(network.eval(), endpoint, tiles.mean(0))
        names = [each.name for each in model.outputs]
        at = 0 if cell.cohort == NUCLEI else names.index(wanted)
        direction = discriminant(tiles, np.concatenate([data.telling[row] for row in train]))
        for row in data.measured(fold)[: MEASURED if network.tile_terms(data.bags[0]) is not None else SLOW]:
            measures.append(_measured(model, at, data.bags[row], data.telling[row], cell.seed))
            oracles.append(float(auroc((data.bags[row].features.double() @ direction).numpy(), data.telling[row])))
    maps = {
        method: tables.Map(
            telling=tuple(patient[method][0] for patient in measures),
            gain=tuple(patient[method][1] for patient in measures),
        )
        for method in measures[0]
    }
    return tables.Cell(
        **vars(cell),
        metric=endpoint.metric,
        score=float(np.mean(scores)),
        output=names[at],
        unit=model.outputs[at].unit,
        maps=maps,
        oracle=tuple(oracles),
    )


def _measured(
    model: ExplainedModel, at: int, bag: Bags, telling: NDArray[np.bool_], seed: int
) -> dict[str, tuple[float, float]]:
    """Return each method's AUROC against the tiles that tell, and its gain over random orders, for one output."""
    coalitions, complete, values = Coalitions(model, bag), model(bag)[0, at], dict[str, tuple[float, float]]()
    towards = float(torch.sign(complete - coalitions.empty[0, at]))
    generator = torch.Generator().manual_seed(seed)
    noise = [torch.rand(len(telling), generator=generator) for _ in range(ORDERS)]
    random = float(np.mean([_gain(coalitions, each, at) for each in noise]))
    for name, scorer in scorers().items():
        for group in (0, NEIGHBOURS) if name == "single" and bag.coords is not None else (0,):
            try:
                scored = scorer.score(model, bag, MethodOptions(group=group, permutations=PERMUTATIONS, seed=seed))
            except ConfigError:
                continue
            gain = _gain(coalitions, scored.scores[:, at], at) - random
            area = float(auroc(scored.scores[:, at].numpy(), telling))
            values[f"{name}, {group} neighbours" if group else name] = (
                area,
                gain if scorer.METHOD.signed else towards * gain,
            )
    return values


def _gain(coalitions: Coalitions, scores: Tensor, at: int) -> float:
    """Return the mean distance between the most and the least relevant first, over steps of 10% of the tiles."""
    counts = np.unique(np.round(np.linspace(0, len(scores), STEPS + 1)).astype(int))[1:-1].tolist()
    order = torch.argsort(scores, descending=True, stable=True)
    return float((coalitions.firsts(order, counts) - coalitions.firsts(order.flip(0), counts))[:, at].mean())


def _sizes(target: str) -> dict[str, float]:
    """Return the arguments that make a model small."""
    module, _, name = target.rpartition(".")
    accepted = set(inspect.signature(getattr(importlib.import_module(module), name).__init__).parameters)
    sizes: dict[str, float] = {key: value for key, value in SIZES.items() if key in accepted}
    if "dropout" in accepted:
        sizes["dropout"] = DROPOUT
    if name in ("ABMIL", "AEM"):
        sizes.pop("heads")  # of several heads the choice itself says how many
    if name == "Regions":
        sizes["heads"] = 4
    return sizes


def _train(network: MILModel, endpoint: Endpoint, data: Data, train: NDArray[np.intp]) -> None:
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE, weight_decay=1e-3)
    network.fit_tiles(torch.cat([data.bags[row].features for row in train]))
    network.train()
    for epoch in range(EPOCHS):
        network.begin_epoch(epoch)
        for rows in torch.split(torch.from_numpy(train)[torch.randperm(len(train))], BATCH):
            optimizer.zero_grad()
            loss = network.loss(network(Bags.concat(data.bags[row] for row in rows)), data.target[rows], endpoint)
            torch.autograd.backward(loss)
            optimizer.step()
            network.after_step()
    network.eval()


def _logits(network: MILModel, data: Data, rows: NDArray[np.intp]) -> Tensor:
    with torch.inference_mode():
        output: Output = network(Bags.concat(data.bags[row] for row in rows))
        return output.logits.clone()


@cache
def _simulated(signal: str, kind: str, work: Path) -> Data:
    words = ["patients=120", "tiles=48", "width=64", "slides=1", "contrast=4", f"signal={signal}", "clinical={}"]
    config = compose([f"tool={kind}", *(f"simulation.{word}" for word in words)])
    folder = cached(build.simulation(config), work / "cohorts")
    table = pd.read_csv(folder / "cohort.csv", dtype=str)
    endpoint, store = build.endpoint(config), FeatureStore(folder / "features")
    store.encoders = ()
    bags = []
    for slide in table["slide"]:
        read = store.read(slide)
        bags.append(Bags(read.features.float(), (len(read.features),), read.coords))
    telling = [telling_tiles(ENDPOINTS[kind], phenotypes_of(folder, slide)) for slide in table["slide"]]
    rows = np.arange(len(bags))
    target = endpoint.encode(table.set_index("patient"))
    return Data(bags, target, telling, [(rows[:TRAINED], rows[TRAINED:])], MEASURED)


@cache
def _nuclei(folder: Path) -> Data:
    source = folder / "crc_nuclei_mil" / "main_60"
    stored, bags = np.load(source / "features_efflite0_1280.npz"), pd.read_csv(source / "bags.csv")
    owner = stored["bag_id"]
    features = [torch.from_numpy(stored["X"][owner == bag]).float() for bag in bags["bag_id"]]
    telling = [stored["instance_label"][owner == bag] == 1 for bag in bags["bag_id"]]
    label = bags["label"].to_numpy()
    roles = list(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(label, label))
    single = [Bags(tiles, (len(tiles),)) for tiles in features]
    return Data(single, torch.from_numpy(label).float(), telling, roles, OF_FOLD)


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
