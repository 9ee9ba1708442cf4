"""`mil evaluate` as it is typed: its options."""

from pathlib import Path
from typing import Annotated

import typer

from mil.cli.prediction_columns import Columns

Slides = Annotated[Path | None, typer.Option(help="table of slides beside a cohort of one row a patient")]
Run = Annotated[Path | None, typer.Argument(help="a run folder, or with --cohort a checkpoint")]
Cohort = Annotated[Path | None, typer.Option(help="a cohort with labels that the checkpoint has not seen")]
Features = Annotated[Path | None, typer.Option(help="its feature files")]
Predictions = Annotated[Path | None, typer.Option(help="a table of predictions made elsewhere")]
Target = Annotated[
    list[str] | None, typer.Option(help="its column of labels [label]; for several labels NAME=COLUMN for each")
]
Score = Annotated[
    list[str] | None,
    typer.Option(
        help="its column of scores [score], larger for the positive class or the higher risk; "
        "CLASS=COLUMN for each class, NAME=COLUMN for each label or cause"
    ),
]
Positive = Annotated[str | None, typer.Option(help="the label that scores are of [1]")]
Ordered = Annotated[bool, typer.Option("--ordered", help="classes are grades, the lowest first")]
Value = Annotated[str | None, typer.Option(help="its column of predicted numbers; --target has the true ones")]
Time = Annotated[str | None, typer.Option(help="its column of times: survival")]
Event = Annotated[str | None, typer.Option(help="its column of events [event], 0 or 1, or 0 and causes")]
Unit = Annotated[str | None, typer.Option(help="of time: days, months or years [months]")]
Risk = Annotated[list[str] | None, typer.Option(help="TIME=COLUMN: the risk of an event until then")]
Cause = Annotated[
    list[str] | None, typer.Option(help="NAME=CODE in the column of events, of each cause; scores rank the first")
]
Horizon = Annotated[float | None, typer.Option(help="the time until which causes' scores are risks")]
Patient = Annotated[str | None, typer.Option(help="its column of patients [patient]")]
Group = Annotated[str | None, typer.Option(help="its column of folds; scores of different folds are not compared")]
Role = Annotated[str | None, typer.Option(help="its column of roles: train, select, report")]
Share = Annotated[float | None, typer.Option(help="of a cut that select rows set")]
Out = Annotated[Path | None, typer.Option(help="folder for report.json, report.html and figures")]
Resamples = Annotated[int | None, typer.Option(min=1, help="bootstrap resamples [2000]")]


def evaluate(
    run: Run = None,
    cohort: Cohort = None,
    features: Features = None,
    slides: Slides = None,
    predictions: Predictions = None,
    target: Target = None,
    score: Score = None,
    positive: Positive = None,
    ordered: Ordered = False,
    value: Value = None,
    time: Time = None,
    event: Event = None,
    unit: Unit = None,
    risk: Risk = None,
    cause: Cause = None,
    horizon: Horizon = None,
    patient: Patient = None,
    group: Group = None,
    role: Role = None,
    sensitivity: Share = None,
    specificity: Share = None,
    out: Out = None,
    resamples: Resamples = None,
) -> None:
    """Metrics with intervals, figures and a report: of a run, of a checkpoint elsewhere, of any software's predictions.

    A checkpoint is evaluated as it was frozen: nothing is fitted to the cohort. Which columns of a table of predictions
    are named says what it predicts.
    """
    from mil.cli import evaluations

    columns = Columns(
        target=target or (),
        score=score or (),
        positive=positive,
        ordered=ordered,
        value=value,
        time=time,
        event=event,
        unit=unit,
        risk=risk or (),
        cause=cause or (),
        horizon=horizon,
        patient=patient,
        group=group,
        role=role,
        sensitivity=sensitivity,
        specificity=specificity,
    )
    evaluations.evaluate(run, evaluations.Elsewhere(cohort, features, slides), predictions, columns, out, resamples)
