"""Which epoch's weights should count: rules compared on the same trainings, scored on patients who choose nothing.

usage: python scripts/benchmark_selection.py [--data FOLDER] [--work runs/selection] [--seeds 5] [--sets NAME ...]
                                              [--refit] [--members N] [--table-only]

Every training runs all epochs once, with the weights of the last step and with their moving average over two epochs
beside them; each rule then averages the weights of some of these epochs: so rules differ by the rule alone. Early
stopping is as in conf/callbacks/default.yaml: no epoch counts that comes 8 after the lowest loss before it.

Outcome tools: their own simulated cohorts (another cohort, split and weights for each seed), 40% of the patients are
reported. METABRIC, GBSG: the authors' split, networks as in real_survival.py. crc_nuclei: five folds, ABMIL as in
real_data.py. `--refit` also trains with `selection.refit=5` and the default of the rest, `--members` also ensembles of
so many networks of half the width for the outcome tools. What was trained stays in the work folder and is not trained
again.
"""

import argparse
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import LightningModule, Trainer
from real_data import SOURCES, convert_crc
from real_runs import SMALL
from real_survival import CLINICAL, convert, read_table
from torch import Tensor

from mil import files
from mil.endpoints.endpoint import Endpoint
from mil.inference.forward import logits
from mil.models.mil_model import MILModel
from mil.splits.folds import Split
from mil.study import build
from mil.study.compose import compose
from mil.study.pipeline import read_study, split_study
from mil.study.run_config import RunConfig
from mil.study.study import Study
from mil.training.epoch_choice import CarriedOver, Judge, MovingAverage, counting, mean_weights
from mil.training.fit import fresh_network
from mil.training.fold import Fold, cut
from mil.training.module import MILModule
from mil.training.ranks import Ranks
from mil.training.refit import cross_fit, joined_fold
from mil.training.train_network import train_network

ROOT = Path(__file__).resolve().parents[1]
REAL_DATA = Path(os.environ.get("MIL_REAL_DATA", "real_data"))
AVERAGES = (0.0, 2.0)
"""Epochs of the moving average."""
PATIENCE = 8
LAST = 0
"""A number of best epochs that stands for the last epoch alone."""
BEFORE, TODAY = (0.0, 1), (0.0, 5)
"""`selection.moving_average` and `selection.best_epochs` of earlier versions and by default."""
RULES = (BEFORE, (0.0, 3), TODAY, (0.0, 8), (2.0, 1), (2.0, 5), (0.0, LAST))
PARTS = 5
"""Of `selection.refit`."""
REFITTED = "refit.npy"
WIDTHS = {"embed_dim": 128, "attention_dim": 64}
"""Of the outcome tools' networks, as in the zoo."""
OUTCOME = ("surv-crc", "surv-kirc", "surv-luad", "hcc-os", "meso-os", "bcr-prostate", "rlapsrisk-bc")
SURVIVAL = ("survival", "survival_discrete", "survival_weibull")
QUIET = ("callbacks=none", "figures=false", "baseline=false", "trainer.enable_progress_bar=false", "data.workers=0")
"""Early stopping is applied afterwards, to each rule's own losses."""


@dataclass(frozen=True)
class Data:
    """A data set: its seeds, and the options of `mil train` for one of them."""

    name: str
    tool: str
    options: tuple[str, ...]
    seeds: int
    simulated: bool = False
    members: int = 1
    """networks of an ensemble, each of half the width"""

    def words(self, seed: int) -> list[str]:
        """Return the options for a seed."""
        drawn = [f"simulation.seed={seed}"] if self.simulated else []
        widths = {name: width // min(self.members, 2) for name, width in WIDTHS.items()} if self.simulated else {}
        network = [f"++model.{name}={width}" for name, width in widths.items()] + [f"++model.members={self.members}"]
        return [f"tool={self.tool}", *self.options, *network, f"seed={seed}", *drawn, *QUIET]


class Recorder(Judge):
    """Keeps loss and weights of each epoch, for the weights of the last step and for moving averages."""

    logged = False

    def __init__(self, fold: Fold) -> None:
        self.fold = fold
        self.averages = {epochs: MovingAverage(epochs) for epochs in AVERAGES}
        self.losses: dict[float, list[float]] = {epochs: [] for epochs in AVERAGES}
        self.trained: dict[float, list[dict[str, Tensor]]] = {epochs: [] for epochs in AVERAGES}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Add the weights to the averages."""
        for average in self.averages.values():
            average.on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep this epoch's."""
        target = self.fold.data["select"].target
        for epochs, average in self.averages.items():
            average.swap(pl_module)
            logits = self.predicted(cast(MILModule, pl_module).model, "select")
            self.losses[epochs].append(float(self.fold.endpoint.loss(logits, target)))
            weights = {name: value.detach().clone() for name, value in pl_module.state_dict().items()}
            self.trained[epochs].append(weights)
            average.swap(pl_module)

    def predicted(self, model: MILModel, role: str) -> Tensor:
        """Return the logits of the patients of a role, `(b, c)`."""
        return logits(model, self.fold.data[role]).float()


def main() -> int:
    """Train what is missing, and print the tables."""
    options = _options()
    chosen = [data for data in _sets(options.data, options.work, options.seeds) if data.name in options.sets]
    torch.set_num_threads(1)
    os.environ.setdefault("MIL_CACHE", str(options.work.absolute() / "cache"))
    for data in chosen:
        for seed in range(data.seeds):
            place = _place(options.work, data, seed)
            if not options.table_only and not (place / "done").exists():
                record(data, seed, place)
                print(f"{data.name}, seed {seed}", flush=True)
            if options.refit and not options.table_only and not (place / REFITTED).exists():
                refit(data, seed, place)
                print(f"{data.name}, seed {seed}, refit", flush=True)
    ensembles = [replace(data, members=options.members) for data in chosen if data.simulated and options.members > 1]
    for data in ensembles:
        for seed in range(data.seeds):
            place = _place(options.work, data, seed)
            if not options.table_only and not (place / "done").exists():
                record(data, seed, place)
                print(f"{data.name}, seed {seed}, {data.members} networks", flush=True)
    print(tables(chosen, options.work))
    if ensembles:
        print(f"\n{members_table(ensembles, options.work)}")
    if options.refit:
        print(f"\n{refit_table(chosen, options.work)}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REAL_DATA, help="folder of real data; default: $MIL_REAL_DATA")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "selection", help="folder of what is trained")
    parser.add_argument("--seeds", type=int, default=5)
    names = [*OUTCOME, *(f"{table} {tool}" for table in ("metabric", "gbsg") for tool in SURVIVAL), "crc_nuclei"]
    parser.add_argument("--sets", nargs="+", default=names, choices=names)
    parser.add_argument("--refit", action="store_true", help="also train with selection.refit=5")
    parser.add_argument("--members", type=int, default=1, help="also train ensembles of so many networks")
    parser.add_argument("--table-only", action="store_true", help="train nothing")
    return parser.parse_args()


def _sets(data: Path, work: Path, seeds: int) -> Iterator[Data]:
    """Yield all data sets, after converting the real ones."""
    zoo = ("split=holdout", "split.report=0.4")
    yield from (Data(tool, tool, zoo, seeds, simulated=True) for tool in OUTCOME)
    for name in ("metabric", "gbsg"):
        place = work / "data" / name
        if not place.exists():
            convert(read_table(data / SOURCES[name]), place)
        given = ("split=fixed", "split.column=split", "tool.endpoint.shortest=0.1", "tool.endpoint.unit=months")
        for tool in SURVIVAL:
            yield Data(f"{name} {tool}", tool, (*CLINICAL, *given, *_files(place)), seeds)
    place = work / "data" / "crc_nuclei"
    if not place.exists():
        source = data / SOURCES["crc_nuclei"]
        convert_crc(source, pd.read_csv(source / "bags.csv"), place)
    words = (
        *("model=abmil", "model.embed_dim=128", "model.attention_dim=64", "optimizer.lr=5e-4"),
        *("optimizer.weight_decay=0.01", "trainer.max_epochs=30", "split.folds=5", *SMALL),
    )
    yield Data("crc_nuclei", "binary", (*words, *_files(place)), seeds)


def _files(place: Path) -> tuple[str, str]:
    return f"data.cohort={place / 'cohort.csv'}", f"data.features={place / 'features'}"


def _place(work: Path, data: Data, seed: int) -> Path:
    several = f"-members{data.members}" if data.members > 1 else ""
    return work / "trained" / f"{data.name.replace(' ', '-')}{several}-{seed}"


def record(data: Data, seed: int, place: Path) -> None:
    """Train every fold of a data set with a seed, and store what each rule's weights predict."""
    config, study, split = _read(data, seed)
    for number in split.folds:
        fold = cut(config, study, split, number, place / f"fold_{number}")
        recorder, model = Recorder(fold), fresh_network(config, study, fold)
        train_network(config, fold, model, recorder, None, 0, Ranks())
        chosen = [best_epochs(recorder.losses[average], count) for average, count in RULES]
        report = []
        for (average, _), epochs in zip(RULES, chosen, strict=True):
            weights = mean_weights([recorder.trained[average][epoch] for epoch in epochs])
            model.load_state_dict({name.removeprefix("model."): value for name, value in weights.items()})
            report.append(recorder.predicted(model, "report").numpy())
        np.savez(
            place / f"{number}.npz",
            report=np.stack(report),
            epochs=[np.mean(epochs) + 1 for epochs in chosen],
            train_target=fold.data["train"].target.numpy(),
            report_target=fold.data["report"].target.numpy(),
        )
    files.write(place / "done", "")


def refit(data: Data, seed: int, place: Path) -> None:
    """Train every fold on the patients of training and selection together, and store what is predicted."""
    config, study, split = _read(data, seed, f"selection.refit={PARTS}", f"selection.best_epochs={TODAY[1]}")
    report = []
    for number in split.folds:
        fold = cut(config, study, split, number, place / f"fold_{number}")
        fresh = partial(fresh_network, config, study)
        cross = cross_fit(config, study, split, fold, fresh, 0, Ranks())
        together, fold = joined_fold(config, study, split, fold)
        model = fresh(together)
        train_network(config, together, model, CarriedOver(cross.epochs), None, 0, Ranks())
        report.append(logits(model, fold.data["report"]).float())
        shutil.rmtree(fold.folder)
    np.save(place / REFITTED, torch.cat(report).numpy())


def _read(data: Data, seed: int, *words: str) -> tuple[RunConfig, Study, Split]:
    config = compose([*data.words(seed), "selection.moving_average=0", *words])
    study = read_study(config)
    study.store.keep(study.cohort.table["slide"], 2**33)
    return config, study, split_study(config, study)


def refit_table(chosen: Sequence[Data], work: Path) -> str:
    """Return the score of `selection.refit`, and its gain over the default, as Markdown."""
    lines = [["data", "seeds", "default", "refit", "refit minus default"], ["---"] * 5]
    for data in chosen:
        pairs = []
        for seed in range(data.seeds):
            endpoint, target = _reported(data, seed, work)
            rows = torch.from_numpy(np.load(_place(work, data, seed) / REFITTED))
            today = next(score for _, _, rule, score, _ in _scored(data, seed, work) if rule == _named(TODAY))
            pairs.append((today, float(endpoint.score(rows, target)[endpoint.metric])))
        today, refitted = np.mean(pairs, axis=0)
        cells = [data.name, str(len(pairs)), f"{today:.4f}", f"{refitted:.4f}", _gain(pd.Series(np.diff(pairs)[:, 0]))]
        lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def members_table(ensembles: Sequence[Data], work: Path) -> str:
    """Return the scores of one network and of ensembles, by the former rule and by the default, as Markdown."""
    head = ["data", "seeds"]
    head += [f"{number}, {_named(rule)}" for number in ("one network", "ensemble") for rule in (BEFORE, TODAY)]
    lines = [[*head, "ensemble by the default minus one network by the former rule"], ["---"] * (len(head) + 1)]
    for data in ensembles:
        rows = []
        for seed in range(data.seeds):
            by_rule = [
                {rule: score for _, _, rule, score, _ in _scored(each, seed, work)}
                for each in (replace(data, members=1), data)
            ]
            rows.append([scores[_named(rule)] for scores in by_rule for rule in (BEFORE, TODAY)])
        cells = [f"{score:.4f}" for score in np.mean(rows, axis=0)]
        gains = pd.Series([row[-1] - row[0] for row in rows])
        lines.append([data.name, str(len(rows)), *cells, _gain(gains)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _gain(gains: "pd.Series[float]") -> str:
    """Return mean ± standard error of a gain over seeds, and the least and the most of them."""
    error = gains.std() / len(gains) ** 0.5
    return f"{gains.mean():+.4f} ± {error:.4f} ({gains.min():+.4f} to {gains.max():+.4f})"


def tables(chosen: Sequence[Data], work: Path) -> str:
    """Return the mean score of each rule, and the epoch that it chose, as Markdown."""
    rows = [row for data in chosen for seed in range(data.seeds) for row in _scored(data, seed, work)]
    table = pd.DataFrame(rows, columns=["data", "seed", "rule", "score", "epoch"])
    head = [
        "data",
        "seeds",
        *(_named(rule) for rule in RULES),
        "default minus former",
        "mean epoch, former and default",
    ]
    lines = [head, ["---"] * len(head)]
    for name, scores in table.groupby("data", sort=False):
        by_rule = scores.pivot_table(index="seed", columns="rule", values="score")
        epochs = scores.groupby("rule")["epoch"].mean()
        gains = by_rule[_named(TODAY)] - by_rule[_named(BEFORE)]
        cells = [f"{by_rule[_named(rule)].mean():.4f}" for rule in RULES]
        chosen_epochs = f"{epochs[_named(BEFORE)]:.1f}, {epochs[_named(TODAY)]:.1f}"
        lines.append([str(name), str(len(gains)), *cells, _gain(gains), chosen_epochs])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _named(rule: tuple[float, int]) -> str:
    average, count = rule
    which = "last epoch" if count == LAST else "lowest" if count == 1 else f"mean of {count}"
    return f"moving average, {which}" if average else which


def _scored(data: Data, seed: int, work: Path) -> Iterator[tuple[str, int, str, float, float]]:
    """Yield the score of each rule over the report patients of all folds, and the mean epoch that it chose."""
    endpoint, target = _reported(data, seed, work)
    folds = _folds(data, seed, work)
    for place, rule in enumerate(RULES):
        rows = torch.cat([torch.from_numpy(fold["report"][place]) for fold in folds])
        score = float(endpoint.score(rows, target)[endpoint.metric])
        yield data.name, seed, _named(rule), score, float(np.mean([fold["epochs"][place] for fold in folds]))


def _reported(data: Data, seed: int, work: Path) -> tuple[Endpoint, Tensor]:
    """Return the endpoint and the targets of the report patients, fold after fold."""
    folds = _folds(data, seed, work)
    endpoint: Endpoint = build.make(compose(data.words(seed)).tool.endpoint)
    endpoint.fit(torch.from_numpy(folds[0]["train_target"]))
    return endpoint, torch.cat([torch.from_numpy(fold["report_target"]) for fold in folds])


def _folds(data: Data, seed: int, work: Path) -> "list[np.lib.npyio.NpzFile]":
    return [np.load(path) for path in sorted(_place(work, data, seed).glob("*.npz"))]


def best_epochs(losses: Sequence[float], count: int) -> list[int]:
    """Return the epochs that a rule averages, from zero; as `Best` does, with early stopping."""
    if count == LAST:
        return [len(losses) - 1]
    lowest = epoch = 0
    for epoch, loss in enumerate(losses):
        lowest = epoch if loss < losses[lowest] else lowest
        if epoch - lowest >= PATIENCE:
            break
    order: list[int] = np.argsort(losses[: epoch + 1], kind="stable").tolist()
    return order[: counting(losses, count, epoch + 1)]


if __name__ == "__main__":
    raise SystemExit(main())
