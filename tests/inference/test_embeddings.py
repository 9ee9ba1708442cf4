"""Embeddings of each patient: that of the model, and the mean of the tiles."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mil import checkpoint
from mil.bags import Bags
from mil.errors import CheckpointError, EncoderError
from mil.inference.embeddings import embedded
from mil.models.mil_model import MILModel, Output
from mil.study.compose import read_config
from mil.study.pipeline import read_study
from mil.study.study import Study

Reader = Callable[..., Study]


@pytest.fixture
def study(real_run: Path) -> Reader:
    """Return a function that reads the run's study with other options."""

    def read(**data: str) -> Study:
        config = read_config(real_run / "config.yaml")
        return read_study(config.replaced({f"data.{name}": value for name, value in data.items()}))

    return read


def test_slides_of_a_patient_are_embedded_as_one_bag(real_run: Path, study: Reader) -> None:
    loaded, read = checkpoint.load(real_run / "checkpoint"), study()
    patients = list(read.patients.index)[::2]
    embeddings = embedded(loaded, read, patients[::-1])
    assert list(embeddings.patients) == patients
    for at, patient in enumerate(patients):
        slides = [read.store.read(slide) for slide in read.patients.loc[patient, "slides"]]
        tiles = torch.cat([slide.features.float() for slide in slides])
        with torch.inference_mode():
            expected = loaded.model(Bags.pack([tiles], [None])).embedding[0]
        torch.testing.assert_close(embeddings.bag[at], expected.double(), atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(embeddings.encoder[at], tiles.double().mean(0), atol=1e-6)


def test_embeddings_of_slide_bags_are_averaged_per_patient(real_run: Path, study: Reader) -> None:
    loaded, read = checkpoint.load(real_run / "checkpoint"), study(bag="slide")
    patients = list(read.patients.index)
    several = next(patient for patient in patients if len(read.patients.loc[patient, "slides"]) > 1)
    embeddings = embedded(loaded, read, patients)
    slides = [read.store.read(slide).features.double() for slide in read.patients.loc[several, "slides"]]
    expected = torch.stack([tiles.mean(0) for tiles in slides]).mean(0)
    np.testing.assert_allclose(embeddings.encoder[patients.index(several)], expected, atol=1e-6)


class WithoutEmbedding(MILModel):
    """A model whose bag embedding is empty."""

    def forward(self, bags: Bags) -> Output:
        return Output(torch.zeros(len(bags), 1), torch.zeros(len(bags), 0))


def test_missing_embedding_and_another_encoder_are_refused(real_run: Path, study: Reader) -> None:
    loaded, read = checkpoint.load(real_run / "checkpoint"), study()
    patients = list(read.patients.index)
    with pytest.raises(CheckpointError, match=r"embeds no bag, its embedding is \(1, 0\), expected \(1, e\)"):
        embedded(replace(loaded, model=WithoutEmbedding()), read, patients)
    of_another_encoder = replace(loaded, encoder=replace(loaded.encoder, name="uni", dim=1024))
    with pytest.raises(EncoderError, match=r"features of simulated \(16 wide\), expected uni \(1024 wide\)"):
        embedded(of_another_encoder, read, patients)
