"""Use a released tool from Python: `mil.load("msi-crc").predict(features)`."""

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
from mil.cards import CARD
from mil.checkpoint import Checkpoint
from mil.errors import CohortError, ConfigError, FeatureError, MilError
from mil.fitted.withholding import RowBags
from mil.inference import forward
from mil.inference.predict import predict
from mil.inference.provenance import with_origin
from mil.manifest import Manifest
from mil.models.mil_model import Output
from mil.zoo.policy import check_origin
from mil.zoo.registry import local, resolve

Array = NDArray[Any] | Tensor
Arrays = Array | Sequence[Array]


class Predictor:
    """A released tool, loaded and verified.

    >>> import mil, numpy as np
    >>> tool = mil.load("msi-crc")
    >>> tiles = np.random.default_rng(0).standard_normal((300, tool.width))  # a bag: one row per tile
    >>> tool.predict(tiles)  # a row of scores and calls, or the reason why they are withheld
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint

    @property
    def manifest(self) -> Manifest:
        """The tool's manifest."""
        return self.checkpoint.manifest

    @property
    def card(self) -> str:
        """The tool's model card, as Markdown."""
        return (self.checkpoint.folder / CARD).read_text(encoding="utf-8")

    @property
    def width(self) -> int:
        """Number of features per tile."""
        return self.checkpoint.encoder.dim

    def __repr__(self) -> str:
        tool = self.manifest.tool
        return f"<{tool.name} {tool.version}: {self.width} features a tile of {self.checkpoint.encoder.name}>"

    def predict(
        self, features: Arrays | str | Path, coords: Arrays | None = None, covariates: pd.DataFrame | None = None
    ) -> pd.DataFrame:
        """Predict bags, each with the tiles of one patient; the numbers equal those for the same features in files.

        Args:
            features: Features of one bag, `(n, d)`, or a list with one array per bag; or a folder of feature files, as
                `predict_files` takes it.
            coords: Level-0 pixels of the tiles' top-left corners, `(n, 2)` or a list; some models need them.
            covariates: One row per bag, if the tool reads covariates; columns as in its training table.

        Returns:
            One row per bag: `bag`, `tool`, `version`, `simulated`, `tiles`, scores, calls and their thresholds.

        Raises:
            FeatureError: if features have another width, are empty or not finite, or coordinates are missing.
            CohortError: if the covariates do not fit.
        """
        if isinstance(features, str | Path):
            return self.predict_files(features)
        arrays, coords_by_bag = _as_list(features), None if coords is None else _as_list(coords)
        if coords_by_bag is not None and len(coords_by_bag) != len(arrays):
            raise FeatureError(f"coords of {len(coords_by_bag)} bags, expected {len(arrays)}")
        bags = [
            self._bag(at, array, None if coords_by_bag is None else coords_by_bag[at])
            for at, array in enumerate(arrays)
        ]
        encoded = self._covariates(covariates, len(bags))
        logits = torch.cat([self._logits(bag, encoded, at) for at, bag in enumerate(bags)])  # (b, c)
        sizes = np.array([bag.sizes[0] for bag in bags])
        scores = forward.decoded(self.checkpoint.endpoint, logits)
        table = pd.DataFrame({"tiles": sizes}).assign(**scores)
        means = torch.stack([forward.mean(bag) for bag in bags]).numpy()
        row_bags = RowBags(np.arange(len(bags)), [f"bag {at}" for at in range(len(bags))], sizes, means)
        predictions = self.manifest.fitted.apply(table, row_bags)
        predictions.insert(0, "bag", row_bags.row)  # also for rows whose result is withheld
        return with_origin(predictions, [self.checkpoint])

    def predict_files(self, folder: str | Path, cohort: str | Path | None = None) -> pd.DataFrame:
        """Predict a folder of feature files: one row per slide, or with a table of patients one row per patient.

        Raises:
            MilError: if files or table cannot be read or do not fit the tool.
        """
        predictions = predict(self.checkpoint, Path(folder), None if cohort is None else Path(cohort))
        return with_origin(predictions, [self.checkpoint])

    def _bag(self, at: int, features: Array, coords: Array | None) -> Bags:
        tiles = _tensor(features).float()
        if tiles.ndim != 2 or tiles.shape[1] != self.width or not len(tiles):
            raise FeatureError(
                f"bag {at}: features are {tuple(tiles.shape)}, expected (n, {self.width}) with n above 0"
            )
        if not tiles.isfinite().all():
            raise FeatureError(f"bag {at}: features are not finite")
        positions = None if coords is None else _tensor(coords)
        if positions is not None and positions.shape != (len(tiles), 2):
            raise FeatureError(f"bag {at}: coords are {tuple(positions.shape)}, expected ({len(tiles)}, 2)")
        if positions is None and self.checkpoint.model.reads_places():
            raise FeatureError(f"bag {at}: coords are missing, and {self.manifest.model.name} needs them")
        return Bags(tiles, (len(tiles),), positions)

    def _covariates(self, table: pd.DataFrame | None, bags: int) -> Tensor | None:
        covariates = self.checkpoint.covariates
        if covariates is None:
            return None
        if table is None or len(table) != bags or set(covariates.columns) - set(table.columns):
            given = "none" if table is None else f"{len(table)} rows of {', '.join(map(str, table.columns))}"
            raise CohortError(f"covariates: {given}, expected {bags} rows of {', '.join(covariates.columns)}")
        text = table.astype(object).where(table.notna(), "").astype(str)
        covariates.check(text)
        return covariates.encode(text)

    def _logits(self, bag: Bags, covariates: Tensor | None, at: int) -> Tensor:
        row = None if covariates is None else covariates[at : at + 1]
        device = forward.device()
        inputs = Bags(bag.features, bag.sizes, bag.coords, covariates=row).to(device)
        with torch.inference_mode():
            output: Output = self.checkpoint.model.to(device)(inputs)
            return output.logits.cpu()  # (1, c)


def load(name: str | Path, allow: Collection[str] = (), key: str | Path | None = None) -> Predictor:
    """Load and verify a released tool, given by name (`msi-crc`, `msi-crc@1.0.0`) or folder.

    Args:
        name: Name of a tool that comes with the package or was pulled, or a checkpoint folder.
        allow: Classes outside this package that the checkpoint may use.
        key: Public key (PEM) of the required signer; by default what the policy of this machine demands.

    Raises:
        ConfigError: if there is no such tool.
        CheckpointError: if the folder does not match its manifest, or is not signed as required.
    """
    folder = resolve(name)
    check_origin(folder, None if key is None else Path(key))
    return Predictor(checkpoints.load(folder, allow))


def load_all(allow: Collection[str] = (), key: str | Path | None = None) -> tuple[dict[str, Predictor], dict[str, str]]:
    """Load every tool that comes with the package or was pulled, as `load` does by their names.

    Returns:
        The tools by name, and by name why others cannot be loaded: they are not signed as required, for instance.

    Raises:
        ConfigError: if there is no tool.
        MilError: if none can be loaded; of the first.
    """
    folders: dict[str, Path] = {}
    for name, _, folder in local():
        folders.setdefault(name, folder)
    tools: dict[str, Predictor] = {}
    errors: dict[str, MilError] = {}
    for name, folder in folders.items():
        try:
            tools[name] = load(folder, allow, key)
        except MilError as error:
            errors[name] = error
    if not folders:
        raise ConfigError("there is no released tool here: mil zoo pull fetches some")
    if not tools:
        raise next(iter(errors.values()))
    return tools, {name: str(error) for name, error in errors.items()}


def _as_list(arrays: Arrays) -> list[Array]:
    return [arrays] if isinstance(arrays, np.ndarray | Tensor) else list(arrays)


def _tensor(array: Array) -> Tensor:
    return array.detach().cpu() if isinstance(array, Tensor) else torch.from_numpy(np.ascontiguousarray(array))
