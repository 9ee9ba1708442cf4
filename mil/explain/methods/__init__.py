"""The methods that score tiles, one file each: a module with `METHOD` and `score`."""

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol, cast

from torch import Tensor

from mil.bags import Bags
from mil.errors import ConfigError
from mil.explain.explained_model import ExplainedModel
from mil.explain.tile_scores import Method

DEFAULT = "single"
NOT_OFFERED = {
    "gradient": "gradients alone were not faithful in any comparison; integrated_gradients is what they become when "
    "the whole path from the reference tile counts",
}
"""Methods that users may look for, and why they are not there."""


@dataclass(frozen=True, kw_only=True)
class MethodOptions:
    """How methods compute.

    Attributes:
        group: Nearest neighbours that are taken together with a tile, by `single` and `leave_one_out`.
        permutations: Random orders of `shapley`.
        seed: Of everything random.
    """

    group: int = 0
    permutations: int = 64
    seed: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """What a method gives for one bag.

    Attributes:
        scores: `(n, o)`, in double precision, in the outputs' units.
        error: Standard error of the scores, `(n, o)`; None where they are not drawn at random.
        note: A sentence about this bag: groups of tiles, an error; empty where there is nothing to say.
    """

    scores: Tensor
    error: Tensor | None = None
    note: str = ""


class Scorer(Protocol):
    """What a module of this package defines."""

    METHOD: Method

    def score(self, model: ExplainedModel, bag: Bags, options: MethodOptions) -> Scored:
        """Return the score of each tile of one bag.

        Raises:
            ConfigError: The method does not exist for this model.
        """


@cache
def scorers() -> dict[str, Scorer]:
    """Return all methods by name."""
    modules = [importlib.import_module(info.name) for info in pkgutil.iter_modules(__path__, f"{__name__}.")]
    by_name = {module.METHOD.name: cast(Scorer, module) for module in modules}
    return {name: by_name[name] for name in sorted(by_name, key=lambda name: (name != DEFAULT, name))}


def scorers_of(names: Sequence[str]) -> list[Scorer]:
    """Return the methods of these names, in this order.

    Raises:
        ConfigError: There is no such method.
    """
    available = scorers()
    for name in names:
        if name in NOT_OFFERED:
            raise ConfigError(f"--method {name}: not offered: {NOT_OFFERED[name]}")
        if name not in available:
            raise ConfigError(f"--method {name}: no such method, expected one of {', '.join(available)}")
    return [available[name] for name in dict.fromkeys(names)]
