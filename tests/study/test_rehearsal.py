"""What a fit is made of is built before any work, but for what stands in `conf/` unchanged and is slow to load."""

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
    """The import paths of what `build.make` makes."""
    made: list[str] = []
    make = build.make

    def noted(component: Component[Options], **extra: object) -> object:
        made.append(component.target)
        return make(component, **extra)

    monkeypatch.setattr(build, "make", noted)
    return made


@pytest.mark.parametrize("words", [[], ["optimizer=sgd", "optimizer.lr=0.5", "trainer.max_epochs=3"]])
def test_shipped_optimizers_trainers_and_callbacks_are_not_loaded(words: list[str], targets: list[str]) -> None:
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
def test_what_differs_from_the_shipped_choice_is_built(word: str, target: str, targets: list[str]) -> None:
    config = compose([*WORDS, word])
    study = read_study(config)
    targets.clear()
    rehearse(config, study)
    assert [made for made in targets if made.startswith(("lightning.", "torch.optim."))] == [target]


def test_an_optimizer_without_a_learning_rate_is_refused_before_any_work() -> None:
    config = compose([*WORDS, "optimizer.lr=null"])
    with pytest.raises(ConfigError, match=r"torch\.optim\.Adam: "):
        rehearse(config, read_study(config))
