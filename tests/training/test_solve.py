"""Linear models are solved for like the baseline of every report, and learn from vectors of whole slides."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mil import checkpoint
from mil.endpoints.regression import Regression
from mil.errors import TrainingError
from mil.models.fusion import Fused
from mil.models.linear import Linear
from mil.study import build
from mil.training.baseline import PENALTIES, linear_logits, mean_features
from mil.training.solve import means_of, solve
from tests.conftest import run_quietly
from tests.training.test_whole import CASES, PATIENTS, WIDTH, dataset

Write = Callable[..., Path]


@pytest.mark.parametrize("name", ["cox", "binary"])
def test_logits_are_those_of_the_baseline(name: str) -> None:
    endpoint, target = CASES[name]
    data = dataset(target)
    means = mean_features(data.store, data.slides)
    everyone = torch.arange(PATIENTS)
    expected = linear_logits(means, target, everyone, everyone, endpoint)
    model = Linear(WIDTH, 1)
    penalty = solve(model, endpoint, data, data)
    logits = model(means_of(data).cast(torch.float32)).logits
    torch.testing.assert_close(logits.double(), expected, rtol=1e-3, atol=1e-4)
    assert penalty in PENALTIES
    assert model.penalty.item() == pytest.approx(penalty)


def test_covariates_are_solved_for_with_the_vectors() -> None:
    endpoint, target = CASES["binary"]
    data = dataset(target)
    model = Fused(Linear(WIDTH, 1), 2, 1)
    assert model.solved
    solve(model, endpoint, data, data)
    assert model.shift.weight.abs().max() > 0
    assert model(means_of(data).cast(torch.float32)).logits.isfinite().all()


def test_a_loss_that_is_never_finite_is_an_error() -> None:
    data = dataset(torch.full((PATIENTS,), torch.inf))
    with pytest.raises(TrainingError, match=r"not finite for any penalty of 0\.0001 to 100"):
        solve(Linear(WIDTH, 1), Regression(), data, data)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort of 24 patients with one or two slides, each a vector by TITAN whose first number tells the class."""
    from tests.features.conftest import write_trident

    folder, rng = tmp_path_factory.mktemp("vectors"), np.random.default_rng(0)
    rows = []
    for patient in range(24):
        for slide in range(1 + patient % 2):
            row = rng.standard_normal(768).astype("f4")
            row[0] += 6 * (patient % 3 == 0)
            name = f"p{patient:02d}_{slide}"
            write_trident(folder / "slide_features_titan" / f"{name}.h5", row, np.zeros((3, 2), int), encoder=None)
            rows.append({"patient": f"p{patient:02d}", "slide": name, "label": int(patient % 3 == 0)})
    pd.DataFrame(rows).to_csv(folder / "cohort.csv", index=False)
    return folder


@pytest.mark.parametrize("model", ["linear", "mlp", "abmil"])
def test_vectors_of_slides_are_trained_on_and_predicted(vectors: Path, tmp_path: Path, model: str) -> None:
    data = [f"data.cohort={vectors / 'cohort.csv'}", f"data.features={vectors / 'slide_features_titan'}"]
    words = ["tool=binary", f"model={model}", *data, "split=holdout", "trainer.max_epochs=2", "resamples=20"]
    run = run_quietly(
        "train", *words, "baseline=false", "figures=false", "data.workers=0", f"hydra.run.dir={tmp_path / 'run'}"
    )
    loaded = checkpoint.load(run / "checkpoint")
    assert (loaded.encoder.name, loaded.encoder.level) == ("titan", "slide")
    assert loaded.encoder in build.known_encoders()
    table = pd.read_csv(run / "predictions.csv")
    assert len(table) == 24
    assert (loaded.manifest.training.epochs == 0) == (model == "linear")
