"""Embeddings of patients: the model's embedding of the bag, and the mean features of its tiles."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from mil.checkpoint import Checkpoint
from mil.errors import CheckpointError, EncoderError
from mil.features.batches import BagDataset
from mil.inference.forward import mean, outputs, per_patient
from mil.models.mil_model import Output
from mil.study.study import Study


class Embedded(NamedTuple):
    """Embeddings of `p` patients, in double precision."""

    patients: pd.Index
    bag: Tensor
    """`(p, e)`, the model's embedding of the bag"""
    encoder: Tensor
    """`(p, d)`, the mean features of the tiles, which the encoder gives without the model"""


def embedded(checkpoint: Checkpoint, study: Study, patients: Sequence[str], workers: int = 0) -> Embedded:
    """Return the embeddings of these patients' bags; each file is read once.

    Where each slide is a bag, a patient's embeddings are the means over the slides, as scores are.

    Raises:
        CheckpointError: the model gives no embedding.
        EncoderError: features of another encoder than the model's.
    """
    _check_encoder(checkpoint, study)
    bags, target = study.rows(list(patients))
    covariates = checkpoint.covariates
    encoded = None if covariates is None else covariates.encode(study.patients.loc[bags["patient"]])
    dataset = BagDataset(study.store, list(bags["slides"]), target, covariates=encoded)
    pooled, means = list[Tensor](), list[Tensor]()
    for _, bag, output in outputs(checkpoint.model, dataset, workers):
        pooled.append(_embedding(output, checkpoint))
        means.append(mean(bag))
    index = pd.Index(sorted(patients), name="patient")
    return Embedded(index, *(per_patient(torch.stack(rows), bags["patient"], index) for rows in (pooled, means)))


def _embedding(output: Output, checkpoint: Checkpoint) -> Tensor:
    """Return the embedding of one bag, `(e,)`."""
    embedding: object = output.embedding  # models from outside the package may leave it out
    if not isinstance(embedding, Tensor) or embedding.ndim != 2 or 0 in embedding.shape:
        shown = tuple(embedding.shape) if isinstance(embedding, Tensor) else type(embedding).__name__
        name = checkpoint.manifest.model.name
        raise CheckpointError(f"{checkpoint.folder}: {name} embeds no bag, its embedding is {shown}, expected (1, e)")
    return embedding[0].double().cpu()


def _check_encoder(checkpoint: Checkpoint, study: Study) -> None:
    expected, encoder = checkpoint.encoder, study.encoder
    if (expected.name, expected.dim) != (encoder.name, encoder.dim):
        raise EncoderError(
            f"{study.store.folder}: features of {encoder.name} ({encoder.dim} wide), "
            f"expected {expected.name} ({expected.dim} wide) as the model"
        )
