"""The verbs, and what happens to errors: one line on stderr, exit code 2."""

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mil import __version__
from mil.cli import zoo_commands
from mil.cli.complete import group_or_value, groups_help
from mil.cli.error_lines import told
from mil.cli.evaluate_command import Slides, evaluate
from mil.errors import MilError

if TYPE_CHECKING:
    from mil.study.config import RunConfig

app = typer.Typer(
    name="mil",
    help="A multiple-instance-learning model zoo for computational pathology.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they would show locals, and with them patients
    rich_markup_mode=None,
)
app.add_typer(zoo_commands.app)
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="options, as in conf/", autocompletion=group_or_value),
]
Layout = Annotated[str | None, typer.Option(help="the producer's layout, where the content leaves it open")]
BatchAxis = Annotated[bool, typer.Option("--batch-axis", help="accept features [1, tiles, width]")]
SlideMpp = Annotated[float | None, typer.Option(help="micrometres a level-0 pixel, where positions are in micrometres")]
ConfigDir = Annotated[Path | None, typer.Option("--config-dir", help="a folder of your own beside conf/")]


def main() -> None:
    """Run the command line: results go to stdout, an error becomes one line on stderr and exit code 2."""
    _limit_kernel_caches()
    _speak()
    try:
        app()
    except (MilError, OSError) as error:
        sys.stderr.write(f"mil: {told(error)}\n")
        sys.exit(2)


def _limit_kernel_caches() -> None:
    """Limit how many kernels oneDNN keeps; torch reads the limits when it starts, which no module here has made it do.

    Bags have ever new shapes. oneDNN keeps the kernels that it compiled for the last 1,024 of them, up to a megabyte
    each, and more than that for bfloat16: 4.8 GB after 3,500 shapes, 0.4 GB with these limits. The blocks of
    `Bags.tilewise` need fewer than 128; with room for 16 a step takes 1.8 times as long.
    """
    for name, limit in (("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128"), ("LRU_CACHE_CAPACITY", "16")):
        os.environ.setdefault(name, limit)


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
    from mil.cli.list_command import show

    show(what)


@app.command(context_settings=PASS_ON)
def simulate(
    out: Annotated[Path, typer.Argument(help="a new or empty folder")],
    words: Words = None,
    config_dir: ConfigDir = None,
) -> None:
    """Make a simulated cohort: feature files in a producer's real layout, cohort.csv, truth.csv."""
    from mil.simulation.simulated_cohort import write
    from mil.study import build

    write(build.simulation(_composed(words, config_dir)), out)
    typer.echo(str(out))


@app.command(context_settings=PASS_ON)
def check(
    words: Words = None,
    config_dir: ConfigDir = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="read the features too: NaN, zeros, copies, coordinates")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document instead of tables")] = False,
    workers: Annotated[int, typer.Option(min=1, help="processes that read files")] = 2,
    split: Annotated[
        Path | None, typer.Option(help="look at a split file alone, or a folder of splits_0.csv, ...")
    ] = None,
    column: Annotated[str | None, typer.Option("--id", help="its column of patients")] = None,
) -> None:
    """Try cohort, features and split against a tool; writes nothing.

    Ends with 0 where nothing is wrong, 1 after warnings, 2 after errors.
    """
    from mil.cli import check_command

    if split is None and column is not None:
        raise typer.BadParameter("--id goes with --split")
    if split is not None and (words or deep):
        raise typer.BadParameter("--split looks at a file alone, without options and --deep")
    if split is not None:
        raise typer.Exit(check_command.check_split(split, column, as_json))
    raise typer.Exit(check_command.check(_composed(words, config_dir), deep, as_json, workers))


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="a folder of feature files, of any producer")],
    out: Annotated[Path, typer.Argument(help="the packed file to write, .h5")],
    dtype: Annotated[str | None, typer.Option(help="float16, float32 or bfloat16; as stored where left out")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="leave unreadable slides out, counted")] = False,
    layout: Layout = None,
    batch_axis: BatchAxis = False,
    slide_mpp: SlideMpp = None,
) -> None:
    """Pack any readable folder of features into one file that opens in milliseconds; data.features takes it."""
    from mil.cli import convert_command
    from mil.features.formats import Reading

    convert_command.convert(source, out, dtype, skip_bad, Reading(layout, batch_axis, slide_mpp))


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
    from mil.cli import train_command

    if resume is not None:
        train_command.resume(resume, words or [])
    else:
        train_command.start(words or [], config_dir)


app.command()(evaluate)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="run folders")],
    out: Annotated[Path | None, typer.Option(help="folder for leaderboard.csv, comparison.json and a figure")] = None,
    resamples: Annotated[int | None, typer.Option(min=1, help="bootstrap resamples; as the runs have them")] = None,
) -> None:
    """Runs beside each other on the same patients: who leads, and whether the difference is one."""
    from mil.cli import compare_command

    compare_command.compare(runs, out, resamples)


@app.command()
def site(
    run: Annotated[Path, typer.Argument(help="a run folder")],
    preserved: Annotated[
        Path | None, typer.Option(help="a run of the same tool and cohort, its folds of whole sites")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="folder for site.json and a figure")] = None,
    features: Annotated[Path | None, typer.Option(help="the feature files, where they have moved")] = None,
    resamples: Annotated[int | None, typer.Option(min=1, help="bootstrap resamples; as the run has them")] = None,
) -> None:
    """Is it the tissue's or the site's: how well label, score, encoder and bag embedding tell the site of a patient."""
    from mil.cli import site_command as audit

    audit.site(run, preserved, out, features, resamples)


@app.command()
def select(sweep: Annotated[Path, typer.Argument(help="folder of a sweep with split=nested")]) -> None:
    """Choose a configuration for each outer part by its inner folds; the outer patients are predicted by that one."""
    from mil.cli import select_command

    select_command.select(sweep)


@app.command()
def calibrate(
    checkpoint: Annotated[str, typer.Argument(help="a checkpoint folder or a released tool")],
    cohort: Annotated[Path, typer.Option(help="a table with known positives, or outcomes, of the new place")],
    features: Annotated[Path, typer.Option(help="their feature files")],
    out: Annotated[Path, typer.Option(help="folder of the checkpoint with its new cut or calibration")],
    slides: Slides = None,
    decision: Annotated[str | None, typer.Option(help="which, of a tool with several")] = None,
    sensitivity: Annotated[float | None, typer.Option(help="to promise; as the tool has it where left out")] = None,
    confidence: Annotated[float, typer.Option(help="how often the promise holds")] = 0.95,
    method: Annotated[
        str | None,
        typer.Option(
            "--calibration",
            help="put probabilities (platt, temperature, isotonic) or risks (baseline, baseline_slope) right instead",
        ),
    ] = None,
) -> None:
    """Set a checkpoint's cut by known positives, and say what they promise; or its calibration by what is known."""
    from mil.cli import calibrate_command
    from mil.zoo.registry import resolve

    calibrate_command.calibrate(
        resolve(checkpoint), features, cohort, slides, out, decision, sensitivity, confidence, method
    )


@app.command()
def predict(
    checkpoint: Annotated[list[str], typer.Argument(help="checkpoint folders or released tools; of several the mean")],
    features: Annotated[Path, typer.Option(help="folder of feature files")],
    out: Annotated[Path, typer.Option(help="the table to write, CSV")],
    cohort: Annotated[
        Path | None, typer.Option(help="table patient, slide: slides of a patient are scored together")
    ] = None,
    slides: Slides = None,
    tiles: Annotated[Path | None, typer.Option(help="folder for a table a slide: x, y, attention")] = None,
    layout: Layout = None,
    batch_axis: BatchAxis = False,
    slide_mpp: SlideMpp = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="a class outside this package that the checkpoint may use")
    ] = None,
) -> None:
    """Score slides without labels; files that leave something open are read as in training, unless told otherwise."""
    from mil import checkpoint as checkpoints
    from mil import files
    from mil.features.formats import Reading
    from mil.inference.ensemble import ensemble
    from mil.inference.predict import predict as score
    from mil.zoo.registry import resolve

    loaded = [checkpoints.load(resolve(place), allow or ()) for place in checkpoint]
    said = loaded[0].reading
    reading = Reading(layout or said.layout, batch_axis or said.batch_axis, slide_mpp or said.slide_mpp)
    if len(loaded) > 1 and tiles is not None:
        raise typer.BadParameter("--tiles is one checkpoint's attention, expected one checkpoint")
    if len(loaded) > 1:
        table = ensemble(loaded, features, cohort, slides=slides, reading=reading)
    else:
        table = score(loaded[0], features, cohort, slides=slides, tiles=tiles, reading=reading)
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
    note: Annotated[str | None, typer.Option(help="what changed, for the changelog")] = None,
    date: Annotated[str | None, typer.Option(help="YYYY-MM-DD, for the changelog")] = None,
) -> None:
    """A checkpoint folder with its card, under a version; says which release gates hold."""
    zoo_commands.release(run, version, out, fold, note, date)


def _composed(words: Sequence[str] | None, config_dir: Path | None) -> "RunConfig":
    from mil.study.compose import compose

    return compose(words or (), config_dir)
