"""The options of `mil predict`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from mil.cli.column_names import Column, names_of
from mil.cli.complete import tool as released
from mil.cli.evaluate_command import MaxTiles, OnBad, Slides
from mil.cli.zoo_commands import Key

Checkpoints = Annotated[
    list[str],
    typer.Argument(
        help="checkpoint folders or released tools; several predict together; and cluster=slurm cluster.shards=64",
        autocompletion=released,
    ),
]
Features = Annotated[Path, typer.Option(help="folder of feature files")]
Out = Annotated[Path, typer.Option(help="the CSV file to write")]
Cohort = Annotated[
    Path | None, typer.Option(help="table with columns patient and slide: slides of a patient are scored together")
]
Tiles = Annotated[Path | None, typer.Option(help="folder for one table per slide: x, y, attention")]
Layout = Annotated[str | None, typer.Option(help="layout of the feature files, where their content does not tell")]
BatchAxis = Annotated[bool, typer.Option("--batch-axis", help="accept features of shape (1, tiles, width)")]
SlideMpp = Annotated[
    float | None, typer.Option(help="micrometres per level-0 pixel, for tile positions in micrometres")
]
FeatureTable = Annotated[
    str | None, typer.Option("--table", help="which of several tables of features in one file is read")
]
Allow = Annotated[list[str] | None, typer.Option(help="a class outside this package that the checkpoint may import")]


def predict(
    checkpoint: Checkpoints,
    features: Features,
    out: Out,
    cohort: Cohort = None,
    slides: Slides = None,
    tiles: Tiles = None,
    layout: Layout = None,
    batch_axis: BatchAxis = False,
    slide_mpp: SlideMpp = None,
    feature_table: FeatureTable = None,
    column: Column = None,
    on_bad: OnBad = "error",
    max_tiles: MaxTiles = None,
    allow: Allow = None,
    key: Key = None,
) -> None:
    """Predict slides without labels; the table says which tool, version and threshold made each call."""
    from mil import files
    from mil.cards import SIMULATED
    from mil.cluster.cluster_options import divided, options_in
    from mil.cluster.sharded_prediction import PredictRequest, submit_prediction
    from mil.fitted.withholding import withheld_summary
    from mil.tables import csv_text, says_simulated

    about_cluster, names = divided(checkpoint)
    cluster = options_in(about_cluster)
    if not names:
        raise typer.BadParameter("no checkpoint, expected a checkpoint folder or a released tool")
    _check_places(out, tiles, [features, cohort, slides, key, *map(Path, names)])
    if len(names) != 1 and tiles is not None:
        raise typer.BadParameter("--tiles is one checkpoint's attention, expected one checkpoint")
    request = PredictRequest(
        checkpoints=tuple(names),
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
    if cluster is not None:
        if submit_prediction(request, out, cluster):
            typer.echo(SIMULATED, err=True)
        typer.echo(str(out))
        return
    table = request.table()
    if says_simulated(table):
        typer.echo(SIMULATED, err=True)
    if withheld := withheld_summary(table):
        typer.echo(withheld, err=True)
    files.write(out, csv_text(table))
    typer.echo(str(out))


def _check_places(out: Path, tiles: Path | None, read: Sequence[Path | None]) -> None:
    """Check that the table and the tables of tiles may be written."""
    from mil.inference.provenance import ORIGIN_FILE
    from mil.output_places import check_output_file, check_output_folder

    check_output_file(out, read, replaces_predictions=True)
    if tiles is None:
        return
    check_output_folder(tiles, read, ORIGIN_FILE, "--tiles")
    if tiles.resolve() == out.resolve():
        raise typer.BadParameter(f"--tiles and --out are both {out}, expected a folder and a file")
