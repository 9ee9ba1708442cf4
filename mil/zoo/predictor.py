"""Released tools from Python: `mil.load("msi-crc").predict(features)`."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil import checkpoint as checkpoints
from mil.bags import Bags
from mil.checkpoint import Checkpoint
from mil.errors import CohortError, FeatureError
from mil.inference import predict as inference
from mil.inference.conclusions import Seen, concluded
from mil.manifest import Manifest
from mil.models.mil_model import Output
from mil.runs.describe import CARD
from mil.zoo.registry import resolve

Array = NDArray[Any] | Tensor
Arrays = Array | Sequence[Array]


class Predictor:
    """A released tool, loaded and verified.

    >>> import mil, numpy as np
    >>> tool = mil.load("msi-crc")
    >>> tiles = np.random.default_rng(0).standard_normal((300, tool.width))  # a bag: one row a tile
    >>> tool.predict(tiles)  # a row of scores and calls, or the reason why they are withheld
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint

    @property
    def manifest(self) -> Manifest:
        """What the tool is, as data."""
        return self.checkpoint.manifest

    @property
    def card(self) -> str:
        """Its model card, Markdown."""
        return (self.checkpoint.folder / CARD).read_text(encoding="utf-8")

    @property
    def width(self) -> int:
        """Of a tile's features."""
        return self.checkpoint.encoder.dim

    def __repr__(self) -> str:
        tool = self.manifest.tool
        return f"<{tool['name']} {tool['version']}: {self.width} features a tile of {self.checkpoint.encoder.name}>"

    def predict(
        self, features: Arrays, coords: Arrays | None = None, covariates: pd.DataFrame | None = None
    ) -> pd.DataFrame:
        """Scores of bags, each the tiles of one patient: the same numbers as of the same features in files.

        Args:
            features: `(n, d)` of one bag, or a list of these.
            coords: Level-0 pixels of the tiles' top-left corners, `(n, 2)` or a list; some models need them.
            covariates: One row a bag, where the tool reads some; columns as in its training table.

        Returns:
            `bag`, `tiles`, scores, and what follows from them, one row a bag.

        Raises:
            FeatureError: features of another width, none, not finite, or without coordinates that are needed.
            CohortError: covariates that do not fit.
        """
        bags, places = _listed(features), None if coords is None else _listed(coords)
        if places is not None and len(places) != len(bags):
            raise FeatureError(f"coords of {len(places)} bags, expected {len(bags)}")
        made = [self._bag(at, bag, None if places is None else places[at]) for at, bag in enumerate(bags)]
        beside = self._covariates(covariates, len(made))
        logits = torch.cat([self._logits(bag, beside, at) for at, bag in enumerate(made)])  # (b, c)
        sizes = np.array([bag.sizes[0] for bag in made])
        scores = inference.decoded(self.checkpoint.endpoint, logits)
        out = pd.DataFrame({"tiles": sizes.astype(float)}).assign(**scores)
        means = torch.stack([inference.mean(bag) for bag in made]).numpy()
        seen = Seen(np.arange(len(made)), [f"bag {at}" for at in range(len(made))], sizes, means)
        found = concluded(self.manifest.fitted, out, seen)
        found.insert(0, "bag", seen.row)  # kept where a result is withheld
        return found

    def predict_files(self, folder: str | Path, cohort: str | Path | None = None) -> pd.DataFrame:
        """Scores of a folder of feature files: a row a slide, or with a table of patients and slides a row a patient.

        Raises:
            MilError: as `mil predict`.
        """
        return inference.predict(self.checkpoint, Path(folder), None if cohort is None else Path(cohort))

    def _bag(self, at: int, given: Array, coords: Array | None) -> Bags:
        tiles = _tensor(given).float()
        if tiles.ndim != 2 or tiles.shape[1] != self.width or not len(tiles):
            raise FeatureError(
                f"bag {at}: features are {tuple(tiles.shape)}, expected (n, {self.width}) with n above 0"
            )
        if not tiles.isfinite().all():
            raise FeatureError(f"bag {at}: features are not finite")
        places = None if coords is None else _tensor(coords)
        if places is not None and places.shape != (len(tiles), 2):
            raise FeatureError(f"bag {at}: coords are {tuple(places.shape)}, expected ({len(tiles)}, 2)")
        if places is None and self.checkpoint.model.needs_coords:
            raise FeatureError(f"bag {at}: no coords, expected them: {self.manifest.model.name} reads tiles' places")
        return Bags(tiles, (len(tiles),), places)

    def _covariates(self, table: pd.DataFrame | None, amount: int) -> Tensor | None:
        known = self.checkpoint.covariates
        if known is None:
            return None
        if table is None or len(table) != amount or set(known.columns) - set(table.columns):
            found = "none" if table is None else f"{len(table)} rows of {', '.join(map(str, table.columns))}"
            raise CohortError(f"covariates: {found}, expected {amount} rows of {', '.join(known.columns)}")
        text = table.astype(object).where(table.notna(), "").astype(str)
        known.check(text)
        return known.encode(text)

    def _logits(self, bag: Bags, covariates: Tensor | None, at: int) -> Tensor:
        beside = None if covariates is None else covariates[at : at + 1]
        place = inference.device()
        whole = Bags(bag.features, bag.sizes, bag.coords, covariates=beside).to(place)
        with torch.inference_mode():
            output: Output = self.checkpoint.model.to(place)(whole)
            return output.logits.cpu()  # (1, c)


def load(name: str | Path, allow: Collection[str] = ()) -> Predictor:
    """A released tool, by name (`msi-crc`, `msi-crc@1.0.0`) or folder, verified.

    Args:
        name: Of a tool that comes with the package or was pulled, or a checkpoint folder.
        allow: Classes outside this package that the checkpoint may use.

    Raises:
        ConfigError: no such tool.
        CheckpointError: the folder is not what its manifest says.
    """
    return Predictor(checkpoints.load(resolve(name), allow))


def _listed(given: Arrays) -> list[Array]:
    return [given] if isinstance(given, np.ndarray | Tensor) else list(given)


def _tensor(given: Array) -> Tensor:
    return given.detach().cpu() if isinstance(given, Tensor) else torch.from_numpy(np.ascontiguousarray(given))
