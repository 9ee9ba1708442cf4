"""`mil evaluate` as it is typed: its options."""

from pathlib import Path
from typing import Annotated

import typer

from mil.cli.columns import Columns

Slides = Annotated[Path | None, typer.Option(help="table of slides beside a cohort of one row a patient")]


def evaluate(
    run: Annotated[Path | None, typer.Argument(help="a run folder, or with --cohort a checkpoint")] = None,
    cohort: Annotated[Path | None, typer.Option(help="a cohort with labels that the checkpoint has not seen")] = None,
    features: Annotated[Path | None, typer.Option(help="its feature files")] = None,
    slides: Slides = None,
    predictions: Annotated[Path | None, typer.Option(help="a table of predictions made elsewhere")] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="its column of labels [label]; for several labels NAME=COLUMN for each")
    ] = None,
    score: Annotated[
        list[str] | None,
        typer.Option(
            help="its column of scores [score], larger for the positive class or the higher risk; "
            "CLASS=COLUMN for each class, NAME=COLUMN for each label or cause"
        ),
    ] = None,
    positive: Annotated[str | None, typer.Option(help="the label that scores are of [1]")] = None,
    ordered: Annotated[bool, typer.Option("--ordered", help="classes are grades, the lowest first")] = False,
    value: Annotated[
        str | None, typer.Option(help="its column of predicted numbers; --target has the true ones")
    ] = None,
    time: Annotated[str | None, typer.Option(help="its column of times: survival")] = None,
    event: Annotated[str | None, typer.Option(help="its column of events [event], 0 or 1, or 0 and causes")] = None,
    unit: Annotated[str | None, typer.Option(help="of time: days, months or years [months]")] = None,
    risk: Annotated[list[str] | None, typer.Option(help="TIME=COLUMN: the risk of an event until then")] = None,
    cause: Annotated[
        list[str] | None, typer.Option(help="NAME=CODE in the column of events, of each cause; scores rank the first")
    ] = None,
    horizon: Annotated[float | None, typer.Option(help="the time until which causes' scores are risks")] = None,
    patient: Annotated[str | None, typer.Option(help="its column of patients [patient]")] = None,
    group: Annotated[
        str | None, typer.Option(help="its column of folds; scores of different folds are not compared")
    ] = None,
    role: Annotated[str | None, typer.Option(help="its column of roles: train, select, report")] = None,
    sensitivity: Annotated[float | None, typer.Option(help="of a cut that select rows set")] = None,
    specificity: Annotated[float | None, typer.Option(help="of a cut that select rows set")] = None,
    out: Annotated[Path | None, typer.Option(help="folder for report.json, report.html and figures")] = None,
    resamples: Annotated[int | None, typer.Option(min=1, help="bootstrap resamples [2000]")] = None,
) -> None:
    """Metrics with intervals, figures and a report: of a run, of a checkpoint elsewhere, of any software's predictions.

    A checkpoint is evaluated as it was frozen: nothing is fitted to the cohort. Which columns of a table of predictions
    are named says what it predicts.
    """
    from mil.cli import evaluation

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
    cohorts = evaluation.Elsewhere(cohort, features, slides)
    evaluation.evaluate(run, cohorts, predictions, columns, out, resamples)
