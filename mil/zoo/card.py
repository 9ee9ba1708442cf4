"""The model card: generated from manifest and report, never edited by hand.

Front matter is Hugging Face's (`model-index`, validated by huggingface_hub). Every number stands with its interval, its
counts, and the file and key that it comes from.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from mil.checkpoint import Manifest
from mil.endpoints.base import Endpoint

SIMULATED = "SIMULATED DATA, NO CLINICAL MEANING, RESEARCH USE ONLY"
RESEARCH = "RESEARCH USE ONLY, NOT A MEDICAL DEVICE"
OPTIONAL = ("specimen", "ground_truth", "intended_use", "out_of_scope")
"""What a tool need not say of itself."""
BESIDE = ("baseline", "covariates")
"""Parts of a report that are about another model of the same patients."""
TASKS = {"auroc": "roc_auc", "macro_auroc": "roc_auc", "balanced_accuracy": "balanced_accuracy", "c_index": "c_index"}


def card(manifest: Manifest, endpoint: Endpoint, report: Mapping[str, Any], figures: Sequence[str]) -> str:
    """The whole README.md of a checkpoint."""
    templates = Environment(
        loader=PackageLoader("mil.zoo", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    simulated = bool(manifest.data["simulated"])
    return templates.get_template("card.md.j2").render(
        front_matter=_front_matter(manifest, endpoint, report).to_yaml().rstrip(),
        banner=SIMULATED if simulated else RESEARCH,
        simulated=simulated,
        manifest=manifest,
        tool=dict.fromkeys(OPTIONAL) | manifest.tool,
        endpoint=endpoint,
        report=report,
        own=list(_rows(report, "")),
        run=list(_rows(report["run"], "run.")) if "run" in report else [],
        verdict=verdict(report.get("run", report), endpoint.metric),
        figures=figures,
        proportion=interval,
    )


def interval(found: Mapping[str, Any]) -> str:
    """`0.912 (0.870 to 0.950)`, or that it cannot be had."""
    if found["value"] is None:
        return "not estimable"
    if found["low"] is None:
        return f"{found['value']:.3f} (interval not estimable)"
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def population(found: Mapping[str, Any]) -> str:
    """Whom a number is of: `n 200, MSS 170, MSI-H 30`."""
    return ", ".join(f"{name} {amount}" for name, amount in found["counts"].items())


def verdict(report: Mapping[str, Any], metric: str) -> str:
    """Whether the model beats the baselines, in words."""
    besides = [report[key] for key in BESIDE if report.get(key)]
    return " ".join(_compared(beside, metric) for beside in besides) or "No baseline was run."


def _compared(beside: Mapping[str, Any], metric: str) -> str:
    gain = beside["difference"].get(metric)
    if not gain or gain["value"] is None or gain["low"] is None:
        return f"The difference to {beside['name']} is not estimable."
    known = f"difference in {metric} {interval(gain)}, paired, {population(gain)}"
    if gain["low"] > 0:
        return f"The model beats {beside['name']}: {known}."
    if gain["high"] < 0:
        return f"**The model is worse than {beside['name']}**: {known}."
    return f"**The model is not shown to beat {beside['name']}**: {known}."


def _rows(report: Mapping[str, Any], prefix: str) -> Iterator[dict[str, str]]:
    """The performance table: who, metric, value with interval, counts, source."""
    groups = [
        ("this model", "metrics", report["metrics"]),
        *((report[key]["name"], f"{key}.metrics", report[key]["metrics"]) for key in BESIDE if report.get(key)),
        ("oracle (knows the simulated tiles)", "oracle", report.get("oracle") or {}),
    ]
    for who, key, metrics in groups:
        for name, found in metrics.items():
            yield {
                "who": who,
                "metric": name,
                "value": interval(found),
                "population": population(found),
                "source": f"report.json: {prefix}{key}.{name}",
            }


def _front_matter(manifest: Manifest, endpoint: Endpoint, report: Mapping[str, Any]) -> ModelCardData:
    tool, simulated = manifest.tool, bool(manifest.data["simulated"])
    cohort = f"simulated cohort of {tool['name']}" if simulated else "cohort of the training site"
    results = [
        EvalResult(
            task_type="image-classification" if endpoint.task == "classification" else "other",
            task_name=str(tool["title"]),
            dataset_type="simulated" if simulated else "private",
            dataset_name=cohort,
            dataset_split=f"report patients of fold {manifest.data['split']['fold']}",
            metric_type=TASKS.get(name, name),
            metric_name=name,
            metric_value=found["value"],
            metric_args={key: found[key] for key in found if key not in ("value", "folds")},
        )
        for name, found in report["metrics"].items()
        if found["value"] is not None
    ]
    tags = ["pathology", "multiple-instance-learning", "whole-slide-image", endpoint.task, str(tool["name"])]
    return ModelCardData(
        model_name=f"{tool['name']} {tool['version']}",
        license="other",
        license_name="research-use-only",
        library_name="mil-zoo",
        tags=[*tags, "research-use-only", *(["simulated-data"] if simulated else [])],
        eval_results=results or None,
    )
