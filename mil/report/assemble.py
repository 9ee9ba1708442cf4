"""From checked predictions to a report: every section that applies, computed once."""

from collections.abc import Iterable

from mil.progress import counted
from mil.report.evaluation import Evaluation
from mil.report.metric_intervals import metric_intervals
from mil.report.plausibility import find_warnings
from mil.report.schema import About, FittedOn, Report, Section, section_classes


def evaluate(evaluation: Evaluation, about: About | None = None, fitted: Iterable[FittedOn] = ()) -> Report:
    """Return the report of a table of predictions; of a tool of several endpoints it has a report of each in `parts`.

    Only rows whose role is `report` are scored.

    Args:
        evaluation: The predictions, and what they are evaluated with.
        about: What was predicted, by what, on whom.
        fitted: What was fitted or chosen, and on which patients.

    Raises:
        PredictionsError: a table that cannot be evaluated.
        CohortError: a target that the endpoint does not know.
        ConfigError: a decision, a method or an option that does not exist.
    """
    metrics = metric_intervals(evaluation)
    sections = {section.key: section for section in _sections(evaluation)}
    return Report(
        about=about or About(),
        seed=evaluation.seed,
        resamples=evaluation.resamples,
        folds=len(evaluation.folds),
        patients=evaluation.counts,
        metrics=metrics,
        warnings=tuple(find_warnings(evaluation, metrics, sections)),
        sections=sections,
        fitted=tuple(fitted),
        parts={name: evaluate(part) for name, part in evaluation.parts().items()},
    )


def _sections(evaluation: Evaluation) -> Iterable[Section]:
    classes = section_classes()
    for cls in counted(classes, "computing the report", len(classes)):
        if cls.key not in evaluation.endpoint.sections_left_out:
            section = cls.compute(evaluation)
            if section is not None:
                yield section
