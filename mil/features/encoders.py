"""Encoders of tiles and of whole slides: name, the names that producers write for them, and width."""

from collections.abc import Iterable, Sequence
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
        parts: The encoders whose features are concatenated, in the order of their blocks; none for a single encoder.
    """

    name: str
    dim: int
    aliases: tuple[str, ...] = ()
    tile_px: int | None = None
    mpp: float | None = None
    licence: str = ""
    pretrained_on: tuple[str, ...] = ()
    level: str = "tile"
    parts: tuple["Encoder", ...] = ()

    def __post_init__(self) -> None:
        # A yaml gives lists; tuples keep the record hashable and plain to write down.
        object.__setattr__(self, "aliases", tuple(self.aliases))
        object.__setattr__(self, "pretrained_on", tuple(self.pretrained_on))

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of each encoder's block of the features, in order; of a single encoder its `dim`."""
        return tuple(part.dim for part in self.parts) or (self.dim,)

    def answers_to(self, name: str) -> bool:
        """Return whether `name` is the name or an alias of the encoder, ignoring case, `-`, `_` and spaces."""
        return folded(name) in {folded(alias) for alias in (self.name, *self.aliases)}


def folded(name: str) -> str:
    """Return `name` as it is compared: `H-optimus-0`, `h_optimus_0` and `hoptimus0` are the same."""
    return name.casefold().replace("-", "").replace("_", "").replace(" ", "")


def by_name(encoders: Iterable[Encoder], name: str) -> Encoder | None:
    """Return the first encoder that answers to a name; None where there is none."""
    return next((encoder for encoder in encoders if encoder.answers_to(name)), None)


def of_blocks(encoders: Iterable[Encoder], blocks: Sequence[tuple[str, int]]) -> Encoder:
    """Return the joined encoder of blocks given by name and width; unlisted ones have no more."""
    candidates = tuple(encoders)
    return joined([by_name(candidates, name) or Encoder(name, width) for name, width in blocks])


BETWEEN = "+"
"""Between the names of encoders whose features are concatenated: `uni2+conch_v15`."""


def joined(parts: Sequence[Encoder]) -> Encoder:
    """Return the encoder whose features are those of `parts` side by side; what they do not share is left open."""
    first = parts[0]
    return Encoder(
        name=BETWEEN.join(part.name for part in parts),
        dim=sum(part.dim for part in parts),
        tile_px=first.tile_px if len({part.tile_px for part in parts}) == 1 else None,
        mpp=first.mpp if len({part.mpp for part in parts}) == 1 else None,
        licence="; ".join(dict.fromkeys(part.licence for part in parts if part.licence)),
        pretrained_on=tuple(dict.fromkeys(cohort for part in parts for cohort in part.pretrained_on)),
        level=first.level,
        parts=tuple(parts),
    )
