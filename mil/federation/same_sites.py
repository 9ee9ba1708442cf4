"""What must be the same at all sites before they train together, and which of them differs."""

from collections.abc import Mapping
from typing import cast

from pydantic import JsonValue

from mil.federation.messages import FederationError, Message


def check_descriptions(digest: str, descriptions: Mapping[str, Message]) -> None:
    """Check before training that all sites are about the same.

    Args:
        digest: Of the coordinator's options.
        descriptions: By site.

    Raises:
        FederationError: A site with another encoder, tiles, tool, options or version of this package, by name.
    """
    problems = []
    names = sorted(descriptions)
    for fact, what in (
        ("version", "version of mil-zoo"),
        ("tool", "tool"),
        ("options", "digest of options"),
        ("encoder", "encoder"),
        ("width", "width of features"),
        ("encoders", "encoders and their widths"),
        ("mpp", "micrometres a pixel"),
        ("tile_px", "pixels a tile"),
        ("minimum", "federation.minimum"),
        ("secure", "federation.secure"),
        ("simulated", "simulated patients"),
    ):
        values = {site: descriptions[site].facts.get(fact) for site in names}
        usual = digest if fact == "options" else _usual(list(values.values()))
        problems += [
            f"site {site}: {what} {value!r}, expected {usual!r}" for site, value in values.items() if value != usual
        ]
    folds = {site: sorted(cast(dict[str, JsonValue], descriptions[site].facts["counts"])) for site in names}
    most = max(folds.values(), key=len)
    problems += [
        f"site {site}: {len(each)} folds, expected {len(most)}" for site, each in folds.items() if each != most
    ]
    if problems:
        raise FederationError("; ".join(problems))


def _usual(values: list[JsonValue]) -> JsonValue:
    return max(values, key=lambda value: sum(each == value for each in values))
