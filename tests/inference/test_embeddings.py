"""What is collected of each patient's bag: the model's embedding, and the mean of the tiles."""

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
    """The run's study, with other options."""

    def read(**data: str) -> Study:
        config = read_config(real_run / "config.yaml")
        return read_study(config.replaced({f"data.{name}": value for name, value in data.items()}))

    return read


def test_a_patients_slides_are_one_bag_as_the_model_was_trained(real_run: Path, study: Reader) -> None:
    loaded, read = checkpoint.load(real_run / "checkpoint"), study()
    patients = list(read.patients.index)[::2]
    found = embedded(loaded, read, patients[::-1])
    assert list(found.patients) == patients
    for at, patient in enumerate(patients):
        slides = [read.store.read(slide) for slide in read.patients.loc[patient, "slides"]]
        tiles = torch.cat([slide.features.float() for slide in slides])
        with torch.inference_mode():
            expected = loaded.model(Bags.pack([tiles], [None])).embedding[0]
        torch.testing.assert_close(found.bag[at], expected.double(), atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(found.encoder[at], tiles.double().mean(0), atol=1e-6)


def test_of_slides_that_are_bags_the_mean_is_taken(real_run: Path, study: Reader) -> None:
    loaded, read = checkpoint.load(real_run / "checkpoint"), study(bag="slide")
    patients = list(read.patients.index)
    several = next(patient for patient in patients if len(read.patients.loc[patient, "slides"]) > 1)
    found = embedded(loaded, read, patients)
    slides = [read.store.read(slide).features.double() for slide in read.patients.loc[several, "slides"]]
    expected = torch.stack([tiles.mean(0) for tiles in slides]).mean(0)
    np.testing.assert_allclose(found.encoder[patients.index(several)], expected, atol=1e-6)


class Mute(MILModel):
    """Answers without a bag embedding."""

    def forward(self, bags: Bags) -> Output:
        return Output(torch.zeros(len(bags), 1), torch.zeros(len(bags), 0))


def test_models_without_an_embedding_and_other_encoders_are_refused(real_run: Path, study: Reader) -> None:
    loaded, read = checkpoint.load(real_run / "checkpoint"), study()
    patients = list(read.patients.index)
    with pytest.raises(CheckpointError, match=r"embeds no bag, its embedding is \(1, 0\), expected \(1, e\)"):
        embedded(replace(loaded, model=Mute()), read, patients)
    stranger = replace(loaded, encoder=replace(loaded.encoder, name="uni", dim=1024))
    with pytest.raises(EncoderError, match=r"features of simulated \(16 wide\), expected uni \(1024 wide\)"):
        embedded(stranger, read, patients)
