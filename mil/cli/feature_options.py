"""Options of commands that say how feature files are read."""

from typing import Annotated

import typer

Layout = Annotated[str | None, typer.Option(help="layout of the feature files, where their content does not tell")]
BatchAxis = Annotated[bool, typer.Option("--batch-axis", help="accept features of shape (1, tiles, width)")]
SlideMpp = Annotated[
    float | None, typer.Option(help="micrometres per level-0 pixel, for tile positions in micrometres")
]
