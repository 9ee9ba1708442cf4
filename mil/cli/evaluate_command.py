"""The options of `mil evaluate`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mil.cli.column_names import Column, columns_of
from mil.cli.report_place import say_where
from mil.cli.zoo_commands import Key
from mil.errors import ConfigError

if TYPE_CHECKING:
    from mil.checkpoint import Checkpoint
    from mil.report.prediction_columns import PredictionColumns
    from mil.report.schema import Report
    from mil.runs.evaluate import EvaluatedCohort
    from mil.zoo.attach import StatedCohort


Slides = Annotated[Path | None, typer.Option(help="table of slides, for a cohort with one row per patient")]
Run = Annotated[Path | None, typer.Argument(help="a run folder; with --cohort a checkpoint")]
Cohort = Annotated[Path | None, typer.Option(help="a labelled cohort, new to the checkpoint")]
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
OnBad = Annotated[
    Literal["error", "skip"],
    typer.Option(
        "--on-bad", help="slides that are missing, unreadable, empty or not finite: error, or skip and say which"
    ),
]
MaxTiles = Annotated[
    int | None, typer.Option(min=0, help="most tiles of a bag, taken at equal steps; 0: all, whatever they need")
]
Resamples = Annotated[int | None, typer.Option(min=1, help="bootstrap resamples [2000]")]

Instability = Annotated[bool, typer.Option("--instability", help="how much a run's models differ on the same patients")]
Seeds = Annotated[list[Path] | None, typer.Option(help="another seed's run; with --instability")]
Attach = Annotated[bool, typer.Option("--attach", help="add the result to a released folder")]
Name = Annotated[str | None, typer.Option(help="name of the cohort; with --attach")]
Centre = Annotated[str | None, typer.Option(help="where its patients were treated; with --attach")]
Dates = Annotated[str | None, typer.Option(help="when, such as '2019 to 2021'; with --attach")]
Simulated = Annotated[bool, typer.Option("--simulated", help="its patients are simulated; with --attach")]
Trained = Annotated[Path | None, typer.Option(help="the run that was released, to compare patients; with --attach")]
Date = Annotated[str | None, typer.Option(help="YYYY-MM-DD, for the changelog; with --attach")]
NOT_INSTABILITY = "not with --instability"


@dataclass(frozen=True)
class Attachment:
    """The options of `--attach`."""

    stated: "StatedCohort"
    trained: Path | None
    date: str | None

    def check(self, release: "Checkpoint") -> None:
        """Check before anything is predicted that the release can take the result.

        Raises:
            MilError: if it cannot.
        """
        from mil.zoo.release import check_attachable

        check_attachable(release, self.stated, self.trained)

    def attach(self, folder: Path, evaluated: "EvaluatedCohort") -> str:
        """Attach the result and return the version of the release."""
        from mil.zoo.release import attach_external

        return attach_external(folder, evaluated, self.stated, self.trained, self.date)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is evaluated: the options that are not about the columns of a table and not about an attachment."""

    run: Path | None
    cohort: Path | None
    features: Path | None
    slides: Path | None
    predictions: Path | None
    out: Path | None
    resamples: int | None
    column: list[str] | None
    on_bad: Literal["error", "skip"]
    key: Path | None

    def given(self, *names: str) -> list[str]:
        """Return those of the named options that the user gave."""
        return [name for name in names if getattr(self, name) not in (None, "error")]


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
    instability: Instability = False,
    seeds: Seeds = None,
    attach: Attach = False,
    name: Name = None,
    centre: Centre = None,
    dates: Dates = None,
    simulated: Simulated = False,
    trained: Trained = None,
    date: Date = None,
    column: Column = None,
    on_bad: OnBad = "error",
    key: Key = None,
) -> None:
    """Evaluate a run, a checkpoint on a new cohort, or predictions of any software.

    Nothing is fitted to a new cohort. The columns that are named determine the kind of prediction.
    With --attach the result joins a released folder.
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
    request = Request(
        run=run,
        cohort=cohort,
        features=features,
        slides=slides,
        predictions=predictions,
        out=out,
        resamples=resamples,
        column=column or None,
        on_bad=on_bad,
        key=key,
    )
    attachment = _attachment(attach, name, centre, dates, simulated, trained, date)
    if (run is None) == (predictions is None):
        raise ConfigError("mil evaluate: expected a run folder, a checkpoint or --predictions, one of them")
    if instability:
        _refuse([*columns.given, *request.given("predictions", "resamples", "on_bad", "column")], NOT_INSTABILITY)
        _evaluate_instability(request, seeds or [])
        return
    _refuse(["seeds"] if seeds else [], "goes with --instability")
    if attachment is not None:
        _refuse([] if cohort else ["attach"], "goes with a released folder and --cohort")
    _evaluate(request, columns, attachment)


def _evaluate(request: Request, columns: "PredictionColumns", attachment: Attachment | None) -> None:
    """Evaluate a table of predictions, a run, or a checkpoint on a cohort, as the options say.

    Raises:
        ConfigError: Options that do not go together.
    """
    external = request.given("cohort", "features", "slides", "key", "on_bad", "column")
    if request.predictions is not None:
        _refuse(external, "goes with a checkpoint, not with --predictions")
        _evaluate_table(request.predictions, columns, request.out, request.resamples)
        return
    assert request.run is not None
    _refuse(columns.given, "is of a table, expected --predictions FILE")
    if request.cohort is None:
        unused = [*external, *request.given("out", "resamples")]
        _refuse(unused, "goes with --cohort or --predictions; a run has its own")
        _evaluate_run(request.run)
        return
    if request.features is None or request.out is None:
        raise ConfigError("--cohort: expected --features and --out beside it")
    _evaluate_checkpoint(request, request.cohort, request.features, request.out, attachment)


def _attachment(
    attach: bool,
    name: str | None,
    centre: str | None,
    dates: str | None,
    simulated: bool,
    trained: Path | None,
    date: str | None,
) -> Attachment | None:
    given = _given(name=name, centre=centre, dates=dates, simulated=simulated or None, trained=trained, date=date)
    if not attach:
        _refuse(given, "goes with --attach")
        return None
    from mil.storage import special_kind
    from mil.zoo.attach import StatedCohort

    if trained is not None and not trained.is_dir():
        kind = special_kind(trained) or ("a file" if trained.exists() else "not there")
        raise ConfigError(f"--trained {trained}: is {kind}, expected the folder of the run that was released")
    if name is None:
        raise ConfigError("--attach: expected --name, the name of the cohort")
    return Attachment(StatedCohort(name, centre, dates, simulated), trained, date)


def _given(**options: object) -> list[str]:
    return [name for name, value in options.items() if value is not None]


def _refuse(options: list[str], reason: str) -> None:
    if options:
        raise ConfigError(f"--{options[0].replace('_', '-')}: {reason}")


def _evaluate_run(folder: Path) -> None:
    from mil.runs.describe import PAGE
    from mil.runs.evaluate import evaluate_run

    _print_report(evaluate_run(folder))
    say_where(folder / PAGE)


def _evaluate_checkpoint(
    request: Request, cohort: Path, features: Path, out: Path, attachment: Attachment | None
) -> None:
    from mil import checkpoint
    from mil.runs.describe import PAGE
    from mil.runs.evaluate import RESAMPLES, evaluate_checkpoint
    from mil.zoo.policy import check_origin
    from mil.zoo.registry import resolve

    folder, columns = resolve(str(request.run)), columns_of(request.column)
    check_origin(folder, request.key)
    loaded = checkpoint.load(folder)
    if attachment is not None:
        attachment.check(loaded)
    resamples = request.resamples or RESAMPLES
    evaluated = evaluate_checkpoint(loaded, cohort, features, request.slides, out, resamples, request.on_bad, columns)
    _print_report(evaluated.report)
    _print(f"withheld: {evaluated.report.about.withheld}", *_skipped_lines(evaluated), str(out))
    say_where(out / PAGE)
    if attachment is not None:
        version = attachment.attach(folder, evaluated)
        _print(f"attached as external validation of {loaded.manifest.tool.name} {version}", str(folder))


def _skipped_lines(evaluated: "EvaluatedCohort") -> list[str]:
    if evaluated.skipped.empty:
        return []
    patients = f"{len(evaluated.skipped)} patients with slides that cannot be used"
    return [f"skipped: {patients}, {evaluated.without_slides} of them have no result; see skipped.csv"]


def _evaluate_instability(request: Request, seeds: list[Path]) -> None:
    from mil.cards import SIMULATED
    from mil.report.sections.prediction_instability import FOLDER
    from mil.runs.instability_run import evaluate_instability
    from mil.runs.states import checkpoints_in
    from mil.zoo.policy import check_origin

    run, cohort, features = request.run, request.cohort, request.features
    if run is None or (cohort is None) != (features is None):
        raise ConfigError("--instability: expected a run folder, and --cohort with --features or neither")
    if cohort is not None:  # models are loaded; otherwise predictions are read alone
        for place in (place for folder in (run, *seeds) for place in checkpoints_in(folder).values()):
            check_origin(place, request.key)
    result = evaluate_instability(run, seeds, cohort, features, request.slides, request.out)
    if result.simulated:
        typer.echo(SIMULATED, err=True)
    _print(*result.lines(), str(request.out or run / FOLDER))


def _evaluate_table(path: Path, columns: "PredictionColumns", out: Path | None, resamples: int | None) -> None:
    from mil.runs.describe import PAGE
    from mil.runs.evaluate import RESAMPLES, evaluate_table

    evaluated = evaluate_table(path, columns, out, resamples or RESAMPLES)
    _print(*evaluated.notes)
    _print_report(evaluated.report)
    if out is not None:
        say_where(out / PAGE)


def _print_report(report: "Report") -> None:
    from mil.cards import SIMULATED
    from mil.runs.describe import headline

    if report.about.simulated:
        typer.echo(SIMULATED, err=True)
    _print(*headline(report))


def _print(*lines: str) -> None:
    for line in lines:
        typer.echo(line)
