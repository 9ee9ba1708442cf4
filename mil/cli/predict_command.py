"""The options of `mil predict`: a table of one tool, or a folder with a table of each of several."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mil.cli.column_names import Column, names_of
from mil.cli.complete import tool as released
from mil.cli.evaluate_command import MaxTiles, OnBad, Slides
from mil.cli.feature_options import BatchAxis, Layout, SlideMpp
from mil.cli.zoo_commands import Key

if TYPE_CHECKING:
    import pandas as pd

    from mil.api import Predictor, ToolPredictions
    from mil.cluster.cluster_options import ClusterOptions
    from mil.cluster.sharded_prediction import PredictRequest

ALL = "all"
"""Stands for every released tool that is here."""
INDEX = "tools_predicted.csv"
"""Which tools predicted, in which file, and why others did not."""


def predict(
    checkpoint: Annotated[
        list[str],
        typer.Argument(
            help="released tools or checkpoint folders; those of one tool predict together, different tools each for "
            "itself in one pass over the features; all: every tool that fits; and cluster=slurm cluster.shards=64",
            autocompletion=released,
        ),
    ],
    features: Annotated[Path, typer.Option(help="folder of feature files; of several encoders NAME=DIR,NAME=DIR")],
    out: Annotated[Path, typer.Option(help="the CSV file to write; of different tools a folder for a file of each")],
    cohort: Annotated[
        Path | None, typer.Option(help="table with columns patient and slide: slides of a patient are scored together")
    ] = None,
    slides: Slides = None,
    tiles: Annotated[Path | None, typer.Option(help="folder for one table per slide: x, y, attention")] = None,
    layout: Layout = None,
    batch_axis: BatchAxis = False,
    slide_mpp: SlideMpp = None,
    feature_table: Annotated[
        str | None, typer.Option("--table", help="which of several tables of features in one file is read")
    ] = None,
    column: Column = None,
    on_bad: OnBad = "error",
    max_tiles: MaxTiles = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="a class outside this package that the checkpoint may import")
    ] = None,
    key: Key = None,
) -> None:
    """Predict slides without labels; the table says which tool, version and threshold made each call."""
    from mil import api
    from mil.cluster.cluster_options import divided, options_in
    from mil.cluster.sharded_prediction import PredictRequest
    from mil.features.feature_folders import paths_of

    about_cluster, checkpoint = divided(checkpoint)
    cluster = options_in(about_cluster)
    if not checkpoint:
        raise typer.BadParameter("no checkpoint, expected a checkpoint folder or a released tool")
    _check_words(checkpoint, tiles)
    inputs = [*paths_of(features), cohort, slides, key, *map(Path, checkpoint)]
    loaded = [api.load(name, allow or (), key) for name in checkpoint] if len(checkpoint) > 1 else []
    tools: list[str] | list[Predictor] = loaded or checkpoint
    if checkpoint == [ALL] or len({tool.manifest.tool.name for tool in loaded}) > 1:
        if cluster is not None:
            raise typer.BadParameter("cluster=... takes one tool, expected a command for each of several")
        _check_folder(out, inputs)
        predictions = api.predict_tools(
            "all" if checkpoint == [ALL] else tools,
            features,
            cohort,
            slides=slides,
            layout=layout,
            batch_axis=batch_axis,
            slide_mpp=slide_mpp,
            feature_table=feature_table,
            columns=names_of(column),
            on_bad=on_bad,
            max_tiles=max_tiles,
            allow=allow or (),
            key=key,
        )
        _write_tables(out, predictions)
        return
    _check_file(out, tiles, inputs)
    request = PredictRequest(
        checkpoints=tuple(checkpoint),
        features=features,
        cohort=cohort,
        slides=slides,
        tiles=tiles,
        layout=layout,
        batch_axis=batch_axis,
        slide_mpp=slide_mpp,
        feature_table=feature_table,
        columns=names_of(column),
        on_bad=on_bad,
        max_tiles=max_tiles,
        allow=tuple(allow or ()),
        key=key,
    )
    if cluster is None:
        _write_table(out, request.table())
    else:
        _submit(request, out, cluster)


def _submit(request: "PredictRequest", out: Path, cluster: "ClusterOptions") -> None:
    from mil.cards import SIMULATED
    from mil.cluster.sharded_prediction import submit_prediction

    if submit_prediction(request, out, cluster):
        typer.echo(SIMULATED, err=True)
    typer.echo(str(out))


def _check_words(checkpoint: Sequence[str], tiles: Path | None) -> None:
    if tiles is not None and (len(checkpoint) > 1 or ALL in checkpoint):
        raise typer.BadParameter("--tiles is one checkpoint's attention, expected one checkpoint")
    if len(checkpoint) > 1 and ALL in checkpoint:
        raise typer.BadParameter("all stands for every tool, expected no other one with it")


def _check_file(out: Path, tiles: Path | None, inputs: Sequence[Path | None]) -> None:
    from mil.inference.provenance import ORIGIN_FILE
    from mil.output_places import check_output_file, check_output_folder

    check_output_file(out, inputs, replaces_predictions=True)
    if tiles is not None:
        check_output_folder(tiles, inputs, ORIGIN_FILE, "--tiles")
    if tiles is not None and tiles.resolve() == out.resolve():
        raise typer.BadParameter(f"--tiles and --out are both {out}, expected a folder and a file")


def _check_folder(out: Path, inputs: Sequence[Path | None]) -> None:
    from mil.errors import ConfigError
    from mil.output_places import check_output_folder

    if out.suffix.casefold() == ".csv" and not out.is_dir():
        raise ConfigError(f"--out {out}: is a file, expected a folder: of different tools each writes a table")
    check_output_folder(out, inputs, INDEX)


def _write_table(out: Path, table: "pd.DataFrame") -> None:
    from mil import files
    from mil.cards import SIMULATED
    from mil.fitted.withholding import withheld_summary
    from mil.tables import csv_text, says_simulated

    if says_simulated(table):
        typer.echo(SIMULATED, err=True)
    if withheld := withheld_summary(table):
        typer.echo(withheld, err=True)
    files.write(out, csv_text(table))
    typer.echo(str(out))


def _write_tables(out: Path, predictions: "ToolPredictions") -> None:
    """Write a table of each tool and then the index; tables that an earlier index lists and this one does not go."""
    from mil import files
    from mil.cards import SIMULATED
    from mil.fitted.withholding import withheld_summary
    from mil.tables import csv_text, read_table, says_simulated

    index = predictions.index()
    if any(says_simulated(table) for table in predictions.tables.values()):
        typer.echo(SIMULATED, err=True)
    for name, reason in predictions.left_out.items():
        typer.echo(f"{name} is left out: {reason}", err=True)
    for name, table in predictions.tables.items():
        if withheld := withheld_summary(table):
            typer.echo(f"{name}: {withheld}", err=True)
    if (out / INDEX).is_file():
        for file in set(read_table(out / INDEX).get("file", ())) - set(index["file"]):
            if file == Path(file).name and file.endswith(".csv"):
                (out / file).unlink(missing_ok=True)
    for file, table in zip(index["file"][index["file"] != ""], predictions.tables.values(), strict=True):
        files.write(out / file, csv_text(table))
    files.write(out / INDEX, csv_text(index))
    typer.echo(str(out))
