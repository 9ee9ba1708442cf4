"""The options of `mil evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mil.errors import ConfigError

if TYPE_CHECKING:
    from mil.report.prediction_columns import PredictionColumns


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
    from mil.report.prediction_columns import PredictionColumns

    columns = PredictionColumns(
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
    external = _given(cohort=cohort, features=features, slides=slides)
    if (run is None) == (predictions is None):
        raise ConfigError("mil evaluate: expected a run folder, a checkpoint or --predictions, one of them")
    if predictions is not None:
        _refuse(external, "goes with a checkpoint, not with --predictions")
        _evaluate_table(predictions, columns, out, resamples)
        return
    assert run is not None
    _refuse(columns.given, "is of a table, expected --predictions FILE")
    if cohort is None:
        _refuse(
            [*external, *_given(out=out, resamples=resamples)], "goes with --cohort or --predictions; a run has its own"
        )
        _evaluate_run(run)
        return
    if features is None or out is None:
        raise ConfigError("--cohort: expected --features and --out beside it")
    _evaluate_checkpoint(run, cohort, features, slides, out, resamples)


def _given(**options: object) -> list[str]:
    return [name for name, value in options.items() if value is not None]


def _refuse(options: list[str], reason: str) -> None:
    if options:
        raise ConfigError(f"--{options[0]}: {reason}")


def _evaluate_run(folder: Path) -> None:
    from mil.runs.describe import headline
    from mil.runs.evaluate import evaluate_run

    _print(*headline(evaluate_run(folder)))


def _evaluate_checkpoint(
    folder: Path, cohort: Path, features: Path, slides: Path | None, out: Path, resamples: int | None
) -> None:
    from mil import checkpoint
    from mil.runs.describe import headline
    from mil.runs.evaluate import RESAMPLES, evaluate_checkpoint

    report = evaluate_checkpoint(checkpoint.load(folder), cohort, features, slides, out, resamples or RESAMPLES)
    _print(*headline(report), f"withheld: {report.about.withheld}", str(out))


def _evaluate_table(path: Path, columns: "PredictionColumns", out: Path | None, resamples: int | None) -> None:
    from mil.runs.describe import headline
    from mil.runs.evaluate import RESAMPLES, evaluate_table

    evaluated = evaluate_table(path, columns, out, resamples or RESAMPLES)
    _print(*evaluated.notes, *headline(evaluated.report))


def _print(*lines: str) -> None:
    for line in lines:
        typer.echo(line)
