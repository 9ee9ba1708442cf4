"""Measure how well the site of a patient can be predicted from a run's inputs and outputs."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mil import checkpoint
from mil.errors import ConfigError
from mil.inference.embeddings import embedded
from mil.report.paired_difference import ALPHA, shown_sign
from mil.report.schema import Model
from mil.report.sections.site_effects import Sites, WithinSites
from mil.report.verdict_minimum import FEWEST_PATIENTS
from mil.runs.design_gap import DesignGap
from mil.runs.designs import split_name
from mil.runs.run import Run, one_row_per_patient
from mil.runs.states import checkpoints_in
from mil.splits.sites import sites_of
from mil.stats.estimate import Estimate, format_p
from mil.stats.site_signature import NAMES, PARTS, SitePredictability, beyond, site_predictability
from mil.study import build
from mil.study.pipeline import read_study
from mil.study.run_config import RunConfig
from mil.study.study import Study
from mil.tables import listed

logger = logging.getLogger(__name__)

JUDGED = ("encoder", "embedding")
"""Inputs for which a sentence says whether there is a signature."""
METHOD = (
    "linear discriminant analysis on at most 64 principal components, five-fold cross-validation over patients; label, "
    "encoder and embedding of all patients of the run, including those that the model was trained on; score of the "
    "reported patients, as ranks within folds; p by permuting the sites"
)


class SitePatients(Model):
    """The patients of an audit."""

    n: int
    with_site: int
    """patients whose site is known"""
    sites: dict[str, int]
    """patients by site"""


class SiteAudit(Model):
    """How well the site of a patient can be predicted, and from what."""

    schema_version: Literal[2] = 2
    run: str
    tool: str
    model: str
    encoder: str
    simulated: bool
    cohort: str | None
    split: str
    fold: int
    """fold of the checkpoint"""
    checkpoint: str
    patients: SitePatients
    site: str
    """where the sites are read from"""
    resamples: int
    seed: int
    method: str = METHOD
    predicted_from: dict[str, SitePredictability]
    """by the keys of `mil.stats.site_signature.NAMES`"""
    beyond_label: dict[str, SitePredictability]
    """how much better than from the label; of encoder and embedding"""
    metric: str | None
    within_sites: WithinSites | None
    """mean of the metric within sites; None if fewer than two sites are reported"""
    sentences: dict[str, str]
    designs: DesignGap | None = None
    """random folds against folds of whole sites, if a second run was given"""


def audit(run: Run, features: Path | None = None, resamples: int | None = None) -> SiteAudit:
    """Measure how well the site can be predicted from label, score, mean tile and bag embedding.

    Embeddings are computed by the run's first fold, for every patient of the run whose site is known.

    Args:
        run: A finished run.
        features: Folder of the feature files; by default where they were in training.
        resamples: Bootstrap resamples; by default those of the run.

    Raises:
        ConfigError: if the run has no models, the cohort lacks patients of the run, or fewer than two sites have five
            patients.
        MilError: if the cohort or the features cannot be read.
    """
    config = _config(run, features)
    places = checkpoints_in(run.folder)
    if not places:
        raise ConfigError(f"{run.folder}: holds no checkpoint, expected a run with its models")
    fold, place = next(iter(places.items()))
    loaded = checkpoint.load(place, (run.model, config.tool.endpoint.target))
    study = read_study(config)
    all_sites, source = _sites(run, study)
    sites = all_sites[all_sites != ""]
    _check_site_sizes(run, sites, source)
    logger.info("embedding %d patients with the model of fold %d", len(sites), fold)
    embeddings = embedded(loaded, study, list(sites.index), build.workers(config))
    resamples, names = run.resamples if resamples is None else resamples, sites.tolist()
    label = _label(study, sites.index)
    inputs = {"encoder": embeddings.encoder.numpy(), "embedding": embeddings.bag.numpy()}
    predicted_from = {
        name: site_predictability(values, names, resamples, run.seed)
        for name, values in {"label": label, **inputs}.items()
    }
    beyond_label = {name: beyond(values, label, names, resamples, run.seed) for name, values in inputs.items()}
    reported = _reported(run, all_sites, resamples)
    return SiteAudit(
        run=run.folder.resolve().name,
        tool=run.tool.name,
        model=run.model,
        encoder=run.encoder,
        simulated=run.simulated,
        cohort=config.data.name,
        split=split_name(run),
        fold=fold,
        checkpoint=place.relative_to(run.folder).as_posix(),
        patients=SitePatients(
            n=len(all_sites),
            with_site=len(sites),
            sites={str(name): int(count) for name, count in sites.value_counts().items()},
        ),
        site=source,
        resamples=resamples,
        seed=run.seed,
        predicted_from=predicted_from | ({} if reported is None else {"score": reported.told_by["score"]}),
        beyond_label=beyond_label,
        metric=None if reported is None else reported.metric,
        within_sites=None if reported is None else reported.within_sites,
        sentences={name: signature_sentence(name, predicted_from, beyond_label) for name in JUDGED},
    )


def _config(run: Run, features: Path | None) -> RunConfig:
    if run.config is None:
        raise ConfigError(f"{run.folder}: holds no options, expected a run that was trained here")
    return run.config if features is None else run.config.replaced({"data.features": str(features)})


def _sites(run: Run, study: Study) -> "tuple[pd.Series[str], str]":
    """Return the site of every patient of the run, empty if unknown, and where the sites are read from."""
    patients, table = _patients(run, study), study.cohort.table
    if "site" not in table:
        return pd.Series(sites_of(patients, table), index=patients), "the TCGA barcodes"
    return one_row_per_patient(table)["site"].reindex(patients).str.strip(), "the clinical table's column 'site'"


def _patients(run: Run, study: Study) -> list[str]:
    patients = sorted(set(run.tables["predictions"]["patient"]))
    if missing := sorted(set(patients) - set(study.patients.index)):
        raise ConfigError(
            f"{study.source}: lacks {len(missing)} of the {len(patients)} patients of {run.folder}, {listed(missing)}; "
            "expected the cohort that the run was trained on"
        )
    return patients


def _check_site_sizes(run: Run, sites: "pd.Series[str]", source: str) -> None:
    sizes = sites.value_counts()
    if (large := int((sizes >= PARTS).sum())) < 2:
        raise ConfigError(
            f"{run.folder}: {large} of {len(sizes)} sites in {source} have {PARTS} patients or more, expected two"
        )


def _label(study: Study, patients: pd.Index) -> NDArray[np.float64]:
    """Return the stratum of each patient as indicators, `(p, strata)`."""
    strata = study.endpoint.strata(study.target[study.patients.index.get_indexer(patients)])
    return np.equal(strata[:, None], np.unique(strata)).astype(np.float64)


def _reported(run: Run, sites: "pd.Series[str]", resamples: int) -> Sites | None:
    """Return the report's section with these sites; None if fewer than two sites are reported."""
    if not run.reports:
        return None
    return Sites.compute(replace(run.evaluation(resamples=resamples), patients=pd.DataFrame({"site": sites})))


def signature_sentence(
    name: str, predicted_from: dict[str, SitePredictability], beyond_label: dict[str, SitePredictability]
) -> str:
    """Return a sentence on whether an input predicts the site better than chance and better than the label alone."""
    result, label, gain = predicted_from[name], predicted_from["label"], beyond_label[name]
    accuracy, of_label, gained = (_estimated(each.balanced_accuracy) for each in (result, label, gain))
    p = "" if accuracy.p is None else f", p {format_p(accuracy.p)}"
    scope = (
        f"of {result.n} patients of {result.sites} sites with balanced accuracy {accuracy}, "
        f"by chance {result.chance['balanced_accuracy']:.3f}{p}"
    )
    if result.n < FEWEST_PATIENTS:
        few = f"{result.n} patients are too few, expected {FEWEST_PATIENTS}"
        return f"no verdict: {few}; the {NAMES[name]} predicts the site {scope}"
    if accuracy.p is None or accuracy.p >= ALPHA:
        return f"no signature is shown: the {NAMES[name]} predicts the site {scope}"
    if shown_sign(gained) > 0:
        return f"a signature is shown: the {NAMES[name]} predicts the site {scope}; the label alone {of_label}"
    return (
        f"the {NAMES[name]} predicts the site {scope}; the label alone is not shown to predict it worse, {of_label}, "
        f"a difference of {gained}: differences between the sites' patients may explain it"
    )


def _estimated(estimate: Estimate | None) -> Estimate:
    if estimate is None or estimate.value is None:
        raise ValueError("an estimate of an audit has a value")
    return estimate
