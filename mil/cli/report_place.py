"""The last thing that a command says to a person: where the page is, and how to open it."""

from pathlib import Path

import typer


def say_where(page: Path) -> None:
    """Print on standard error how to open a page, so that standard output stays what a program reads."""
    if page.is_file():
        typer.echo(f"open it in a browser: {page.resolve().as_uri()}", err=True)
