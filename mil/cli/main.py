"""The commands of `mil`: their options and help texts. Each calls the Python API and prints what it returns."""

import multiprocessing
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from mil import __version__, interruption, storage
from mil.cli import log_lines, plan_command, progress_bar, zoo_commands
from mil.cli.column_names import Column, columns_of
from mil.cli.complete import group_or_value, groups_help
from mil.cli.complete import tool as released
from mil.cli.error_lines import TRACEBACK, one_line, unexpected
from mil.cli.evaluate_command import OnBad, Slides, evaluate
from mil.cli.examples import FIRST_DAY, epilog
from mil.cli.explain_command import explain
from mil.cli.feature_options import BatchAxis, Layout, SlideMpp
from mil.cli.predict_command import predict
from mil.cli.runs_command import runs
from mil.errors import MilError
from mil.interruption import UNEXPECTED, Interrupted
from mil.memory import is_out_of_memory

if TYPE_CHECKING:
    from mil.study.run_config import RunConfig

app = typer.Typer(
    name="mil",
    help="A multiple-instance-learning model zoo for computational pathology.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,  # they would show locals, and with them patients
    rich_markup_mode=None,
)
app.add_typer(zoo_commands.app)
app.add_typer(plan_command.app)
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...", help="options of conf/, such as tool=msi-crc", autocompletion=group_or_value
    ),
]
Table = Annotated[
    str | None, typer.Option(help="which of several tables of features in one file: its name or its encoder's")
]
ConfigDir = Annotated[Path | None, typer.Option("--config-dir", help="a folder of your own, laid out like conf/")]


def main() -> None:
    """Run the command line: results go to stdout, an error becomes one line on stderr; see docs/exit-codes.md."""
    _limit_kernel_caches()
    log_lines.speak()
    try:
        with interruption.listening(), progress_bar.shown():
            app()
    except Interrupted as stop:
        sys.stderr.write(f"mil: {stop.line}\n")
        _leave(stop.exit_code)
    except Exception as error:
        if os.environ.get(TRACEBACK):
            traceback.print_exc()
        is_expected = isinstance(error, MilError | OSError) or is_out_of_memory(error)
        sys.stderr.write(f"mil: {one_line(error) if is_expected else unexpected(error)}\n")
        _leave(2 if is_expected else UNEXPECTED)


def _leave(code: int) -> NoReturn:
    """End the process, at once where a thread waits for storage that does not answer and would keep it for ever."""
    if storage.has_stuck():
        for child in multiprocessing.active_children():
            child.kill()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _limit_kernel_caches() -> None:
    """Limit how many kernels oneDNN keeps; torch reads the limits when it starts, which no module here has made it do.

    Bags have ever new shapes. oneDNN keeps the kernels that it compiled for the last 1,024 of them, up to a megabyte
    each, and more than that for bfloat16: 4.8 GB after 3,500 shapes, 0.4 GB with these limits. The blocks of
    `Bags.tilewise` need fewer than 128; with room for 16 a step takes 1.8 times as long.
    """
    for name, limit in (("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128"), ("LRU_CACHE_CAPACITY", "16")):
        os.environ.setdefault(name, limit)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(FIRST_DAY)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="a new folder")],
    name: Annotated[str | None, typer.Option(help="of the question, such as er-breast; default: the folder's")] = None,
    column: Annotated[str, typer.Option(help="column of the clinical table with the classes")] = "label",
    classes: Annotated[str, typer.Option(help="its words, of two the positive one last")] = "negative,positive",
    time: Annotated[str | None, typer.Option(help="for survival: the column of the time")] = None,
    event: Annotated[str | None, typer.Option(help="for survival: the column of the event")] = None,
) -> None:
    """Write the folder of a project with a question of your own: the tool, a table to fill in, and what to do next."""
    from mil.cli import init_command

    if (time is None) != (event is None):
        raise typer.BadParameter("--time and --event belong together")
    chosen = name or folder.resolve().name
    if time is not None and event is not None:
        question = init_command.survival(chosen, time, event)
    else:
        question = init_command.classes(chosen, column, classes)
    for line in init_command.write_project(folder, question):
        typer.echo(line)


@app.command()
def doctor() -> None:
    """Show versions, hardware, extras, disk and folders, for a report of a fault; nothing of patients."""
    from mil.cli import doctor_command

    doctor_command.show()


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="tools, models, encoders or endpoints; default: all")] = "",
) -> None:
    """List the tools, models, encoders and endpoints."""
    from mil.cli.list_command import show

    show(what)


@app.command("import")
def import_(
    kind: Annotated[str, typer.Argument(help="clam, feather, torchmil or xmil")],
    file: Annotated[Path, typer.Argument(help="weights: .pt, .pth or .safetensors")],
    out: Annotated[Path, typer.Option(help="a new or empty folder for the checkpoint")],
    encoder: Annotated[str, typer.Option(help="of the features that the weights were trained on")],
    classes: Annotated[str | None, typer.Option(help="of the logits, separated by commas")] = None,
    source: Annotated[str, typer.Option(help="who published the weights")] = "not stated",
    licence: Annotated[str, typer.Option(help="of the weights")] = "not stated",
) -> None:
    """Turn weights of other software into a checkpoint with the same outputs; nothing in the file is run."""
    from mil.inference.import_checkpoint import Origin, import_checkpoint

    names = tuple(name.strip() for name in classes.split(",")) if classes else ()
    manifest = import_checkpoint(kind, file, out, Origin(encoder, names, source, licence))
    head = "" if manifest.imported is None or manifest.imported.has_head else "; no classifier: train it"
    typer.echo(f"{manifest.model.name.rpartition('.')[2]}, {manifest.training.parameters:,} parameters{head}")
    typer.echo(out)


@app.command(context_settings=PASS_ON)
def simulate(
    out: Annotated[Path, typer.Argument(help="a new or empty folder")],
    words: Words = None,
    config_dir: ConfigDir = None,
) -> None:
    """Simulate a cohort: feature files as a real extractor writes them, cohort.csv and truth.csv."""
    from mil.output_places import check_output_folder
    from mil.simulation.simulated_cohort import UNFINISHED, write
    from mil.study import build

    unfinished = UNFINISHED if (out / UNFINISHED).is_file() else None  # of a process that was killed
    check_output_folder(out, [config_dir], unfinished, "OUT")
    write(build.simulation(_composed(words, config_dir)), out)
    typer.echo(str(out))


@app.command(context_settings=PASS_ON)
def federate(
    words: Words = None,
    config_dir: ConfigDir = None,
    resume: Annotated[Path | None, typer.Option(help="continue the federation in this run folder")] = None,
) -> None:
    """Train over several sites without moving a patient; without federation.sites over the simulated centres.

    Options are those of mil train, and federation.*: sites=[a,b,c], algorithm, minimum, secure, ...

    mil federate export OUT writes the folder of a job for NVIDIA FLARE, whose sites are named by federation.sites.

    mil federate site KIT lets a startup kit take part: data.cohort, data.features, out, minimum, secure, times, job.
    """
    from mil.cli import federate_command

    if resume is not None:
        federate_command.go_on(resume, words or ())
    else:
        federate_command.start(words or (), config_dir)


@app.command(context_settings=PASS_ON)
def check(
    words: Words = None,
    config_dir: ConfigDir = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="also read the features: NaN, zeros, copies, coordinates")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document instead of tables")] = False,
    workers: Annotated[int, typer.Option(min=1, help="processes that read files")] = 2,
    split: Annotated[
        Path | None, typer.Option(help="check only a split file, or a folder of splits_0.csv, ...")
    ] = None,
    column: Annotated[str | None, typer.Option("--id", help="column of patients in the split file")] = None,
) -> None:
    """Check cohort, features and split for a tool; writes nothing.

    Exit code 0: no findings; 1: warnings; 2: errors.
    """
    from mil.cli import check_command
    from mil.cluster.cluster_options import divided

    if split is None and column is not None:
        raise typer.BadParameter("--id needs --split")
    if split is not None and (words or deep):
        raise typer.BadParameter("--split checks a file alone, expected no options and no --deep")
    if split is not None:
        raise typer.Exit(check_command.check_split(split, column, as_json))
    _, words = divided(words or ())  # the words of a training may say where it is to run
    raise typer.Exit(check_command.check(_composed(words, config_dir), deep, as_json, workers))


@app.command()
def convert(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="a folder of feature files; of several encoders NAME=DIR,NAME=DIR")
    ],
    out: Annotated[Path, typer.Argument(help="the packed file to write, .h5")],
    dtype: Annotated[str | None, typer.Option(help="float16, float32 or bfloat16; default: as stored")] = None,
    on_bad: OnBad = "error",
    skip_bad: Annotated[bool, typer.Option("--skip-bad", hidden=True, help="the same as --on-bad skip")] = False,
    layout: Layout = None,
    batch_axis: BatchAxis = False,
    slide_mpp: SlideMpp = None,
    slides: Annotated[
        Path | None, typer.Option(help="a table of slides with the resolution of each: micrometres per pixel, mpp")
    ] = None,
    table: Table = None,
) -> None:
    """Pack a folder of feature files into one file that opens in milliseconds; use it as data.features."""
    from mil.cli import convert_command
    from mil.features.feature_folders import paths_of
    from mil.features.formats import Reading
    from mil.output_places import check_output_file

    check_output_file(out, [*paths_of(source), slides], "OUT")
    skip = skip_bad or on_bad == "skip"
    convert_command.convert(source, out, dtype, skip, Reading(layout, batch_axis, slide_mpp, table), slides)


@app.command(context_settings=PASS_ON, epilog=groups_help())
def train(
    words: Words = None,
    resume: Annotated[Path | None, typer.Option(help="continue a run that was stopped")] = None,
    accept_changes: Annotated[
        bool,
        typer.Option(
            "--accept-changes",
            help="continue although tables, split or features have changed since the run began; the report says so",
        ),
    ] = False,
    config_dir: ConfigDir = None,
) -> None:
    """Train on one split or all folds, evaluate, and write report and card; the last line printed is the run folder.

    Without options: the default tool on its simulated cohort. -m sweeps over comma-separated values (model=abmil,mean),
    --cfg job prints the configuration; these and all other flags are Hydra's.
    """
    from mil.cli import train_command

    if resume is not None:
        train_command.resume(resume, words or [], accept_changes)
    else:
        train_command.start(words or [], config_dir, accept_changes)


app.command()(runs)


@app.command(context_settings=PASS_ON)
def tune(
    out: Annotated[Path, typer.Argument(help="a new folder, or one of the same search, which then goes on")],
    words: Words = None,
    trials: Annotated[int, typer.Option(min=1, help="most trials of each search")] = 20,
    minutes: Annotated[float | None, typer.Option(help="no trial begins after so many minutes")] = None,
    inner: Annotated[int, typer.Option(min=1, help="inner folds that judge a trial; 1: the select patients")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="of what is proposed")] = 0,
    config_dir: ConfigDir = None,
) -> None:
    """Search options without the report patients, train the chosen ones, and report them (needs the extra tune).

    Options with several values are searched: model=abmil,simlp, optimizer.lr=interval(1e-4,1e-2), or with tag(log,
    interval(...)). Without any: model, learning rate, weight decay and epochs.
    """
    from mil.cli import tune_command
    from mil.runs.tuning import TuneOptions

    options = TuneOptions(trials=trials, minutes=minutes, inner=inner, seed=seed)
    tune_command.start(words or (), out, options, config_dir)


@app.command(context_settings=PASS_ON)
def propose(words: Words = None, config_dir: ConfigDir = None) -> None:
    """Propose model, learning rate, epochs and batch for a cohort from its numbers, with reasons; trains nothing."""
    from mil.cli import propose_command

    propose_command.show(words or (), config_dir)


app.command()(evaluate)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="run folders")],
    out: Annotated[Path | None, typer.Option(help="folder for leaderboard.csv, comparison.json and a figure")] = None,
    resamples: Annotated[int | None, typer.Option(min=1, help="bootstrap resamples; default: as the runs")] = None,
) -> None:
    """Compare runs on the same patients, with intervals of their differences."""
    from mil.cli import compare_command

    compare_command.compare(runs, out, resamples)


@app.command()
def site(
    run: Annotated[Path, typer.Argument(help="a run folder")],
    preserved: Annotated[
        Path | None, typer.Option(help="a run of the same tool and cohort whose folds are whole sites")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="folder for site.json and a figure")] = None,
    features: Annotated[Path | None, typer.Option(help="the feature files, if they have moved since")] = None,
    resamples: Annotated[int | None, typer.Option(min=1, help="bootstrap resamples; default: as the run")] = None,
) -> None:
    """Measure how well the site can be predicted from label, score, tile features and bag embedding."""
    from mil.cli import site_command as audit

    audit.site(run, preserved, out, features, resamples)


@app.command()
def select(sweep: Annotated[Path, typer.Argument(help="folder of a sweep (mil train -m ... split=nested)")]) -> None:
    """Select the configuration of each outer fold by its inner folds, for a sweep with split=nested."""
    from mil.cli import select_command

    select_command.select(sweep)


@app.command()
def calibrate(
    checkpoint: Annotated[str, typer.Argument(help="a checkpoint folder or a released tool", autocompletion=released)],
    cohort: Annotated[Path, typer.Option(help="a table of patients of the new site whose outcome is known")],
    features: Annotated[Path, typer.Option(help="their feature files")],
    out: Annotated[Path, typer.Option(help="folder for the recalibrated checkpoint")],
    slides: Slides = None,
    decision: Annotated[str | None, typer.Option(help="the decision to change, for a tool with several")] = None,
    sensitivity: Annotated[float | None, typer.Option(help="sensitivity to guarantee; default: the tool's")] = None,
    confidence: Annotated[float, typer.Option(help="confidence of the guarantee")] = 0.95,
    method: Annotated[
        str | None,
        typer.Option(
            "--calibration",
            help="recalibrate probabilities (platt, temperature, isotonic) or risks (baseline, baseline_slope) instead",
        ),
    ] = None,
    column: Column = None,
    key: zoo_commands.Key = None,
) -> None:
    """Set a checkpoint's threshold, or its calibration, by patients of a new site whose outcome is known."""
    from mil.cli import calibrate_command
    from mil.features.feature_folders import paths_of
    from mil.output_places import check_output_folder
    from mil.zoo.policy import check_origin
    from mil.zoo.registry import resolve

    folder = resolve(checkpoint)
    check_output_folder(out, [folder, *paths_of(features), cohort, slides])
    check_origin(folder, key)
    ids = columns_of(column)
    calibrate_command.calibrate(folder, features, cohort, slides, out, decision, sensitivity, confidence, method, ids)


app.command()(predict)
app.command()(explain)


@app.command()
def release(
    run: Annotated[Path, typer.Argument(help="a run folder")],
    version: Annotated[str, typer.Option(help="X.Y.Z")],
    out: Annotated[Path, typer.Option(help="folder of released tools")] = Path("model_cards"),
    fold: Annotated[int, typer.Option(help="fold whose checkpoint is released; not chosen by its score")] = 0,
    note: Annotated[str | None, typer.Option(help="what changed, for the changelog")] = None,
    date: Annotated[str | None, typer.Option(help="YYYY-MM-DD, for the changelog")] = None,
) -> None:
    """Release a checkpoint with its card under a version; prints which release gates pass."""
    zoo_commands.release(run, version, out, fold, note, date)


def _composed(words: Sequence[str] | None, config_dir: Path | None) -> "RunConfig":
    from mil.study.compose import compose

    return compose(words or (), config_dir)


def _add_examples(group: typer.Typer, prefix: str = "") -> None:
    for command in group.registered_commands:
        name = command.name or getattr(command.callback, "__name__", "")
        command.epilog = epilog(f"{prefix}{name}", [command.epilog] if command.epilog else ())


_add_examples(app)
_add_examples(zoo_commands.app, "zoo ")
_add_examples(plan_command.app, "plan ")
