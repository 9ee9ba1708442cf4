"""What a model makes of each patient's bag before it decides, and the mean of the tiles it was given."""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from mil.checkpoint import Checkpoint
from mil.errors import CheckpointError, EncoderError
from mil.features.batches import BagDataset
from mil.inference.predict import mean, outputs, per_patient
from mil.models.mil_model import Output
from mil.study.study import Study


class Embedded(NamedTuple):
    """Numbers about `p` patients, in double precision."""

    patients: pd.Index
    bag: Tensor
    """`(p, e)`, the model's embedding of the bag"""
    encoder: Tensor
    """`(p, d)`, the mean of the tiles' features: what the encoder says of the patient without the model"""


def embedded(checkpoint: Checkpoint, study: Study, patients: Sequence[str], workers: int = 0) -> Embedded:
    """Reads the whole bags of these patients, each file once.

    Where each slide is a bag, a patient's numbers are the means over the slides, as scores are.

    Raises:
        CheckpointError: the model gives no embedding.
        EncoderError: features of another encoder than the model's.
    """
    _refuse_other(checkpoint, study)
    bags, target = study.rows(list(patients))
    known = checkpoint.covariates
    beside = None if known is None else known.encode(study.patients.loc[bags["patient"]])
    dataset = BagDataset(study.store, list(bags["slides"]), target, covariates=beside)
    pooled, means = list[Tensor](), list[Tensor]()
    for _, seen, output in outputs(checkpoint.model, dataset, workers):
        pooled.append(_embedding(output, checkpoint))
        means.append(mean(seen))
    index = pd.Index(sorted(patients), name="patient")
    return Embedded(index, *(per_patient(torch.stack(rows), bags["patient"], index) for rows in (pooled, means)))


def _embedding(output: Output, checkpoint: Checkpoint) -> Tensor:
    """Of one bag, `(e,)`."""
    found: object = output.embedding  # a model of somebody's own may leave it out
    if not isinstance(found, Tensor) or found.ndim != 2 or 0 in found.shape:
        shown = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        name = checkpoint.manifest.model.name
        raise CheckpointError(f"{checkpoint.folder}: {name} embeds no bag, its embedding is {shown}, expected (1, e)")
    return found[0].double().cpu()


def _refuse_other(checkpoint: Checkpoint, study: Study) -> None:
    ours, theirs = checkpoint.encoder, study.encoder
    if (ours.name, ours.dim) != (theirs.name, theirs.dim):
        found = f"features of {theirs.name} ({theirs.dim} wide)"
        raise EncoderError(f"{study.store.folder}: {found}, expected {ours.name} ({ours.dim} wide) as the model")
