"""The options of `mil explain`."""

from pathlib import Path
from typing import Annotated

import typer

from mil.cli.evaluate_command import Slides
from mil.cli.zoo_commands import Key
from mil.errors import ConfigError


def explain(
    checkpoint: Annotated[
        str, typer.Argument(help="a checkpoint folder, a released tool, or a run: its report patients are explained")
    ],
    features: Annotated[Path | None, typer.Option(help="folder of feature files; a run has its own")] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder to write: tables, maps and explain.json; default for a run: RUN/explain")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="single (default), contribution, attention, ...; may be given several times"),
    ] = None,
    output: Annotated[
        str | None, typer.Option(help="the only output to explain, such as a class; default: all")
    ] = None,
    cohort: Annotated[
        Path | None, typer.Option(help="table with columns patient and slide: slides of a patient are scored together")
    ] = None,
    slides: Slides = None,
    scans: Annotated[
        Path | None, typer.Option(help="folder of the scans of the slides: maps over thumbnails, pictures of tiles")
    ] = None,
    patients: Annotated[list[str] | None, typer.Option(help="the only patients to explain")] = None,
    most: Annotated[
        int | None,
        typer.Option(min=1, help="of a run: explain no more patients, some of each kind of error"),
    ] = None,
    cases: Annotated[
        bool,
        typer.Option("--cases", help="of a run: a page for each patient, and an index with the misses first"),
    ] = False,
    file_format: Annotated[
        list[str] | None,
        typer.Option("--format", help="parquet, csv, geojson, dsa, dicom, figures, top; may be given several times"),
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="join neighbouring tiles of one colour step in files for QuPath")
    ] = False,
    top: Annotated[int, typer.Option(min=1, help="tiles with the highest and with the lowest scores to list")] = 20,
    group: Annotated[
        int, typer.Option(min=0, help="nearest neighbours that single and leave_one_out take together with a tile")
    ] = 0,
    key: Key = None,
) -> None:
    """Score every tile: what speaks for the prediction and what against it."""
    from mil.explain.explain_patients import Request
    from mil.explain.methods import DEFAULT, MethodOptions
    from mil.explain.writers import FileChoices
    from mil.output_places import RUN, check_output_folder
    from mil.runs.explain_report import explain_report
    from mil.runs.explain_run import EXPLAIN, explain_checkpoint
    from mil.zoo.predictor import load

    request = Request(
        methods=tuple(method or (DEFAULT,)),
        output=output,
        patients=patients,
        options=MethodOptions(group=group),
    )
    choices = FileChoices(formats=file_format, scans=scans, merge=merge, top=top)
    if (Path(checkpoint) / RUN).is_file():
        _refuse_inputs(features, cohort, slides)
        if out is not None:
            check_output_folder(out, [Path(checkpoint), scans], EXPLAIN)
        typer.echo(str(explain_report(Path(checkpoint), request, out, most, cases, choices)))
        return
    if features is None or out is None:
        raise ConfigError(f"{checkpoint}: is no run, expected --features and --out with a checkpoint or a tool")
    if cases or most is not None:
        raise ConfigError("--cases and --most: are about the report patients of a run, expected a run folder")
    loaded = load(checkpoint, key=key).checkpoint
    check_output_folder(out, [features, cohort, slides, scans, loaded.folder], EXPLAIN)
    explain_checkpoint([loaded], features, out, cohort, slides, request, choices)
    typer.echo(str(out))


def _refuse_inputs(features: Path | None, cohort: Path | None, slides: Path | None) -> None:
    """Refuse inputs beside a run, which knows its own.

    Raises:
        ConfigError: one is given.
    """
    named = {"--features": features, "--cohort": cohort, "--slides": slides}
    if given := [name for name, path in named.items() if path is not None]:
        raise ConfigError(f"{given[0]}: a run knows its features and its cohort, expected a checkpoint of it instead")
