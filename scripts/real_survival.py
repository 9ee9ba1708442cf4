"""Real survival tables: a patient is a bag of one tile, the covariates standardised on the training patients."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from lifelines import KaplanMeierFitter
from real_runs import (
    SMALL,
    Row,
    Spread,
    averaged,
    baseline_metrics,
    given,
    metric,
    mil,
    placed,
    reported,
    standardised,
    write_cohort,
    write_trident,
)

from mil.report.report_files import read_report

COX, DISCRETE, WEIBULL = "survival", "survival_discrete", "survival_weibull"
CLINICAL = (
    *("model=mean", "model.embed_dim=64", "model.dropout=0.5", "data.batch_bags=128", "trainer.max_epochs=20"),
    *("optimizer.lr=5e-3", "optimizer.weight_decay=0.03", *SMALL),
)
"""Mean pooling of one tile: a network with one hidden layer."""


@dataclass(frozen=True)
class Table:
    """A table of `time, event, split` and covariates, the goal of its runs, and their settings."""

    file: str
    unit: str
    goal: float
    tools: Sequence[str] = (COX, DISCRETE, WEIBULL)
    settings: Sequence[str] = CLINICAL


TABLES = {
    "fed_tcga_brca": Table("fed_tcga_brca.csv", "days", 0.80, tools=(COX,)),
    "metabric": Table("deepsurv_metabric.csv.gz", "months", 0.632),
    "gbsg": Table("deepsurv_gbsg.csv.gz", "months", 0.656),
}


def survival(table: Table, source: Path, out: Path, seeds: int) -> Iterator[Row]:
    """Train each of the table's tools and yield its results."""
    median = convert(read_table(source), out)
    name, unit = out.name, table.unit
    for tool in table.tools:
        runs = [out / f"{tool}_{seed}" for seed in range(seeds)]
        for seed, run in enumerate(runs):
            words = (f"tool={tool}", f"tool.endpoint.unit={unit}", f"tool.endpoint.horizons={{median: {median}}}")
            roles = ("tool.endpoint.shortest=0.1", "split=fixed", "split.column=split")
            if not (run / "report.json").exists():
                mil("train", *words, *roles, *table.settings, *given(out), *placed(run, seed))
        reports = [read_report(run / "report.json") for run in runs]
        n = "{n} test patients, {events} events".format(**reports[0].patients)
        yield Row(name, n, f"C-index, {tool}", metric([report.metrics for report in reports], "c_index"), table.goal)
        yield Row(name, n, f"C-index, linear, {tool}", metric(map(baseline_metrics, reports), "c_index"))
        tables = [reported(run / "predictions.csv") for run in runs]
        yield Row(name, n, f"mean risk by {median:g} {unit}, {tool}", averaged([_predicted(each) for each in tables]))
        thirds = np.mean([_thirds(each, median) for each in tables], 0)
        print("predicted and observed risk by thirds of the predicted:", np.round(thirds, 3).tolist())
    yield Row(name, n, f"risk by {median:g} {unit}, Kaplan-Meier", _observed(tables[0], median))


def read_table(source: Path) -> pd.DataFrame:
    """Return a table with columns time, event, split (train or test) and covariates, indexed by patient."""
    if source.name != "fed_tcga_brca.csv":
        return pd.read_csv(source).rename(index="patient_{:04d}".format)
    split = pd.read_csv(source.with_name("fed_tcga_brca_train_test_split.csv"))
    table = pd.read_csv(source).merge(split, on="pid", validate="one_to_one").set_index("pid")
    return table.rename(columns={"T": "time", "E": "event", "fold": "split"}).drop(columns="fold2")


def convert(table: pd.DataFrame, out: Path) -> float:
    """Write features and cohort; return the median time of the training patients."""
    trained = table["split"] == "train"
    values = table.drop(columns=["time", "event", "split"]).to_numpy(np.float64)
    names = [str(name) for name in table.index]
    for name, row in zip(names, standardised(values, trained.to_numpy()), strict=True):
        write_trident(out / "features", name, row[None], "covariates")
    write_cohort(out, names, time=table["time"], event=table["event"].astype(int), split=table["split"])
    return round(float(table.loc[trained, "time"].median()), 1)


def _predicted(table: pd.DataFrame) -> Spread:
    """Return the mean risk and the range of the middle 95% of patients."""
    low, high = table["risk_median"].quantile([0.025, 0.975])
    return float(table["risk_median"].mean()), float(low), float(high)


def _observed(table: pd.DataFrame, time: float) -> Spread:
    fit = KaplanMeierFitter().fit(table["time"], table["event"])
    low, high = fit.confidence_interval_.loc[:time].iloc[-1]
    return 1 - float(fit.predict(time)), 1 - float(high), 1 - float(low)


def _thirds(table: pd.DataFrame, time: float) -> list[list[float]]:
    third = pd.qcut(table["risk_median"].rank(method="first"), 3, labels=False)
    return [[_predicted(patients)[0], _observed(patients, time)[0]] for _, patients in table.groupby(third)]
