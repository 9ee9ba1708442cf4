"""Compare algorithms of `mil federate` on real patients of real centres, and on simulated centres that differ.

Run: python scripts/benchmark_federation.py brca --data ../shared/data
     python scripts/benchmark_federation.py crc_nuclei --data ../shared/data
     python scripts/benchmark_federation.py simulated
Each prints a table in Markdown for docs/federation.md: means over seeds, 95% intervals by resampling test patients
(the scores of all seeds together), the difference from pooled training with the interval of paired resamples, and
the standard deviation over seeds of metric and difference.

`brca`: Fed-TCGA-BRCA (Ogier du Terrail et al., FLamby, NeurIPS 2022): 1,088 patients of six regions, 39 clinical
covariates as one tile, Cox, FLamby's split.
`crc_nuclei`: sixty colon cancer patients, about 165 nuclei each, at four sites of fifteen patients that differ in
prevalence (12, 11, 7 and 4 of 15 hold an epithelial nucleus); five folds, every patient is tested once.
`simulated`: four simulated centres, each with a stain and scanner of its own, whose training patients differ in
prevalence: 10, 30, 60 and 85 in 100. Stain then tells of the label in training, and not among test patients.

Pooled training draws its batches from all patients; exact federated training takes a part of each site's. Both take
equally many steps. `fedavg` at equal steps takes as many at each site, over batches smaller by the number of sites: all
algorithms then see each patient once an epoch. In `brca` it takes one step of all patients of a site between averages.
"""

import argparse
import functools
import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import JsonValue
from torch import Tensor
from zoo_data import crc_nuclei

from mil.bags import Bags
from mil.cohort.clinical_table import Cohort
from mil.features.encoders import Encoder
from mil.features.store import FeatureStore
from mil.federation.bag_gradients import load_vector
from mil.federation.coordinator import Coordinator
from mil.federation.engines.local import LocalEngine
from mil.federation.federation_options import FederationOptions
from mil.federation.fold_setup import fit_setup
from mil.federation.hospital import Hospital
from mil.federation.protocol import Training
from mil.models.mil_model import MILModel
from mil.simulation.simulated_cohort import Simulation, write
from mil.simulation.targets.class_targets import Binary
from mil.splits.folds import Split
from mil.stats import auroc
from mil.stats.survival_metrics import c_index
from mil.study import build
from mil.study.compose import compose
from mil.study.run_config import RunConfig
from mil.study.study import Study

Floats = NDArray[np.float64]
Metric = Callable[[Floats, pd.DataFrame], float]
RESAMPLES = 1000
SHOWN = 5
"""Test patients of each site whose loss is logged."""
FLAMBY = "fed_tcga_brca_published_results.csv"
FLAMBY_NAMES = {"local": "Local", "fedavg": "FedAvg100", "fedadam": "FedAdam100", "pooled": "Pooled Training"}


@dataclass(frozen=True)
class Arm:
    """One line of a table.

    Attributes:
        name: In the table; begins with the name of the algorithm.
        options: Of `mil train`.
        federation: Options of the federation.
    """

    name: str
    options: tuple[str, ...] = ()
    federation: Mapping[str, object] = field(default_factory=dict)

    @property
    def algorithm(self) -> str:
        """The algorithm of `mil federate`."""
        return self.name.partition(",")[0]


@dataclass(frozen=True, eq=False)
class Bench:
    """Patients with site and role, and their tiles.

    Attributes:
        table: One row a patient; columns of the endpoint, `site`, and `role`, which is train or test.
        tiles: `(n, d)` by patient.
    """

    table: pd.DataFrame
    tiles: Mapping[str, Tensor]

    def of(self, role: str) -> pd.DataFrame:
        """Return the patients of a role."""
        return self.table[self.table["role"] == role]

    @property
    def sites(self) -> list[str]:
        """Names of the sites."""
        return sorted(set(self.table["site"]))


class TileStore:
    """Tiles in memory, one slide for each patient."""

    keeps, verified, folder = True, False, Path("memory")
    geometry = SimpleNamespace(mpp=None, tile_px=None)

    def __init__(self, tiles: Mapping[str, Tensor]) -> None:
        """Keep the tiles of patients."""
        self.tiles = tiles

    def header(self, slide: str) -> SimpleNamespace:
        """Return the number of tiles."""
        tiles, width = self.tiles[slide].shape
        return SimpleNamespace(tiles=tiles, width=width, itemsize=4, has_coords=False)

    def valid_headers(self, slides: Iterable[str]) -> dict[str, SimpleNamespace]:
        """Return the headers of slides."""
        return {slide: self.header(slide) for slide in slides}

    def read(self, slide: str) -> SimpleNamespace:
        """Return the tiles of a patient."""
        return SimpleNamespace(features=self.tiles[slide], coords=None)


def trained(arm: Arm, words: Sequence[str], bench: Bench) -> list[MILModel]:
    """Return the common model, or with `local` the model of each site."""
    config, started = compose([*words, *arm.options]), time.process_time()
    few = bench.of("test").groupby("site").head(SHOWN)
    rows = pd.concat([bench.of("train"), few])
    groups = {site: rows[rows["site"] == site] for site in bench.sites}
    if arm.algorithm == "local":
        alone = Arm("exact")
        models = [_common(config, bench, alone, {site: group}) for site, group in groups.items()]
    elif arm.algorithm == "pooled":
        models = [_common(config, bench, Arm("exact"), {"all": rows})]
    else:
        models = [_common(config, bench, arm, groups)]
    logging.info("  %s: %.0f s", arm.name, time.process_time() - started)
    return models


def _common(config: RunConfig, bench: Bench, arm: Arm, groups: dict[str, pd.DataFrame]) -> MILModel:
    """Return the model of one federation after its last epoch."""
    values = {"algorithm": arm.algorithm, "times": "exact", "minimum": 1, "norm_factor": 1e9, **arm.federation}
    options = FederationOptions.parse({**values, "secure": len(groups) > 1})
    hospitals = {
        site: Hospital(site, config, _study(config, bench, rows), _split(rows), options)
        for site, rows in groups.items()
    }
    coordinator = Coordinator(LocalEngine(hospitals), options)
    descriptions = coordinator.ask("describe")
    keys: dict[str, JsonValue] = {site: answer.text("public") for site, answer in coordinator.ask("join").items()}
    coordinator.ask("join", facts={"keys": keys})
    setup = fit_setup(config, coordinator, descriptions, 0)
    coordinator.ask("setup", *setup.question(arm.algorithm == "exact"))
    counts = {site: int((rows["role"] == "train").sum()) for site, rows in groups.items()}
    training = Training(config, coordinator, setup, _width(bench), counts)
    load_vector(training.model, training.run().weights)
    return training.model.eval()


def _width(bench: Bench) -> int:
    return int(next(iter(bench.tiles.values())).shape[1])


def _study(config: RunConfig, bench: Bench, rows: pd.DataFrame) -> Study:
    endpoint = build.endpoint(config)
    slides = pd.DataFrame({"patient": rows.index, "slide": rows.index, "site": rows["site"].to_numpy()})
    bags = pd.DataFrame({"bag": rows.index, "patient": rows.index, "slides": [(str(name),) for name in rows.index]})
    return Study(
        cohort=Cohort(slides, endpoint.columns),
        store=cast(FeatureStore, TileStore(bench.tiles)),
        encoder=Encoder("tiles", _width(bench)),
        endpoint=endpoint,
        patients=rows,
        target=endpoint.encode(rows),
        bags=bags,
        source=Path("memory"),
        truth=None,
    )


def _split(rows: pd.DataFrame) -> Split:
    """Return roles; the loss of the selecting patients is logged only, since the last weights are taken."""
    roles = np.where(rows["role"] == "train", "train", "select")
    return Split(pd.DataFrame({"patient": rows.index, "fold": 0, "role": roles}))


def scores(model: MILModel, bench: Bench, rows: pd.DataFrame) -> Floats:
    """Return the log hazard, or the log odds of the second class, of some patients."""
    values = []
    with torch.inference_mode():
        for name in rows.index:
            logits = model(Bags.pack([bench.tiles[str(name)]])).logits[0]
            values.append(float(logits[-1] - logits[0]) if len(logits) > 1 else float(logits[0]))
    return np.array(values)


@dataclass(frozen=True, eq=False)
class Result:
    """An algorithm's scores of the same test patients, for each seed, and for local training for each site's model.

    Attributes:
        name: Of the algorithm.
        scores: `(seeds, models, patients)`.
        table: The test patients.
    """

    name: str
    scores: Floats
    table: pd.DataFrame

    def value(self, metric: Metric, rows: NDArray[np.intp] | None = None) -> float:
        """Return the metric's mean over seeds and models."""
        places = np.arange(len(self.table)) if rows is None else rows
        table = self.table.iloc[places]
        return float(np.mean([metric(row[places], table) for seed in self.scores for row in seed]))


def compared(results: Sequence[Result], metric: Metric, extra: Mapping[str, Mapping[str, str]]) -> pd.DataFrame:
    """Return a table of algorithms with intervals, and with their differences from the last one, which is pooled."""
    amount, rng = len(results[-1].table), np.random.default_rng(0)
    draws = [rng.integers(amount, size=amount) for _ in range(RESAMPLES)]
    resampled = {result.name: [result.value(metric, draw) for draw in draws] for result in results}
    reference, rows = results[-1], []
    for result in results:
        low, high = np.nanquantile(resampled[result.name], [0.025, 0.975])
        row = {"algorithm": result.name, "metric": f"{result.value(metric):.3f} ({low:.3f} to {high:.3f})"}
        difference = np.subtract(resampled[result.name], resampled[reference.name])
        low, high = np.nanquantile(difference, [0.025, 0.975])
        value = result.value(metric) - reference.value(metric)
        row["minus pooled"] = "" if result is reference else f"{value:+.3f} ({low:+.3f} to {high:+.3f})"
        rows.append(row | _spread(_by_seed(result, metric), _by_seed(reference, metric)))
        rows[-1] |= {name: values.get(result.name, "") for name, values in extra.items()}
    return pd.DataFrame(rows)


def _by_seed(result: Result, metric: Metric) -> Floats:
    return np.array([Result("", seed[None], result.table).value(metric) for seed in result.scores])


def _spread(values: Floats, reference: Floats) -> dict[str, str]:
    """Return the metric of each seed, and standard deviations over seeds of metric and difference from pooled."""
    listed = " ".join(f"{value:.3f}" for value in values)
    if len(values) < 2:
        return {"seeds": listed}
    deviation, paired = values.std(ddof=1), (values - reference).std(ddof=1)
    return {"seeds": listed, "SD over seeds": f"{deviation:.3f}", "SD of difference": f"{paired:.3f}"}


# Fed-TCGA-BRCA

BRCA = ["tool=survival", "split=holdout", "schedule=constant", "tool.endpoint.unit=days", "data.workers=0"]
BRCA += ["tool.endpoint.time=T", "tool.endpoint.event=E", "tool.endpoint.zero_time=half_unit", "model=mean"]
BRCA += ["trainer.gradient_clip_val=null", "model.embed_dim=16", "model.dropout=0.0", "optimizer.lr=0.1"]
BRCA += ["trainer.max_epochs=20"]
WHOLE = ("data.whole_cohort=true",)
SGD = ("data.batch_bags=8", "optimizer=sgd", "optimizer.momentum=0")
BRCA_ARMS = [
    Arm("local", WHOLE),
    Arm("fedavg", ("data.batch_bags=8",)),
    Arm("fedavg, SGD as FLamby's", SGD),
    Arm("fedavg, equal steps", ("data.batch_bags=1000",)),
    Arm(
        "fedadam, as FLamby's",
        (*SGD, "optimizer.lr=0.01"),
        {"server_lr": 0.1, "beta1": 0.9, "beta2": 0.999, "tau": 1e-8},
    ),
    Arm("exact", WHOLE),
    Arm("pooled", WHOLE),
]
"""FLamby's rates of FedAvg and FedAdam are those of its published table."""


def brca(folder: Path, words: Sequence[str], seeds: int) -> pd.DataFrame:
    """Return C-indices on FLamby's test patients, beside FLamby's figures for its linear model."""
    folder = folder / "survival_tables"
    bench, published = _brca_patients(folder), pd.read_csv(folder / FLAMBY)
    rows, values = bench.of("test"), dict[str, list[list[Floats]]]()
    for seed in range(seeds):
        for arm in BRCA_ARMS:
            models = trained(arm, [*BRCA, f"seed={seed}", *words], bench)
            values.setdefault(arm.name, []).append([scores(model, bench, rows) for model in models])
            logging.info("%s seed %d: %.3f", arm.name, seed, np.mean([_c_index(s, rows) for s in values[arm.name][-1]]))
    results = [Result(name, np.array(each), rows) for name, each in values.items()]
    by_region = {result.name: _by_region(result, bench.sites) for result in results}
    extra = {"regions 0 to 5": by_region, "FLamby, all test patients": _published(published, "Pooled Test")}
    table = compared(results, _c_index, extra | {"FLamby, mean over regions": _published(published, "client")})
    return table.rename(columns={"metric": "C-index, 222 test patients"})


def _brca_patients(folder: Path) -> Bench:
    table = pd.read_csv(folder / "fed_tcga_brca.csv", index_col="pid")
    table = table.join(pd.read_csv(folder / "fed_tcga_brca_train_test_split.csv", index_col="pid"), how="inner")
    numbers = table[[name for name in table if name not in ("T", "E", "fold", "fold2")]].astype(float)
    numbers["age_at_index"] = numbers["age_at_index"] / 100  # the others are 0 or 1
    table["site"] = "region-" + table["fold2"].str.extract(r"(\d+)$")[0]
    table["role"] = table["fold"]
    table[["T", "E"]] = table[["T", "E"]].astype(float).map(lambda value: f"{value:g}")
    rows = {str(name): torch.tensor(row.to_numpy(np.float32))[None] for name, row in numbers.iterrows()}
    return Bench(table[["T", "E", "site", "role"]], rows)


def _by_region(result: Result, sites: Sequence[str]) -> str:
    """Return the metric among the test patients of each region; of local training by the region's own model."""
    values = []
    for place, site in enumerate(sites):
        rows = np.flatnonzero(result.table["site"] == site)
        model = result.scores[:, [place]] if result.scores.shape[1] > 1 else result.scores
        values.append(Result("", model, result.table).value(_c_index, rows))
    return " ".join(f"{value:.3f}" for value in values)


def _published(table: pd.DataFrame, test: str) -> dict[str, str]:
    """Return FLamby's means by algorithm, and the range of single runs."""
    rows = table[table["Test"].str.startswith(test)]
    published = dict[str, str]()
    for name, method in FLAMBY_NAMES.items():
        chosen = rows[rows["Method"].str.startswith(method)]
        keys = [key for key in ("Method", "seed") if key in chosen]
        means = chosen.groupby(keys)["Metric"].mean()
        if len(means):
            text = f"{means.mean():.3f} (SD {means.std():.3f}, {len(means)} runs)"
            published |= {arm.name: text for arm in BRCA_ARMS if arm.algorithm == name}
    return published


def _c_index(score: Floats, rows: pd.DataFrame) -> float:
    return float(c_index(score, rows["T"].astype(float).to_numpy(), rows["E"].astype(float).to_numpy()))


def _auroc(score: Floats, rows: pd.DataFrame) -> float:
    return float(auroc(score, (rows["label"] == "1").to_numpy()))


# yes-or-no questions

CRC = ["tool=binary", "split=holdout", "model=abmil", "model.embed_dim=128", "model.attention_dim=64", "data.workers=0"]
CRC += ["optimizer.lr=5e-4", "optimizer.weight_decay=0.01", "trainer.max_epochs=20"]
POSITIVES = (12, 11, 7, 4)


def arms(batch: int) -> list[Arm]:
    """Return the algorithms over four sites: batches of all sites, and of one site a quarter of them."""
    common, single = (f"data.batch_bags={batch}",), (f"data.batch_bags={max(1, batch // 4)}",)
    return [
        Arm("local", single),
        Arm("fedavg, equal steps", single),
        Arm("fedavg, 5 local epochs", single, {"local_epochs": 5}),
        Arm("fedavg, same batches", common),
        Arm("exact", common),
        Arm("pooled", common),
    ]


def crc(folder: Path, words: Sequence[str], seeds: int) -> pd.DataFrame:
    """Return AUROCs of sixty patients in five folds."""
    data = crc_nuclei(folder)
    sites = _skewed(data.label)
    table = pd.DataFrame({"label": data.label.astype(str), "site": sites}, index=[f"p{n:02d}" for n in range(60)])
    tiles = dict(zip(table.index, data.features, strict=True))
    chosen, results = arms(8), list[Result]()
    values = {arm.name: np.zeros((seeds, 4 if arm.algorithm == "local" else 1, len(table))) for arm in chosen}
    for seed in range(seeds):
        for fold in range(5):
            roles = np.where(_folds(table, seed) == fold, "test", "train")
            bench = Bench(table.assign(role=roles), tiles)
            for arm in chosen:
                for place, model in enumerate(trained(arm, [*CRC, f"seed={seed}", *words], bench)):
                    values[arm.name][seed, place, roles == "test"] = scores(model, bench, bench.of("test"))
        results = [Result(name, each[: seed + 1], table) for name, each in values.items()]
        logging.info("after seed %d: %s", seed, {each.name: round(each.value(_auroc), 3) for each in results})
    return compared(results, _auroc, {}).rename(columns={"metric": "AUROC, 60 patients"})


def _skewed(label: NDArray[np.int64]) -> list[str]:
    """Return four sites of fifteen patients that differ in prevalence."""
    rng = np.random.default_rng(0)
    positive, negative = (list(rng.permutation(np.flatnonzero(label == kind))) for kind in (1, 0))
    sites = [""] * len(label)
    for place, amount in enumerate(POSITIVES):
        for _ in range(15):
            pool = positive if amount > 0 else negative
            amount -= 1
            sites[int(pool.pop())] = f"site-{place + 1}"
    return sites


def _folds(table: pd.DataFrame, seed: int) -> NDArray[np.int64]:
    """Return the fold of each patient, even in site and label."""
    order = np.random.default_rng(seed).permutation(len(table))
    ranked = table.iloc[order].sort_values(["site", "label"], kind="stable")
    folds = pd.Series(np.arange(len(table)) % 5, index=ranked.index)
    return folds.loc[table.index].to_numpy()


SIMULATED = ["tool=binary", "split=holdout", "model=abmil", "model.embed_dim=32", "model.attention_dim=16"]
SIMULATED += ["trainer.max_epochs=20", "data.workers=0", "optimizer.lr=1e-3"]
PREVALENCE = {"site-1": 0.1, "site-2": 0.3, "site-3": 0.6, "site-4": 0.85}


def simulated(folder: Path, words: Sequence[str], seeds: int) -> pd.DataFrame:
    """Return AUROCs of the test patients of simulated centres; each seed is another cohort."""
    benches = [simulated_bench(seed) for seed in range(seeds)]
    amount = min(len(bench.of("test")) for bench in benches)
    tables = [bench.of("test").iloc[:amount] for bench in benches]
    labels = pd.DataFrame({"label": list(zip(*(table["label"] for table in tables), strict=True))})
    values = dict[str, list[list[Floats]]]()
    for seed, (bench, table) in enumerate(zip(benches, tables, strict=True)):
        for arm in arms(20):
            models = trained(arm, [*SIMULATED, f"seed={seed}", *words], bench)
            values.setdefault(arm.name, []).append([scores(model, bench, table) for model in models])
            result = Result(arm.name, np.array(values[arm.name]), labels)
            logging.info("%s cohort %d: %.3f", arm.name, seed, _cohort(result, seed, np.arange(amount)))
    return _cohorts([Result(name, np.array(each), labels) for name, each in values.items()], amount)


def _several(result: Result, rows: NDArray[np.intp]) -> float:
    """Return the mean AUROC over cohorts."""
    return float(np.mean([_cohort(result, seed, rows) for seed in range(len(result.scores))]))


def _cohort(result: Result, seed: int, rows: NDArray[np.intp]) -> float:
    label = np.array([labels[seed] == "1" for labels in result.table["label"]])
    return float(np.mean([auroc(row[rows], label[rows]) for row in result.scores[seed]]))


def _by_cohort(result: Result, rows: NDArray[np.intp]) -> Floats:
    return np.array([_cohort(result, seed, rows) for seed in range(len(result.scores))])


def _cohorts(results: Sequence[Result], amount: int) -> pd.DataFrame:
    everyone, rng = np.arange(amount), np.random.default_rng(0)
    draws = [rng.integers(amount, size=amount) for _ in range(RESAMPLES)]
    resampled = {result.name: np.array([_several(result, draw) for draw in draws]) for result in results}
    rows, reference = [], results[-1]
    for result in results:
        low, high = np.quantile(resampled[result.name], [0.025, 0.975])
        row = {"algorithm": result.name, "AUROC": f"{_several(result, everyone):.3f} ({low:.3f} to {high:.3f})"}
        low, high = np.quantile(resampled[result.name] - resampled[reference.name], [0.025, 0.975])
        value = _several(result, everyone) - _several(reference, everyone)
        row["minus pooled"] = "" if result is reference else f"{value:+.3f} ({low:+.3f} to {high:+.3f})"
        seeds, pooled = (
            np.array([_cohort(each, seed, everyone) for seed in range(len(each.scores))])
            for each in (result, reference)
        )
        rows.append(row | {"test patients": str(amount)} | _spread(seeds, pooled))
    return pd.DataFrame(rows)


@functools.cache
def simulated_bench(seed: int) -> Bench:
    """Return 480 simulated patients: about 200 of test, and training patients whose prevalence differs by site."""
    target = Binary(column="label", classes=("0", "1"), prevalence=0.45, attainable=0.95)
    with tempfile.TemporaryDirectory() as folder:
        write(Simulation(target, 480, 40, 32, slides=1, signal="diffuse", contrast=2.0, seed=seed), Path(folder))
        table = pd.read_csv(Path(folder) / "cohort.csv", dtype=str).set_index("patient")
        store = FeatureStore(Path(folder) / "features")
        tiles = {str(name): store.read(slide).features.float() for name, slide in table["slide"].items()}
    rng = np.random.default_rng(seed)
    test = rng.random(len(table)) < 0.42
    table = table.assign(role=np.where(test, "test", "train"))[["label", "site", "role"]]
    return Bench(pd.concat([table[test], *_with_prevalence(table[~test], rng)]), tiles)


def _with_prevalence(table: pd.DataFrame, rng: np.random.Generator) -> Iterator[pd.DataFrame]:
    """Yield as many training patients of each site as have its prevalence."""
    for site, share in PREVALENCE.items():
        rows = table[table["site"] == site]
        positive, negative = rows[rows["label"] == "1"], rows[rows["label"] == "0"]
        amount = min(len(positive) / share, len(negative) / (1 - share))
        for kind, each in ((share, positive), (1 - share, negative)):
            yield each.iloc[np.sort(rng.permutation(len(each))[: max(1, round(amount * kind))])]


STUDIES = {"brca": brca, "crc_nuclei": crc, "simulated": simulated}


def main() -> None:
    """Print the table of one study."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("words", nargs="*", help="options of mil train, such as trainer.max_epochs=60")
    given = parser.parse_intermixed_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("mil").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    table = STUDIES[given.study](given.data, given.words, given.seeds)
    heads = [str(name) for name in table]
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for row in table.itertuples(index=False):
        print("| " + " | ".join(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row) + " |")


if __name__ == "__main__":
    main()
