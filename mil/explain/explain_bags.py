"""Explain bags from Python: `mil.explain(model, bags, method="single")`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil.bags import Bags
from mil.checkpoint import Checkpoint
from mil.endpoints.endpoint import Endpoint
from mil.errors import FeatureError
from mil.explain.explained_model import ExplainedModel
from mil.explain.methods import DEFAULT, MethodOptions, Scored, scorers_of
from mil.explain.reference_tile import GIVEN, stored_reference
from mil.explain.tile_scores import ExplainedOutput, PatientScores, SlideScores, TilePlaces
from mil.layers.neighbours import grid_step
from mil.models.mil_model import MILModel

Array = NDArray[Any] | Tensor


@runtime_checkable
class Loaded(Protocol):
    """What `mil.load` returns."""

    checkpoint: Checkpoint


@dataclass(frozen=True)
class Explanation:
    """The scores of the tiles of several bags.

    >>> model = mil.create_model("abmil", in_dim=1024, out_dim=1)
    >>> scores = mil.explain(model, torch.randn(300, 1024))
    >>> scores.frame().sort_values("single:logit 1").tail()  # the tiles that speak most for the first logit

    Attributes:
        bags: One explanation a bag, see `PatientScores`.
    """

    bags: tuple[PatientScores, ...]

    def __len__(self) -> int:
        return len(self.bags)

    def __getitem__(self, bag: int) -> PatientScores:
        return self.bags[bag]

    def frame(self) -> pd.DataFrame:
        """One row for each tile: bag, tile (both from 0), x and y where known, a column for each method and output."""
        frames = []
        for number, scores in enumerate(self.bags):
            table = scores.frame().drop(columns=["slide", "width", "height"])
            table.insert(0, "tile", range(len(table)))
            table.insert(0, "bag", number)
            frames.append(table)
        return pd.concat(frames, ignore_index=True)


def explain(
    model: MILModel | Checkpoint | Loaded,
    bags: Bags | Array | Sequence[Array],
    *,
    method: str | Sequence[str] = DEFAULT,
    endpoint: Endpoint | None = None,
    reference: Array | None = None,
    group: int = 0,
    permutations: int = 64,
    seed: int = 0,
) -> Explanation:
    """Score every tile of bags: what speaks for each output of the model, and what against it.

    Args:
        model: A model such as `mil.create_model` makes, or a tool that `mil.load` returned.
        bags: Features `(n, d)` of one bag, a list of such, or `Bags` with coordinates and covariates.
        method: A method or several: single, contribution, integrated_gradients, shapley, leave_one_out, attention.
        endpoint: What the logits of a bare model mean; without it the logits themselves are explained.
        reference: Features `(d,)` of the tile that all are compared with; by default the mean of the training tiles,
            for a bare model the mean of the given tiles.
        group: Nearest neighbours that `single` and `leave_one_out` take together with a tile; needs coordinates.
        permutations: Random orders of `shapley`.
        seed: Of everything random.

    Raises:
        ConfigError: There is no such method, or not for this model.
        FeatureError: Features of another width than the model reads.
    """
    packed = _packed(bags)
    explained, mean_of = _explained(model, endpoint, reference, packed)
    scorers = scorers_of([method] if isinstance(method, str) else method)
    options = MethodOptions(group=group, permutations=permutations, seed=seed)
    results = []
    for number, bag in enumerate(packed):
        values = explained(bag)[0].tolist()
        scored = {scorer.METHOD.name: scorer.score(explained, bag, options) for scorer in scorers}
        name = f"bag {number}"
        results.append(
            PatientScores(
                patient=name,
                outputs=tuple(
                    ExplainedOutput(name=each.name, meaning=each.meaning, unit=each.unit, value=value)
                    for each, value in zip(explained.outputs, values, strict=True)
                ),
                methods=tuple(scorer.METHOD for scorer in scorers),
                slides=(SlideScores(slide=name, places=_places(bag), scores=_arrays(scored)),),
                errors={(name, key): each.error.numpy() for key, each in scored.items() if each.error is not None},
                notes={key: each.note for key, each in scored.items() if each.note},
                reference=mean_of,
            )
        )
    return Explanation(tuple(results))


def _packed(bags: Bags | Array | Sequence[Array]) -> Bags:
    if isinstance(bags, Bags):
        return bags
    arrays = [bags] if isinstance(bags, np.ndarray | Tensor) else list(bags)
    tiles = [array if isinstance(array, Tensor) else torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
    for number, rows in enumerate(tiles):
        if rows.ndim != 2 or not len(rows) or not rows.isfinite().all():
            shape = tuple(rows.shape)
            raise FeatureError(f"bag {number}: features are {shape}, expected finite numbers (n, d) with n above 0")
    if len({rows.shape[1] for rows in tiles}) != 1:
        widths = ", ".join(str(rows.shape[1]) for rows in tiles) or "no bag"
        raise FeatureError(f"bags of widths {widths}, expected one or more bags of one width")
    return Bags.pack([rows.float() for rows in tiles])


def _explained(
    model: MILModel | Checkpoint | Loaded, endpoint: Endpoint | None, reference: Array | None, bags: Bags
) -> tuple[ExplainedModel, str]:
    """Return the model with its endpoint and reference tile, and what the latter is the mean of."""
    checkpoint = model.checkpoint if isinstance(model, Loaded) else model
    stored = None
    if isinstance(checkpoint, Checkpoint):
        if bags.features.shape[1] != checkpoint.encoder.dim:
            raise FeatureError(f"features are {bags.features.shape[1]} wide, expected {checkpoint.encoder.dim}")
        stored, endpoint = stored_reference(checkpoint), endpoint or checkpoint.endpoint
        network = checkpoint.model
    else:
        network = checkpoint
    if reference is not None:
        given = reference if isinstance(reference, Tensor) else torch.from_numpy(np.asarray(reference))
        return ExplainedModel(network.eval(), endpoint, given.float().flatten()), "tile that was given"
    if stored is not None:
        return ExplainedModel(network.eval(), endpoint, stored.features), stored.mean_of
    return ExplainedModel(network.eval(), endpoint, bags.features.float().mean(0)), GIVEN


def _places(bag: Bags) -> TilePlaces | None:
    """Return the places of a bag's tiles, as wide as the grid of the slide is; None without coordinates."""
    if bag.coords is None or (bag.slide is not None and bool((bag.slide != bag.slide[0]).any())):
        return None
    xy = bag.coords.cpu().double().round().long().numpy()
    side = np.full(len(xy), float(grid_step(xy)))
    return TilePlaces(x=xy[:, 0].astype(np.float64), y=xy[:, 1].astype(np.float64), width=side, height=side)


def _arrays(scored: Mapping[str, Scored]) -> dict[str, NDArray[np.float64]]:
    return {name: each.scores.numpy() for name, each in scored.items()}
