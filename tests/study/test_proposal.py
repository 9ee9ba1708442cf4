"""What is proposed for a cohort of given numbers, and that the command reads them right."""

from dataclasses import replace

import pytest

from mil.study.proposal import CohortNumbers, propose
from tests.conftest import Mil

LARGE = CohortNumbers(600, 150, "of the smallest class, MSI-H", False, 8000, 60_000, 1536)


def words(numbers: CohortNumbers) -> dict[str, str]:
    return dict(option.word.split("=") for option in propose(numbers).options)


def test_many_patients_with_many_tiles_are_attended_to() -> None:
    assert words(LARGE) == {
        "model": "abmil_gated",
        "optimizer.lr": "1e-4",
        "data.batch_bags": "4",
        "data.max_tiles": "4096",
        "trainer.max_epochs": "16",
    }
    assert "worth trying: 150 patients of the smallest class, MSI-H" in propose(LARGE).attention
    assert words(replace(LARGE, width=256))["optimizer.lr"] == "2e-4"
    assert "data.max_tiles" not in words(replace(LARGE, most_tiles=4000))


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        (replace(LARGE, informative=12), "not worth it: 12 patients of the smallest class, MSI-H, below 30"),
        (replace(LARGE, tiles=4), "not worth it: bags have 4 tiles"),
        (replace(LARGE, tiles=1, most_tiles=1, whole_slides=True), "not worth it: a slide is one vector already"),
    ],
)
def test_where_attention_is_not_worth_it(numbers: CohortNumbers, sentence: str) -> None:
    proposal = propose(numbers)
    assert sentence in proposal.attention
    assert proposal.options[0].word == ("model=mlp" if numbers.whole_slides else "model=simlp")
    assert words(numbers)["optimizer.lr"] == "1e-3"


def test_between_the_limits_attention_is_to_be_compared() -> None:
    proposal = propose(replace(LARGE, informative=60))
    assert "may be worth it" in proposal.attention
    assert proposal.options[0].word == "model=abmil_gated"


def test_few_vectors_of_slides_get_a_penalised_model_without_epochs() -> None:
    few = replace(LARGE, informative=20, tiles=1, most_tiles=1, whole_slides=True)
    assert "trainer.max_epochs" not in words(few)
    assert words(few)["model"] == "linear"


def test_batches_of_a_loss_that_compares_patients_hold_events() -> None:
    rare = replace(LARGE, patients=400, informative=40, compares=True)
    assert words(rare)["data.batch_bags"] == "40"
    assert "10% have the event: about 4 events in a batch" in propose(rare).options[2].reason
    assert words(replace(rare, informative=300))["data.batch_bags"] == "16"


def test_every_word_is_an_option_and_the_command_can_be_pasted(mil: Mil) -> None:
    small = ["simulation.patients=40", "simulation.tiles=20", "simulation.width=16", "tool.novelty=null"]
    shown = mil("propose", "tool=surv-crc", *small, "optimizer.lr=1e-5")
    assert shown.code == 0, shown.err
    first, *_, last = shown.out.splitlines()
    assert first.startswith("40 patients, ")
    assert "with the event; bags of " in first
    assert "optimizer.lr=1e-3  " in shown.out
    assert "; you gave another" in shown.out
    assert last.startswith("mil train tool=surv-crc simulation.patients=40")
    assert "optimizer.lr=1e-3" not in last
    again = mil("propose", *last.split()[2:])
    assert again.code == 0, again.err
