"""A copy of slides on nearer storage, from which a store reads them in place of their files."""

from collections.abc import Mapping
from dataclasses import dataclass

from mil.features.fingerprints import Fingerprint
from mil.features.packed import Packed


@dataclass(frozen=True, eq=False)
class FeatureCopy:
    """A packed file with slides whose own files are what they were when they were copied.

    Attributes:
        packed: The copy.
        fingerprints: Of each slide's own file.
        mpps: Micrometres a level-0 pixel of single slides, with which their positions were computed.
        dtype: Type of the copied features.
        rounding: Largest change of a value by a conversion to this type.
    """

    packed: Packed
    fingerprints: Mapping[str, Fingerprint]
    mpps: Mapping[str, float]
    dtype: str
    rounding: float

    def has(self, slide: str, mpps: Mapping[str, float]) -> bool:
        """Return whether a slide can be read from the copy, where slides have these resolutions."""
        return slide in self.fingerprints and self.mpps.get(slide) == mpps.get(slide)
