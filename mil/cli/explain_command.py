"""The options of `mil explain`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mil.cli.column_names import Column, columns_of
from mil.cli.complete import tool as released
from mil.cli.evaluate_command import MaxTiles, OnBad, Slides
from mil.cli.report_place import say_where
from mil.cli.zoo_commands import Key
from mil.errors import ConfigError
from mil.features.feature_folders import paths_of

if TYPE_CHECKING:
    from mil.cluster.cluster_options import ClusterOptions
    from mil.cohort.columns import Columns
    from mil.explain.explain_patients import Request
    from mil.explain.writers import FileChoices


def explain(
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            autocompletion=released,
            help="a run, whose report patients are explained; or a checkpoint folder or released tool; several "
            "checkpoints of a tool give the mean of their maps and how far they disagree",
        ),
    ],
    features: Annotated[Path | None, typer.Option(help="folder of feature files; a run has its own")] = None,
    out: Annotated[Path | None, typer.Option(help="folder to write; default for a run: RUN/explain")] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="single [default], contribution, integrated_gradients, shapley, leave_one_out, lrp, attention"
        ),
    ] = None,
    output: Annotated[str | None, typer.Option(help="the only output to explain, such as a class")] = None,
    cohort: Annotated[Path | None, typer.Option(help="table with columns patient and slide")] = None,
    slides: Slides = None,
    scans: Annotated[
        Path | None, typer.Option(help="folder of the scans of the slides: maps over thumbnails, pictures of tiles")
    ] = None,
    patients: Annotated[list[str] | None, typer.Option(help="the only patients to explain; several times")] = None,
    most: Annotated[
        int | None, typer.Option(min=1, help="of a run: explain no more patients, some of each kind of error")
    ] = None,
    measure: Annotated[
        int | None,
        typer.Option(min=0, help="of a run: measure whether maps can be believed on so many patients [40]; 0: do not"),
    ] = None,
    cases: Annotated[bool, typer.Option("--cases", help="of a run: a page for each patient, misses first")] = False,
    file_format: Annotated[
        list[str] | None,
        typer.Option("--format", help="parquet, csv, geojson, dsa, dicom, figures, top; several times"),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="top and bottom tiles that are listed")] = 20,
    merge: Annotated[bool, typer.Option("--merge", help="join tiles of one colour step in QuPath files")] = False,
    group: Annotated[
        int, typer.Option(min=0, help="nearest neighbours taken with a tile by single and leave_one_out")
    ] = 0,
    permutations: Annotated[int, typer.Option(min=2, help="random orders of shapley")] = 64,
    column: Column = None,
    on_bad: OnBad = "error",
    max_tiles: MaxTiles = None,
    key: Key = None,
) -> None:
    """Score every tile: what speaks for the prediction and what against it."""
    from mil.cluster.cluster_options import divided, options_in
    from mil.explain.explain_patients import Request
    from mil.explain.methods import DEFAULT, MethodOptions, scorers_of
    from mil.explain.writers import FileChoices
    from mil.output_places import RUN

    request = Request(
        methods=tuple(method or (DEFAULT,)),
        output=output,
        patients=patients,
        options=MethodOptions(group=group, permutations=permutations),
        on_bad=on_bad,
        max_tiles=max_tiles,
    )
    scorers_of(request.methods)
    choices = FileChoices(formats=file_format, scans=scans, merge=merge, top=top)
    about_cluster, checkpoints = divided(checkpoints)
    cluster = options_in(about_cluster)
    if not checkpoints:
        raise typer.BadParameter("no checkpoint, expected a run, a checkpoint folder or a released tool")
    first = Path(checkpoints[0])
    if len(checkpoints) == 1 and (first / RUN).is_file():
        _refuse_inputs(features, cohort, slides, column)
        _explain_run(first, request, choices, out, most, cases, measure, cluster)
        return
    if features is None or out is None:
        raise ConfigError(f"{checkpoints[0]}: is no run, expected --features and --out with a checkpoint or a tool")
    if cases or most is not None or measure is not None:
        raise ConfigError("--cases, --most and --measure: are about a run's report patients, expected a run folder")
    inputs = (features, cohort, slides)
    _explain_checkpoints(checkpoints, inputs, request, choices, out, columns_of(column), key, cluster)


def _explain_run(
    run: Path,
    request: "Request",
    choices: "FileChoices",
    out: Path | None,
    most: int | None,
    cases: bool,
    measure: int | None,
    cluster: "ClusterOptions | None",
) -> None:
    """Explain report patients of a run, here or as jobs, and print where the result lies."""
    from mil.explain.faithfulness import FILE as EXPLAIN
    from mil.output_places import check_output_folder
    from mil.runs.explain_report import explain_report, explanation_of
    from mil.runs.faithfulness_run import MOST
    from mil.runs.run import open_run
    from mil.runs.run_inputs import with_recorded

    if out is not None:
        check_output_folder(out, [*with_recorded([run]), choices.scans], EXPLAIN)
    measured = MOST if measure is None else measure
    if cluster is not None:
        from mil.cluster.sharded_run_explanation import submit_run_explanation

        opened = open_run(run.absolute())
        work = explanation_of(opened, request, None if out is None else out.absolute(), most, cases, choices, measured)
        submit_run_explanation(opened, work, cluster)
        typer.echo(str(out or work.place))
        return
    place = explain_report(run, request, out, most, cases, choices, measure=measured)
    typer.echo(str(place))
    say_where(place)


def _explain_checkpoints(
    names: Sequence[str],
    inputs: tuple[Path, Path | None, Path | None],
    request: "Request",
    choices: "FileChoices",
    out: Path,
    columns: "Columns | None",
    key: Path | None,
    cluster: "ClusterOptions | None",
) -> None:
    """Explain what checkpoints of one tool predict for a cohort; `inputs` are features, cohort and slides."""
    from mil.cluster.sharded_explanation import ExplainRequest, submit_explanation
    from mil.output_places import check_output_folder
    from mil.runs.explain_run import EXPLAIN, explain_checkpoint
    from mil.zoo.predictor import load

    loaded = [load(name, key=key).checkpoint for name in names]
    features, cohort, slides = inputs
    read = [*paths_of(features), cohort, slides, choices.scans, *(each.folder for each in loaded)]
    check_output_folder(out, read, EXPLAIN)
    if cluster is not None:
        cluster_request = ExplainRequest(tuple(names), features, cohort, slides, request, choices, columns, key)
        submit_explanation(cluster_request, out, cluster)
    else:
        explain_checkpoint(loaded, features, out, cohort, slides, request, choices, columns)
    typer.echo(str(out))


def _refuse_inputs(features: Path | None, cohort: Path | None, slides: Path | None, column: list[str] | None) -> None:
    """Refuse inputs beside a run, which knows its own.

    Raises:
        ConfigError: one is given.
    """
    named = {"--features": features, "--cohort": cohort, "--slides": slides, "--column": column}
    if given := [name for name, path in named.items() if path]:
        raise ConfigError(f"{given[0]}: a run knows its features and its cohort, expected a checkpoint of it instead")
