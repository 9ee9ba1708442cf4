"""What `reproduce.py` measures: each study computes our values of several rows of `benchmarks/reference.csv`.

Quick studies compute what others published from the inputs that they published, and hold our metrics and losses to it.
The others train, once with one setting that was chosen before any of these data was looked at: `abmil` and
`abmil_gated` with embeddings 64 wide and attention 32, Adam at 1e-3 with weight decay 5e-3, 40 epochs of one bag a
step, the last epoch counts; the networks of the survival tables as in `real_survival.CLINICAL`.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lifelines.statistics import logrank_test
from numpy.typing import NDArray
from real_survival import Table, survival
from zoo_data import classic, crc_nuclei
from zoo_trials import Settings, cross_validated

from mil.endpoints.cox import cox_loss
from mil.files import write_json
from mil.stats import c_index
from mil.stats.cox_regression import fit
from mil.stats.estimate import LEVEL
from mil.stats.proportions import wilson

EQUAL = 1e-12
"""Largest difference of two C-indices that are the same number."""
SAME_P = 1e-9
"""Largest relative difference of two p values that are the same number."""
SAME_HAZARD = 1e-6
REPEATS = 5
SEEDS = 3
ATTENTION = Settings(folds=10, epochs=40, batch=1)
OPTIONS = {"embed_dim": 64, "attention_dim": 32}
UNITS = {"whas": "days", "support": "days", "metabric": "months", "gbsg": "months"}
"""Units of time of the survival tables."""
NUMBERS = {"OS": "logHR", "PFI": "logHR.1", "DSS": "logHR.2"}
"""Columns of the published log hazard ratios, by endpoint."""


@dataclass(frozen=True)
class Measured:
    """Our value with its 95% interval, None where there is none, and what it rests on."""

    value: float
    low: float | None
    high: float | None
    n: str


Study = Callable[[Path, Path], Iterator[tuple[str, Measured]]]
"""From the folder of real data and a folder for what is trained: rows of the reference and our values."""


def mcat(data: Path, _: Path) -> Iterator[tuple[str, Measured]]:
    """Compute C-indices and log-rank p of risks that others published with both."""
    folder = data / "mcat_predictions"
    table = pd.read_csv(folder / "predictions.csv.gz")
    table["died"] = table["censorship"] == 0
    folds = pd.read_csv(folder / "published_fold_cindex.csv").set_index(["method", "cohort", "fold"])[
        "published_cindex"
    ]
    ours = table.groupby(["method", "cohort", "fold"])[["risk", "survival_months", "died"]].apply(_c_index)
    equal = int(((ours - folds).abs() <= EQUAL).sum())
    yield "mcat-c-index", _counted(equal, f"{len(folds)} folds, {table['case_id'].nunique():,} patients")
    summary = pd.read_csv(folder / "published_summary.csv").rename(columns={"Project": "cohort"})
    p_values = summary.set_index(["method", "cohort"])["P-Value"]
    cohorts = table.groupby(["method", "cohort"])[["risk", "survival_months", "died"]]
    same = [
        np.isclose(p, p_values.loc[p.index], rtol=SAME_P, atol=0)
        for p in (cohorts.apply(_log_rank, tie_is_high=tie) for tie in (False, True))
    ]
    n = f"{len(p_values)} cohorts of a model, {table['case_id'].nunique():,} patients"
    yield "mcat-log-rank", _counted(int(np.any(same, axis=0).sum()), n)


def _c_index(patients: pd.DataFrame) -> float:
    return float(c_index(patients["risk"], patients["survival_months"], patients["died"]))


def _log_rank(patients: pd.DataFrame, tie_is_high: bool) -> float:
    """Return p of a split at the median risk; a risk at the median counts as high or as low."""
    risk, middle = patients["risk"], np.percentile(patients["risk"], 50)
    high = risk >= middle if tie_is_high else risk > middle
    time, died = patients["survival_months"], patients["died"]
    return float(logrank_test(time[high], time[~high], died[high], died[~high]).p_value)


def tcga_cdr(data: Path, _: Path) -> Iterator[tuple[str, Measured]]:
    """Minimise the Cox loss of training over one covariate, and compare with published log hazard ratios."""
    folder = data / "tcga_labels"
    table = pd.read_csv(folder / "tcga_cdr.csv.gz", low_memory=False)
    file = folder / "published" / "cdr_Fig2EFG_AdditionalInfo.csv"
    published = pd.read_csv(file, header=2, index_col=0).dropna(subset="logHR")
    stage = table["ajcc_pathologic_tumor_stage"].astype(str).str.extract(r"^(I/II NOS|Stage (?:0|IV|I{1,3}))")[0]
    table["high"] = stage.isin(["Stage III", "Stage IV"]).astype(float).where(stage.notna())
    equal = patients = 0
    for tumour, row in published.iterrows():
        for endpoint, column in NUMBERS.items():
            rows = table[table["type"] == tumour][["high", endpoint, f"{endpoint}.time"]].dropna()
            ours = _log_hazard_ratio(rows["high"], rows[f"{endpoint}.time"], rows[endpoint])
            equal += abs(ours - float(row[column])) <= SAME_HAZARD
        patients += len(table[(table["type"] == tumour) & table["high"].notna()])
    yield "tcga-cdr-cox", _counted(equal, f"{len(published) * len(NUMBERS)} ratios, {patients:,} patients")


def _log_hazard_ratio(*columns: "pd.Series[float]") -> float:
    """Return the minimum of the Cox loss over the coefficient of one covariate, by Newton's method."""
    covariate, time, event = (torch.from_numpy(column.to_numpy(np.float64)) for column in columns)
    weight = torch.zeros((), dtype=torch.float64, requires_grad=True)
    for _ in range(50):
        loss = cox_loss(weight * covariate, time, event)
        (slope,) = torch.autograd.grad(loss, weight, create_graph=True)
        (bend,) = torch.autograd.grad(slope, weight)
        step = (slope / bend).detach()
        weight = (weight.detach() - step).requires_grad_()
        if step.abs() < EQUAL:
            break
    return float(weight.detach())


def cox_tables(data: Path, _: Path) -> Iterator[tuple[str, Measured]]:
    """Fit linear proportional hazards to tables with the authors' split."""
    folder = data / "survival_tables"
    for name in UNITS:
        table = pd.read_csv(folder / f"deepsurv_{name}.csv.gz")
        yield f"{name}-cox", _linear(table, penalty=0.0)
    split = pd.read_csv(folder / "fed_tcga_brca_train_test_split.csv")
    table = pd.read_csv(folder / "fed_tcga_brca.csv").merge(split, on="pid", validate="one_to_one")
    table = table.rename(columns={"T": "time", "E": "event", "fold": "split"}).drop(columns=["fold2", "pid"])
    yield "fed-tcga-brca-cox", _linear(table, penalty=0.1)


def _linear(table: pd.DataFrame, penalty: float) -> Measured:
    """Return the C-index on the test patients of a model fitted to the training patients."""
    trained = table["split"] == "train"
    values = table.drop(columns=["time", "event", "split"]).astype(np.float64)
    spread = values[trained].std(ddof=0)
    values = ((values - values[trained].mean()) / spread).loc[:, spread > 0]
    time, event = table["time"].to_numpy(np.float64), table["event"].to_numpy() == 1
    model = fit(values[trained], time[trained], event[trained], penalty)
    return _concordance(model.risk(values[~trained]), time[~trained], event[~trained])


def _concordance(risk: NDArray[np.float64], time: NDArray[np.float64], event: NDArray[np.bool_]) -> Measured:
    """Return the C-index with its percentile interval over 1,000 resamples of the patients."""
    patients = len(risk)
    drawn = np.random.default_rng(0).multinomial(patients, np.full(patients, 1 / patients), 1000).astype(np.float64)
    low, high = np.quantile(c_index(risk, time, event, drawn), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    n = f"{patients} test patients, {int(event.sum())} events"
    return Measured(float(c_index(risk, time, event)), float(low), float(high), n)


def survival_networks(data: Path, work: Path) -> Iterator[tuple[str, Measured]]:
    """Train Cox networks with one hidden layer through `mil train`, mean of three seeds."""
    for name in UNITS:
        table = Table(f"deepsurv_{name}.csv.gz", UNITS[name], goal=0.0, tools=("survival",))
        row = next(survival(table, data / "survival_tables" / table.file, work / name, SEEDS))
        yield f"{name}-network", Measured(*row.value, row.n)


def attention_models(data: Path, work: Path) -> Iterator[tuple[str, Measured]]:
    """Train attention models on small sets of bags, repeated cross-validation, at one setting for all."""
    for model in ("abmil", "abmil_gated"):
        for name in ("musk1", "musk2", "elephant", "ucsb"):
            settings = replace(ATTENTION, folds=4) if name == "ucsb" else ATTENTION
            yield f"{name}-{model}", _accuracy(model, name, data, work, settings)
        yield f"crc-nuclei-{model}", _accuracy(model, "crc-nuclei", data, work, ATTENTION)


def _accuracy(model: str, name: str, data: Path, work: Path, settings: Settings) -> Measured:
    """Return the mean accuracy over folds and repeats; a repeat that is stored is not trained again."""
    torch.set_num_threads(1)
    bags = replace(crc_nuclei(data), metric="accuracy") if name == "crc-nuclei" else classic(name, data)
    scores = []
    for repeat in range(REPEATS):
        path = work / f"{name}-{model}-{repeat}.json"
        if not path.exists():
            write_json(path, cross_validated(model, bags, repeat, settings, OPTIONS)["scores"])
        scores += json.loads(path.read_text())
    n, value = len(bags.label), float(np.mean(scores))
    return Measured(value, *wilson(value * n, n), f"{n} bags, {int(bags.label.sum())} positive")


def _counted(equal: int, n: str) -> Measured:
    return Measured(float(equal), None, None, n)


STUDIES: Mapping[str, Study] = {
    "mcat": mcat,
    "tcga_cdr": tcga_cdr,
    "cox_tables": cox_tables,
    "survival_networks": survival_networks,
    "classic": attention_models,
}
