"""Explain bags from Python: `mil.explain(model, bags, method="single")`."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from mil.errors import ConfigError, FeatureError
from mil.explain.explained_model import ExplainedModel
from mil.explain.methods import DEFAULT, MethodOptions, Scored, Scorer, scorers_of
from mil.explain.reference_tile import GIVEN, stored_reference
from mil.explain.tile_scores import ExplainedOutput, PatientScores, SlideScores, TilePlaces
from mil.layers.neighbours import grid_step
from mil.models.fusion import Fused
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
        method: A method or several: single, contribution, integrated_gradients, shapley, leave_one_out, lrp,
            attention.
        endpoint: What the logits of a bare model mean; without it the logits themselves are explained.
        reference: Features `(d,)` of the tile that all are compared with; by default the mean of the training tiles,
            for a bare model the mean of the given tiles.
        group: Nearest neighbours that `single` and `leave_one_out` take together with a tile; needs coordinates.
        permutations: Random orders of `shapley`.
        seed: Of everything random.

    Raises:
        ConfigError: There is no such method, or not for this model; or the endpoint has another number of logits.
        FeatureError: Features that are not finite or of another width than the model reads; no coordinates or no
            covariates for a model that reads them.
    """
    if group < 0 or permutations < 2:
        raise ConfigError(f"group {group}, permutations {permutations}: expected 0 or more, and 2 or more")
    if not (scorers := scorers_of([method] if isinstance(method, str) else method)):
        raise ConfigError("method: none given, expected one or more")
    packed = _packed(bags)
    explained, mean_of = _explained(model, endpoint, reference, packed)
    options = MethodOptions(group=group, permutations=permutations, seed=seed)
    with _evaluating(explained.model):
        _check(explained, packed)
        return Explanation(
            tuple(_one_bag(explained, f"bag {at}", bag, scorers, options, mean_of) for at, bag in enumerate(packed))
        )


def _one_bag(
    model: ExplainedModel, name: str, bag: Bags, scorers: Sequence[Scorer], options: MethodOptions, mean_of: str
) -> PatientScores:
    """Return the explanation of one bag."""
    values = model(bag)[0].tolist()
    scored = {scorer.METHOD.name: scorer.score(model, bag, options) for scorer in scorers}
    return PatientScores(
        patient=name,
        outputs=tuple(
            ExplainedOutput(name=each.name, meaning=each.meaning, unit=each.unit, value=value)
            for each, value in zip(model.outputs, values, strict=True)
        ),
        methods=tuple(scorer.METHOD for scorer in scorers),
        slides=(SlideScores(slide=name, places=_places(bag), scores=_arrays(scored)),),
        errors={(name, key): each.error.numpy() for key, each in scored.items() if each.error is not None},
        notes={key: each.note for key, each in scored.items() if each.note},
        reference=mean_of,
    )


@contextmanager
def _evaluating(network: MILModel) -> Iterator[None]:
    """Set a model to evaluation, and back to training where it was: its user may be training it."""
    training = network.training
    try:
        network.eval()
        yield
    finally:
        network.train(training)


def _check(model: ExplainedModel, bags: Bags) -> None:
    """Check that bags, reference tile and endpoint fit the model.

    Raises:
        ConfigError: The endpoint has another number of logits.
        FeatureError: Features of another width, or without coordinates or covariates that the model reads.
    """
    name, width = type(model.model).__name__, bags.features.shape[1]
    if bags.coords is None and model.model.reads_places():
        raise FeatureError(f"bags have no coordinates, and {name} reads where tiles lie: expected Bags with coords")
    if bags.covariates is None and isinstance(model.model, Fused):
        raise FeatureError(f"bags have no covariates, and {name} reads them: expected Bags with covariates")
    if len(model.reference) != width or not model.reference.isfinite().all():
        raise FeatureError(f"reference: {len(model.reference)} numbers, expected {width} finite ones as of a tile")
    try:
        logits = model.logits(model.reference_bag(None))
    except RuntimeError as error:
        raise FeatureError(f"features are {width} wide, which {name} does not read: {error}") from error
    if model.endpoint is not None and logits.shape[1] != model.endpoint.out_dim:
        expected = model.endpoint.out_dim
        raise ConfigError(f"endpoint: the model has {logits.shape[1]} logits, expected {expected} for this endpoint")


def _packed(bags: Bags | Array | Sequence[Array]) -> Bags:
    """Return bags with finite features.

    Raises:
        FeatureError: Something else was given, or features are not finite.
    """
    if isinstance(bags, Bags):
        if not len(bags) or not bags.features.isfinite().all():
            raise FeatureError(
                f"{len(bags)} bags with features of {tuple(bags.features.shape)}, expected finite numbers"
            )
        return bags.with_features(bags.features.detach())
    arrays = [bags] if isinstance(bags, np.ndarray | Tensor) else list(bags)
    if strange := [type(array).__name__ for array in arrays if not isinstance(array, np.ndarray | Tensor)]:
        raise FeatureError(f"bags: {strange[0]} found, expected Bags, an array (n, d) or a list of arrays")
    tiles = [array if isinstance(array, Tensor) else _tensor(array) for array in arrays]
    for number, rows in enumerate(tiles):
        if rows.ndim != 2 or not len(rows) or not rows.isfinite().all():
            shape = tuple(rows.shape)
            raise FeatureError(f"bag {number}: features are {shape}, expected finite numbers (n, d) with n above 0")
    if len({rows.shape[1] for rows in tiles}) != 1:
        widths = ", ".join(str(rows.shape[1]) for rows in tiles) or "no bag"
        raise FeatureError(f"bags of widths {widths}, expected one or more bags of one width")
    return Bags.pack([rows.detach().float() for rows in tiles])


def _tensor(array: NDArray[Any]) -> Tensor:
    if array.dtype.kind not in "fiub":
        raise FeatureError(f"bags: an array of {array.dtype} found, expected numbers")
    return torch.from_numpy(np.ascontiguousarray(array))


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
    elif isinstance(checkpoint, MILModel):
        network = checkpoint
    else:
        raise ConfigError(f"model: {type(model).__name__} found, expected a model or what mil.load returned")
    if reference is not None:
        given = reference if isinstance(reference, Tensor) else torch.from_numpy(np.asarray(reference))
        return ExplainedModel(network, endpoint, given.float().flatten()), "tile that was given"
    if stored is not None:
        return ExplainedModel(network, endpoint, stored.features), stored.mean_of
    return ExplainedModel(network, endpoint, bags.features.float().mean(0)), GIVEN


def _places(bag: Bags) -> TilePlaces | None:
    """Return the places of a bag's tiles, as wide as the grid of the slide is; None without coordinates."""
    if bag.coords is None or (bag.slide is not None and bool((bag.slide != bag.slide[0]).any())):
        return None
    xy = bag.coords.cpu().double().round().long().numpy()
    side = np.full(len(xy), float(grid_step(xy)))
    return TilePlaces(x=xy[:, 0].astype(np.float64), y=xy[:, 1].astype(np.float64), width=side, height=side)


def _arrays(scored: Mapping[str, Scored]) -> dict[str, NDArray[np.float64]]:
    return {name: each.scores.numpy() for name, each in scored.items()}
