"""Whether a run's result is the tissue's or the site's: how well the site of a patient is told, and by what."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mil import checkpoint
from mil.errors import ConfigError
from mil.inference.embeddings import Embedded, embedded
from mil.report.as_dict import as_dict, site_as_dict
from mil.report.sections.site_effects import Sites
from mil.runs.designs import split_name
from mil.runs.run import Run, one_row_per_patient
from mil.runs.states import checkpoints_in
from mil.splits.sites import sites_of
from mil.stats.site_signature import NAMES, PARTS, beyond, site_predictability
from mil.study import build
from mil.study.config import RunConfig
from mil.study.pipeline import read_study
from mil.study.study import Study
from mil.tables import listed

logger = logging.getLogger(__name__)

JUDGED = ("encoder", "embedding")
"""Those whose sentence says whether there is a signature."""
METHOD = (
    "logistic regression on at most 64 principal components, five-fold cross-validation over patients; label, encoder "
    "and embedding of all patients of the run, those that the model was trained on among them; score of the reported "
    "ones, as ranks within folds"
)


def audit(run: Run, features: Path | None = None, resamples: int | None = None) -> dict[str, Any]:
    """How well the site of a patient is told by label, score, the mean of the tiles and the bag embedding.

    Embeddings are those of the run's first fold, of every patient of the run whose site is known.

    Args:
        run: Finished.
        features: Where its feature files lie now; where they lay then where left out.
        resamples: Of every bootstrap; the run's own where left out.

    Returns:
        What `site.json` holds: `told_by` each of `NAMES`, `beyond_label` of the last two, the metric `within_sites`,
        `words`, and what all this is of.

    Raises:
        ConfigError: no models, other patients than then, or fewer than two sites of five patients.
        MilError: the cohort or the features cannot be read.
    """
    config = _options(run, features)
    places = checkpoints_in(run.folder)
    if not places:
        raise ConfigError(f"{run.folder}: holds no checkpoint, expected a run with its models")
    fold, place = next(iter(places.items()))
    loaded = checkpoint.load(place, (run.model, config.tool.endpoint.target))
    study = read_study(config)
    everybody, source = _sites(run, study)
    site = everybody[everybody != ""]
    _refuse_few(run, site, source)
    logger.info("embedding %d patients with the model of fold %d", len(site), fold)
    found = embedded(loaded, study, list(site.index), build.workers(config))
    drawn = (run.resamples if resamples is None else resamples, run.seed)
    within = _within(run, everybody, drawn[0])
    told = _told(site.tolist(), _label(study, site.index), found, drawn)
    told["told_by"] |= {} if within is None else {"score": site_as_dict(within.told_by["score"])}
    return _head(run, config) | {
        "fold": fold,
        "checkpoint": place.relative_to(run.folder).as_posix(),
        "patients": {"n": len(everybody), "known": len(site), "sites": site.value_counts().to_dict()},
        "site": source,
        "resamples": drawn[0],
        "seed": drawn[1],
        "method": METHOD,
        **told,
        "within_sites": None if within is None else _within_as_dict(within),
        "words": {name: _words(name, **told) for name in JUDGED},
    }


def _options(run: Run, features: Path | None) -> RunConfig:
    if run.config is None:
        raise ConfigError(f"{run.folder}: holds no options, expected a run that was trained here")
    return run.config if features is None else run.config.replaced({"data.features": str(features)})


def _sites(run: Run, study: Study) -> "tuple[pd.Series[str], str]":
    """The site of every patient of the run, empty where not known, and where that stands."""
    patients, table = _patients(run, study), study.cohort.table
    if "site" not in table:
        return pd.Series(sites_of(patients, table), index=patients), "the TCGA barcodes"
    return one_row_per_patient(table)["site"].reindex(patients).str.strip(), "the clinical table's column 'site'"


def _patients(run: Run, study: Study) -> list[str]:
    patients = sorted(set(run.tables["predictions"]["patient"]))
    if lost := sorted(set(patients) - set(study.patients.index)):
        raise ConfigError(
            f"{study.source}: lacks {len(lost)} of the {len(patients)} patients of {run.folder}, {listed(lost)}; "
            "expected the cohort that the run was trained on"
        )
    return patients


def _refuse_few(run: Run, site: "pd.Series[str]", source: str) -> None:
    amounts = site.value_counts()
    if (large := int((amounts >= PARTS).sum())) < 2:
        raise ConfigError(
            f"{run.folder}: {large} of {len(amounts)} sites in {source} have {PARTS} patients or more, expected two"
        )


def _label(study: Study, patients: pd.Index) -> NDArray[np.float64]:
    """Which stratum each patient is of, `(p, strata)`."""
    strata = study.endpoint.strata(study.target[study.patients.index.get_indexer(patients)])
    return np.equal(strata[:, None], np.unique(strata)).astype(np.float64)


def _told(site: list[str], label: NDArray[np.float64], found: Embedded, drawn: tuple[int, int]) -> dict[str, Any]:
    """How well the site is told by each, and how much better than by the label; `drawn` are resamples and seed."""
    numbers = {"encoder": found.encoder.numpy(), "embedding": found.bag.numpy()}
    every = {"label": label, **numbers}
    return {
        "told_by": {name: site_as_dict(site_predictability(values, site, *drawn)) for name, values in every.items()},
        "beyond_label": {name: site_as_dict(beyond(values, label, site, *drawn)) for name, values in numbers.items()},
    }


def _within_as_dict(section: Sites) -> dict[str, Any]:
    within = section.within_sites
    return {"metric": section.metric, "sites": within.sites, **as_dict(within.estimate)}


def _within(run: Run, site: "pd.Series[str]", resamples: int) -> Sites | None:
    """Return the report's section on sites for these sites; None where fewer than two are reported."""
    if not run.reports:
        return None
    return Sites.compute(replace(run.evaluation(resamples=resamples), patients=pd.DataFrame({"site": site})))


def _head(run: Run, config: RunConfig) -> dict[str, Any]:
    return {
        "schema": 1,
        "run": run.folder.resolve().name,
        "tool": run.tool["name"],
        "model": run.model,
        "encoder": run.encoder,
        "simulated": run.simulated,
        "cohort": config.data.name,
        "split": split_name(run),
    }


def _words(name: str, told_by: Mapping[str, Any], beyond_label: Mapping[str, Any]) -> str:
    """What one of `JUDGED` shows, beside what the label alone shows."""
    own = told_by[name]["balanced_accuracy"]
    accuracy = f"balanced accuracy {_span(own)}, chance {own['chance']:.3f}"
    who = f"of {told_by[name]['n']} patients of {told_by[name]['sites']} sites with {accuracy}"
    if own["low"] <= own["chance"]:
        return f"no signature is shown: the {NAMES[name]} tells the site {who}"
    label, gained = (one["balanced_accuracy"] for one in (told_by["label"], beyond_label[name]))
    if gained["low"] > 0:
        return f"a signature is shown: the {NAMES[name]} tells the site {who}; the label alone {_span(label)}"
    return (
        f"the {NAMES[name]} tells the site {who}; the label alone is not shown to tell it worse, {_span(label)}, "
        f"a difference of {_span(gained, '+')}: who comes to a site may explain it"
    )


def _span(found: Mapping[str, Any], sign: str = "") -> str:
    return f"{found['value']:{sign}.3f} ({found['low']:{sign}.3f} to {found['high']:{sign}.3f})"
