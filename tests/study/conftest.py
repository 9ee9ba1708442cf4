"""Fixtures shared with the tests of features."""

from tests.features.conftest import trident

__all__ = ["trident"]
