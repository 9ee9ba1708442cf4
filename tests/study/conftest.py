"""Feature files as tests/data writes them."""

from tests.features.conftest import trident

__all__ = ["trident"]
