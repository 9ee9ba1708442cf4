"""Encoders of tiles and of whole slides: name, the names that producers write for them, and width."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Encoder:
    """An encoder of tiles, or of whole slides.

    Args:
        name: The name this package uses, a file of `conf/encoder/`.
        dim: Width of a tile's features, `d`.
        aliases: Names that producers write for the same weights.
        tile_px: Side of the tiles it was made for, pixels.
        mpp: Resolution of the tiles it was made for, micrometres a pixel.
        licence: Licence of the weights.
        pretrained_on: Cohorts in its training data, which are therefore not external to it.
        level: "tile", or "slide" where it makes one vector of all tiles of a slide or a patient.
    """

    name: str
    dim: int
    aliases: tuple[str, ...] = ()
    tile_px: int | None = None
    mpp: float | None = None
    licence: str = ""
    pretrained_on: tuple[str, ...] = ()
    level: str = "tile"

    def __post_init__(self) -> None:
        # A yaml gives lists; tuples keep the record hashable and plain to write down.
        object.__setattr__(self, "aliases", tuple(self.aliases))
        object.__setattr__(self, "pretrained_on", tuple(self.pretrained_on))

    def answers_to(self, name: str) -> bool:
        """Return whether `name` is the name or an alias of the encoder, ignoring case, `-`, `_` and spaces."""
        return folded(name) in {folded(alias) for alias in (self.name, *self.aliases)}


def folded(name: str) -> str:
    """Return `name` as it is compared: `H-optimus-0`, `h_optimus_0` and `hoptimus0` are the same."""
    return name.casefold().replace("-", "").replace("_", "").replace(" ", "")
