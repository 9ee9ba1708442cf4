"""The card's front matter, as the Hugging Face Hub reads it."""

from collections.abc import Iterator

from huggingface_hub import EvalResult, ModelCardData

from mil.cards.card_facts import Facts
from mil.cards.purpose import LICENCE, LICENCE_FILE, tags

METRICS = {"auroc": "roc_auc", "macro_auroc": "roc_auc", "mae": "mae", "pearson": "pearsonr"}
"""The Hub's names of our metrics, as far as it has one."""
TASKS = {"classification": "image-classification", "regression": "tabular-regression"}
_INTERVAL = {"low", "high", "level", "method", "counts", "resamples"}


def front_matter(facts: Facts) -> str:
    """Return the YAML between the lines of dashes; intervals and counts are in the metrics' `args`."""
    tool = facts.tool
    results = list(_results(facts))
    data = ModelCardData(
        model_name=f"{tool.name} {tool.version}",
        language=["en", "fr"],
        license="other",
        license_name=LICENCE,
        license_link=LICENCE_FILE,
        library_name="mil-zoo",
        base_model=facts.hub(),
        datasets=[f"simulated-{tool.name}"] if facts.simulated else None,
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        tags=tags(facts),
        eval_results=results or None,
    )
    for key, value in _stated(facts).items():
        data[key] = value
    return str(data.to_yaml()).rstrip()


def _stated(facts: Facts) -> dict[str, str]:
    """Return what people state, under keys that the Hub keeps though it has no meaning for them."""
    statements = facts.statements
    stated = {"date": statements.date, "data_version": statements.data_version, "contact": statements.contact}
    return {key: str(value) for key, value in stated.items() if value}


def _results(facts: Facts) -> Iterator[EvalResult]:
    task = getattr(facts.endpoint, "task", "other")
    cohort = f"simulated cohort of {facts.tool.name}" if facts.simulated else "cohort of the training site"
    for name, estimate in facts.report.metrics.items():
        if estimate.value is not None:
            yield EvalResult(
                task_type=TASKS.get(task, "other"),
                task_name=facts.tool.title,
                dataset_type="simulated" if facts.simulated else "private",
                dataset_name=cohort,
                dataset_split=f"report patients of fold {facts.manifest.data.split.fold}",
                metric_type=METRICS.get(name, name),
                metric_name=name,
                metric_value=estimate.value,
                metric_args={"n": estimate.n, **estimate.model_dump(mode="json", include=_INTERVAL)},
            )
