"""The options of `mil explain`."""

from pathlib import Path
from typing import Annotated

import typer

from mil.cli.evaluate_command import Slides
from mil.cli.zoo_commands import Key


def explain(
    checkpoint: Annotated[str, typer.Argument(help="a checkpoint folder or a released tool")],
    features: Annotated[Path, typer.Option(help="folder of feature files")],
    out: Annotated[Path, typer.Option(help="folder to write: a folder for each patient, and explain.json")],
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
    patients: Annotated[list[str] | None, typer.Option(help="the only patients to explain")] = None,
    group: Annotated[
        int, typer.Option(min=0, help="nearest neighbours that single and leave_one_out take together with a tile")
    ] = 0,
    key: Key = None,
) -> None:
    """Score every tile: what speaks for the prediction and what against it."""
    from mil.explain.explain_patients import Request
    from mil.explain.methods import DEFAULT, MethodOptions
    from mil.output_places import check_output_folder
    from mil.runs.explain_run import EXPLAIN, explain_checkpoint
    from mil.zoo.predictor import load

    loaded = load(checkpoint, key=key).checkpoint
    check_output_folder(out, [features, cohort, slides, loaded.folder], EXPLAIN)
    request = Request(
        methods=tuple(method or (DEFAULT,)),
        output=output,
        patients=patients,
        options=MethodOptions(group=group),
    )
    explain_checkpoint([loaded], features, out, cohort, slides, request)
    typer.echo(str(out))
