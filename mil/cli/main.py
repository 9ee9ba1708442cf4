"""The verbs, and what happens to errors: one line on stderr, exit code 2."""

import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from mil import __version__
from mil.cli.complete import group_or_value, groups_help
from mil.cli.errors import told
from mil.errors import MilError

app = typer.Typer(
    name="mil",
    help="A multiple-instance-learning model zoo for computational pathology.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they would show locals, and with them patients
    rich_markup_mode=None,
)
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="options, as in conf/", autocompletion=group_or_value),
]
ConfigDir = Annotated[Path | None, typer.Option("--config-dir", help="a folder of your own beside conf/")]


def main() -> None:
    """What the shell calls."""
    _speak()
    try:
        app()
    except (MilError, OSError) as error:
        sys.stderr.write(f"mil: {told(error)}\n")
        sys.exit(2)


def _speak() -> None:
    """Progress and warnings go to stderr, results to stdout."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines())
    log = logging.getLogger("mil")
    log.handlers = [handler]
    log.setLevel(logging.INFO)
    # Lightning 2.6.6 calls what torch 2.13 deprecates; no user can mend that
    warnings.filterwarnings("ignore", "`isinstance\\(treespec, LeafSpec\\)` is deprecated", module="lightning")


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        return f"warning: {line}" if record.levelno >= logging.WARNING else line


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print it and stop")
    ] = False,
) -> None:
    pass


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="tools, models, encoders or endpoints; all where left out")] = "",
) -> None:
    """What the zoo holds."""
    from mil.cli.listing import show

    show(what)


@app.command(context_settings=PASS_ON)
def simulate(
    out: Annotated[Path, typer.Argument(help="a new or empty folder")],
    words: Words = None,
    config_dir: ConfigDir = None,
) -> None:
    """Make a simulated cohort: feature files in a producer's real layout, cohort.csv, truth.csv."""
    from mil import build
    from mil.simulation.cohort import write

    write(build.simulation(_composed(words, config_dir)), out)
    typer.echo(str(out))


@app.command(context_settings=PASS_ON)
def check(words: Words = None, config_dir: ConfigDir = None) -> None:
    """Try cohort, features and split against a tool; writes nothing."""
    from mil.cli.preflight import show

    show(_composed(words, config_dir))


@app.command(context_settings=PASS_ON, epilog=groups_help())
def train(
    words: Words = None,
    resume: Annotated[Path | None, typer.Option(help="go on with a run folder that was stopped")] = None,
    config_dir: ConfigDir = None,
) -> None:
    """Fit one split or all folds, evaluate, write the card; prints the run folder last.

    With no words: the default tool on its simulated cohort. -m sweeps over comma-separated values (model=abmil,mean);
    --cfg job prints the configuration; these and all other flags are Hydra's own.
    """
    from mil.cli import training

    if resume is not None:
        training.resume(resume, words or [])
    else:
        training.start(words or [], config_dir)


@app.command()
def evaluate(
    run: Annotated[Path | None, typer.Argument(help="a run folder")] = None,
    predictions: Annotated[Path | None, typer.Option(help="a table of predictions made elsewhere")] = None,
    target: Annotated[str, typer.Option(help="its column of labels")] = "label",
    score: Annotated[
        str, typer.Option(help="its column of scores, larger for the positive class or the higher risk")
    ] = "score",
    positive: Annotated[str, typer.Option(help="the label that scores are of")] = "1",
    time: Annotated[str | None, typer.Option(help="its column of times: survival")] = None,
    event: Annotated[str, typer.Option(help="its column of events, 0 or 1")] = "event",
    patient: Annotated[str, typer.Option(help="its column of patients")] = "patient",
    group: Annotated[
        str | None, typer.Option(help="its column of folds; scores of different folds are not compared")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="folder for report.json and figures")] = None,
    resamples: Annotated[int, typer.Option(min=1, help="bootstrap resamples")] = 2000,
) -> None:
    """Metrics with intervals, figures and report.json: of a run, or of any software's predictions."""
    from mil.cli import evaluation

    if (run is None) == (predictions is None):
        raise typer.BadParameter("give a run folder or --predictions, one of the two")
    if run is not None:
        evaluation.of_run(run)
    elif predictions is not None:
        columns = evaluation.Columns(target, score, positive, time, event, patient, group)
        evaluation.of_table(predictions, columns, out, resamples)


@app.command()
def predict(
    checkpoint: Annotated[Path, typer.Argument(help="a checkpoint folder")],
    features: Annotated[Path, typer.Option(help="folder of feature files")],
    out: Annotated[Path, typer.Option(help="the table to write, CSV")],
    cohort: Annotated[
        Path | None, typer.Option(help="table patient, slide: slides of a patient are scored together")
    ] = None,
    tiles: Annotated[Path | None, typer.Option(help="folder for a table a slide: x, y, attention")] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="a class outside this package that the checkpoint may use")
    ] = None,
) -> None:
    """Score slides without labels."""
    from mil import checkpoint as checkpoints
    from mil import files
    from mil.inference.predict import predict as score

    table = score(checkpoints.load(checkpoint, allow or ()), features, cohort, tiles)
    files.write(out, table.to_csv(index=False))
    typer.echo(str(out))


@app.command()
def release(
    run: Annotated[Path, typer.Argument(help="a run folder")],
    version: Annotated[str, typer.Option(help="X.Y.Z")],
    out: Annotated[Path, typer.Option(help="folder of released tools")] = Path("model_cards"),
    fold: Annotated[
        int, typer.Option(help="which fold's checkpoint, of a run with several; never chosen by its score")
    ] = 0,
) -> None:
    """A checkpoint folder with its card, under a version."""
    from mil.zoo.release import release as publish

    typer.echo(str(publish(run, version, out, fold)))


def _composed(words: Sequence[str] | None, config_dir: Path | None) -> Any:
    from mil import build, config

    return config.compose(build.prepared(list(words or ()), config_dir), config_dir)
