"""Compare algorithms of `mil federate` on real patients of real centres, and on simulated centres that differ.

Run: python scripts/benchmark_federation.py brca --data ../shared/data/survival_tables
     python scripts/benchmark_federation.py simulated
Each prints a table in Markdown for docs/federation.md.

`brca`: Fed-TCGA-BRCA (Ogier du Terrail et al., FLamby, NeurIPS 2022): 1,088 patients of six regions, 39 clinical
covariates as one tile, a linear Cox model, FLamby's split.
`simulated`: the centres of a simulated cohort, each with a stain, scanner and case mix of its own.
"""

import argparse
import logging
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import JsonValue

from mil.cohort.clinical_table import Cohort
from mil.features.encoders import Encoder
from mil.features.store import FeatureStore
from mil.federation.bag_gradients import load_vector
from mil.federation.coordinator import Coordinator
from mil.federation.engines.local import LocalEngine
from mil.federation.federation_options import FederationOptions
from mil.federation.fold_setup import fit_setup
from mil.federation.hospital import Hospital
from mil.federation.local_run import federate
from mil.federation.protocol import Training
from mil.models.mil_model import MILModel
from mil.splits.folds import Split
from mil.stats.survival_metrics import c_index
from mil.study import build
from mil.study.compose import compose
from mil.study.run_config import RunConfig
from mil.study.study import Study

Floats = NDArray[np.float64]
PUBLISHED = {"local": ".565 to .728", "fedavg": ".735", "fedadam": ".842", "pooled": ".704"}
"""FLamby's figures, from fed_tcga_brca_published_results.csv as the design states them."""
BRCA = ["tool=survival", "split=holdout", "data.whole_cohort=true", "schedule=constant", "tool.endpoint.unit=days"]
BRCA += ["tool.endpoint.time=T", "tool.endpoint.event=E", "tool.endpoint.zero_time=half_unit", "data.workers=0"]


class RowStore:
    """Patients whose covariates are the one tile of their bag."""

    keeps, verified, folder = True, False, Path("rows")

    def __init__(self, rows: pd.DataFrame) -> None:
        """Keep the rows of a table."""
        self.rows = {str(name): torch.from_numpy(row.to_numpy(np.float32).copy()) for name, row in rows.iterrows()}
        self.geometry = SimpleNamespace(mpp=None, tile_px=None)

    def header(self, slide: str) -> SimpleNamespace:
        """Return a header of one tile."""
        return SimpleNamespace(tiles=1, has_coords=False)

    def valid_headers(self, slides: Iterable[str]) -> dict[str, SimpleNamespace]:
        """Return the headers of slides."""
        return {slide: self.header(slide) for slide in slides}

    def read(self, slide: str) -> SimpleNamespace:
        """Return the one tile of a patient."""
        return SimpleNamespace(features=self.rows[slide].unsqueeze(0), coords=None)


def brca(folder: Path, words: Sequence[str]) -> pd.DataFrame:
    """Return the C-indices of each algorithm on FLamby's test patients."""
    table = pd.read_csv(folder / "fed_tcga_brca.csv", index_col="pid")
    split = pd.read_csv(folder / "fed_tcga_brca_train_test_split.csv", index_col="pid")
    table = table.join(split, how="inner")
    features = [str(name) for name in table if name not in ("T", "E", "fold", "fold2")]
    table["site"] = "region-" + table["fold2"].str.extract(r"(\d+)$")[0]
    table[["T", "E"]] = table[["T", "E"]].astype(float).map(lambda value: f"{value:g}")
    rows = []
    for algorithm, options in (
        ("local", ["optimizer.lr=0.1"]),
        ("fedavg", ["optimizer.lr=0.1", "data.whole_cohort=false", "data.batch_bags=8"]),
        ("exact", ["optimizer.lr=0.1"]),
        ("pooled", ["optimizer.lr=0.1"]),
    ):
        config = compose([*BRCA, "model=mean", *options, *words])
        models = _models(config, algorithm, table, features)
        scores = [_scores(models[site], table[table["site"] == site], features) for site in sorted(set(table["site"]))]
        tests = [table[(table["site"] == site) & (table["fold"] == "test")] for site in sorted(set(table["site"]))]
        by_site = [_c_index(score, test) for score, test in zip(scores, tests, strict=True)]
        together = _c_index(np.concatenate(scores), pd.concat(tests)) if algorithm != "local" else float("nan")
        row = {"algorithm": algorithm} | {f"region {at}": value for at, value in enumerate(by_site)}
        rows.append(row | {"mean": float(np.mean(by_site)), "all": together, "FLamby": PUBLISHED.get(algorithm, "")})
        logging.info("%s", rows[-1])
    return pd.DataFrame(rows)


def _models(config: RunConfig, algorithm: str, table: pd.DataFrame, features: list[str]) -> dict[str, MILModel]:
    """Return the model that each region's patients are predicted with."""
    sites = sorted(set(table["site"]))
    if algorithm == "local":
        return {site: _trained(config, "exact", {site: table[table["site"] == site]}, features) for site in sites}
    groups = {"all": table} if algorithm == "pooled" else {site: table[table["site"] == site] for site in sites}
    return dict.fromkeys(sites, _trained(config, "exact" if algorithm == "pooled" else algorithm, groups, features))


def _trained(config: RunConfig, algorithm: str, groups: dict[str, pd.DataFrame], features: list[str]) -> MILModel:
    secure = len(groups) > 1
    options = FederationOptions.parse({"algorithm": algorithm, "times": "exact", "minimum": 1, "secure": secure})
    hospitals = {
        site: Hospital(site, config, _study(config, rows, features), _split(rows), options)
        for site, rows in groups.items()
    }
    coordinator = Coordinator(LocalEngine(hospitals), options)
    descriptions = coordinator.ask("describe")
    keys: dict[str, JsonValue] = {site: answer.text("public") for site, answer in coordinator.ask("join").items()}
    coordinator.ask("join", facts={"keys": keys})
    setup = fit_setup(config, coordinator, descriptions, 0)
    coordinator.ask("setup", *setup.question(algorithm == "exact"))
    counts = {site: len(_split(rows).patients(0, "train")) for site, rows in groups.items()}
    training = Training(config, coordinator, setup, len(features), counts)
    load_vector(training.model, training.run().weights)
    return training.model.eval()


def _study(config: RunConfig, rows: pd.DataFrame, features: list[str]) -> Study:
    endpoint = build.endpoint(config)
    slides = pd.DataFrame({"patient": rows.index, "slide": rows.index, "site": rows["site"].to_numpy()})
    bags = pd.DataFrame({"bag": rows.index, "patient": rows.index, "slides": [(str(name),) for name in rows.index]})
    numbers = rows[features].astype(float)
    numbers["age_at_index"] = numbers["age_at_index"] / 100  # the others are 0 or 1
    return Study(
        cohort=Cohort(slides, endpoint.columns),
        store=cast(FeatureStore, RowStore(numbers)),
        encoder=Encoder("covariates", len(features)),
        endpoint=endpoint,
        patients=rows,
        target=endpoint.encode(rows),
        bags=bags,
        source=Path("rows"),
        truth=None,
    )


def _split(rows: pd.DataFrame) -> Split:
    """Return FLamby's roles; all training patients also select, as the last weights are taken."""
    roles = rows["fold"].map({"train": "train", "test": "report"}).to_numpy()
    return Split(pd.DataFrame({"patient": rows.index, "fold": 0, "role": roles}))


def _scores(model: MILModel, rows: pd.DataFrame, features: list[str]) -> Floats:
    from mil.bags import Bags

    numbers = rows.loc[rows["fold"] == "test", features].astype(float)
    numbers["age_at_index"] = numbers["age_at_index"] / 100
    tiles = torch.from_numpy(numbers.to_numpy(np.float32).copy())
    with torch.inference_mode():
        return np.asarray(model(Bags(tiles, (1,) * len(tiles))).logits.squeeze(1).double().numpy())


def _c_index(score: Floats, rows: pd.DataFrame) -> float:
    return float(c_index(score, rows["T"].astype(float).to_numpy(), rows["E"].astype(float).to_numpy()))


def simulated(words: Sequence[str]) -> pd.DataFrame:
    """Return the mean AUROC over the centres of a simulated cohort, by algorithm."""
    rows = []
    for algorithm in ("local", "fedavg", "exact", "pooled"):
        config = compose(["tool=binary", "split=holdout", "baseline=false", "figures=false", "resamples=200", *words])
        options = FederationOptions.parse({"algorithm": algorithm, "minimum": 5})
        with tempfile.TemporaryDirectory() as folder:
            section = federate(config, options, Path(folder) / "run")
        values = [result.metrics["auroc"].value for result in section.sites if "auroc" in result.metrics]
        rows.append(
            {"algorithm": algorithm, "sites": len(values), "mean AUROC": float(np.mean([v or 0 for v in values]))}
        )
        logging.info("%s", rows[-1])
    return pd.DataFrame(rows)


def main() -> None:
    """Print the table of one study."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", choices=("brca", "simulated"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data/survival_tables"))
    parser.add_argument("words", nargs="*", help="options of mil train, such as trainer.max_epochs=60")
    given = parser.parse_intermixed_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("mil").setLevel(logging.WARNING)
    table = brca(given.data, given.words) if given.study == "brca" else simulated(given.words)
    heads = [str(name) for name in table]
    print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for row in table.itertuples(index=False):
        print("| " + " | ".join(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row) + " |")


if __name__ == "__main__":
    main()
