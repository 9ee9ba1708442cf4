"""The option `--column`: what the tables of a cohort call patients, slides and resolutions."""

from typing import TYPE_CHECKING, Annotated

import typer

from mil.errors import ConfigError

if TYPE_CHECKING:
    from mil.cohort.columns import Columns

_IDS = ("patient", "slide", "mpp")

Column = Annotated[
    list[str] | None,
    typer.Option(help="patient=NAME, slide=NAME or mpp=NAME: what the tables call it, where that is unusual"),
]


def columns_of(named: list[str] | None) -> "Columns | None":
    """Return what the tables call their ids, as `names_of`; None without a word."""
    from mil.cohort.columns import Columns

    names = names_of(named)
    return None if names is None else Columns(**names)


def names_of(named: list[str] | None) -> dict[str, str] | None:
    """Return the names by id, from words such as `patient=PID`; None without a word.

    Raises:
        ConfigError: a word of another form, or two names of one column.
    """
    if not named:
        return None
    names: dict[str, str] = {}
    for word in named:
        key, _, name = word.partition("=")
        if key not in _IDS or not name:
            raise ConfigError(f"--column {word}: expected one of {', '.join(f'{each}=NAME' for each in _IDS)}")
        if key in names:
            raise ConfigError(f"--column {word}: {key} is {names[key]} already, expected one name")
        names[key] = name
    return names
