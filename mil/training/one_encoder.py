"""What a model that reads several encoders predicts from one of them: for the section of the report that asks so."""

from collections.abc import Iterator
from typing import ClassVar

import pandas as pd
import torch
from torch import Tensor

from mil.bags import Bags
from mil.features.encoders import Encoder
from mil.fitted.novelty import Packed, unpacked
from mil.inference.forward import logits
from mil.models.fusion import Fused
from mil.models.mil_model import MILModel, Output
from mil.models.network_ensemble import NetworkEnsemble
from mil.report.sections.encoder_gain import ABLATED, ENCODER, HOW, MEMBER
from mil.study.study import Study
from mil.training.fold import Fold, predictions

FILE = "encoders.csv"
"""In a run folder and those of its folds: predictions of report patients from each encoder alone."""


class OneEncoder(MILModel):
    """A trained model that is shown the features of one encoder, and the mean training tile's of all others."""

    paper: ClassVar[str] = "the inner model's"
    cost: ClassVar[str] = "the inner model's"

    def __init__(self, inner: MILModel, block: slice, reference: Tensor) -> None:
        """`reference` are the features of the mean training tile, `(d,)`."""
        super().__init__()
        self.inner, self.block = inner, block
        self.register_buffer("reference", reference.float())

    def forward(self, bags: Bags) -> Output:
        """Return the inner model's output for the features of one encoder."""
        features = self.get_buffer("reference").to(bags.features).expand(len(bags.features), -1).clone()
        features[:, self.block] = bags.features[:, self.block]
        output: Output = self.inner(bags.with_features(features))
        return output

    def reads_places(self) -> bool:
        """Return whether the inner model does."""
        return self.inner.reads_places()


def alone_predictions(study: Study, model: MILModel, fold: Fold, reference: Packed, readers: int) -> pd.DataFrame:
    """Return what a fold's model predicts of its report patients from each encoder alone.

    Args:
        study: All patients.
        model: Trained on all encoders.
        fold: The fold.
        reference: Features of the mean training tile.
        readers: Processes that read ahead.

    Returns:
        The columns of predictions, and `encoder` and `how`: whether the other encoders' features were replaced by their
        mean, or the model is the ensemble's member.
    """
    tables = []
    for encoder, how, seen in _each_alone(model, study.encoder, torch.from_numpy(unpacked(reference))):
        raw = {"report": logits(seen, fold.data["report"], readers)}
        tables.append(predictions(study, fold, raw).assign(**{ENCODER: encoder, HOW: how}))
    return pd.concat(tables)


def _each_alone(model: MILModel, encoder: Encoder, reference: Tensor) -> Iterator[tuple[str, str, MILModel]]:
    inner = model.inner if isinstance(model, Fused) else model
    if isinstance(inner, NetworkEnsemble) and inner.widths:
        for at, part in enumerate(encoder.parts):
            inner.alone = at
            yield part.name, MEMBER, model
        inner.alone = None
        return
    start = 0
    for part in encoder.parts:
        yield part.name, ABLATED, OneEncoder(model, slice(start, start + part.dim), reference)
        start += part.dim
