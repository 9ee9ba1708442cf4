"""Feature files as tests/data writes them."""

from tests.data.conftest import trident

__all__ = ["trident"]
