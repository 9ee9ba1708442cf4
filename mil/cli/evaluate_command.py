"""The options of `mil evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from mil.cli.prediction_columns import Columns

Slides = Annotated[Path | None, typer.Option(help="table of slides, for a cohort with one row per patient")]
Run = Annotated[Path | None, typer.Argument(help="a run folder; with --cohort a checkpoint")]
Cohort = Annotated[Path | None, typer.Option(help="a labelled cohort that the checkpoint was not trained on")]
Features = Annotated[Path | None, typer.Option(help="feature files of that cohort")]
Predictions = Annotated[Path | None, typer.Option(help="a table of predictions of any software")]
Target = Annotated[
    list[str] | None, typer.Option(help="column of labels [label]; for several labels NAME=COLUMN for each")
]
Score = Annotated[
    list[str] | None,
    typer.Option(
        help="column of scores [score], larger for the positive class or the higher risk; "
        "CLASS=COLUMN for each class, NAME=COLUMN for each label or cause"
    ),
]
Positive = Annotated[str | None, typer.Option(help="the positive label [1]")]
Ordered = Annotated[bool, typer.Option("--ordered", help="classes are grades, the lowest first")]
Value = Annotated[str | None, typer.Option(help="column of predicted numbers; --target names the true ones")]
Time = Annotated[str | None, typer.Option(help="column of times (survival)")]
Event = Annotated[str | None, typer.Option(help="column of events [event]: 0 or 1, or 0 and codes of causes")]
Unit = Annotated[str | None, typer.Option(help="unit of time: days, months or years [months]")]
Risk = Annotated[list[str] | None, typer.Option(help="TIME=COLUMN: the risk of an event until TIME")]
Cause = Annotated[
    list[str] | None,
    typer.Option(help="NAME=CODE in the column of events, for each competing cause; the first is ranked"),
]
Horizon = Annotated[float | None, typer.Option(help="the time until which the scores of causes are risks")]
Patient = Annotated[str | None, typer.Option(help="column of patients [patient]")]
Group = Annotated[str | None, typer.Option(help="column of folds; scores of different folds are not compared")]
Role = Annotated[str | None, typer.Option(help="column of roles: train, select, report")]
Share = Annotated[float | None, typer.Option(help="sensitivity or specificity of a threshold set on select rows")]
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
    """Evaluate a run, a checkpoint on a new cohort, or predictions of any software.

    Nothing of a checkpoint is fitted to the new cohort. The columns that are named determine the kind of prediction.
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
