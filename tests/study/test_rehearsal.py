"""All parts of a fit are built before training, except slow ones that are unchanged from `conf/`."""

import pytest

from mil.errors import ConfigError
from mil.study import build
from mil.study.component import Component, Options
from mil.study.compose import compose
from mil.study.pipeline import read_study
from mil.study.rehearsal import rehearse
from tests.conftest import SMALL

WORDS = ["split=holdout", *SMALL, "simulation.target.prevalence=0.4"]


@pytest.fixture
def targets(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which the import path of everything built by `build.make` is appended."""
    made: list[str] = []
    make = build.make

    def record_target(component: Component[Options], **extra: object) -> object:
        made.append(component.target)
        return make(component, **extra)

    monkeypatch.setattr(build, "make", record_target)
    return made


@pytest.mark.parametrize("words", [[], ["optimizer=sgd", "optimizer.lr=0.5", "trainer.max_epochs=3"]])
def test_unchanged_optimizers_trainers_and_callbacks_are_not_built(words: list[str], targets: list[str]) -> None:
    config = compose([*WORDS, *words])
    study = read_study(config)
    targets.clear()
    rehearse(config, study)
    assert [target for target in targets if target.startswith("mil.models.")]
    assert not [target for target in targets if target.startswith(("lightning.", "torch.optim."))]


@pytest.mark.parametrize(
    ("word", "target"),
    [
        ("optimizer.weight_decay=0.5", "torch.optim.Adam"),
        ("trainer.accelerator=cpu", "lightning.pytorch.Trainer"),
        ("callbacks.early_stopping.patience=3", "lightning.pytorch.callbacks.EarlyStopping"),
    ],
)
def test_changed_components_are_built(word: str, target: str, targets: list[str]) -> None:
    config = compose([*WORDS, word])
    study = read_study(config)
    targets.clear()
    rehearse(config, study)
    assert [made for made in targets if made.startswith(("lightning.", "torch.optim."))] == [target]


def test_optimizer_without_a_learning_rate_is_refused_early() -> None:
    config = compose([*WORDS, "optimizer.lr=null"])
    with pytest.raises(ConfigError, match=r"torch\.optim\.Adam: "):
        rehearse(config, read_study(config))
