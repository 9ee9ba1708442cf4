"""What `mil tune` reads of the words of a command line."""

import pytest

from mil.errors import ConfigError
from mil.study.search_space import DEFAULT, Dimension, search_space


def test_options_with_several_values_are_searched_and_the_others_fixed() -> None:
    words = ["tool=msi-crc", "model=abmil,simlp", "optimizer.lr=tag(log,interval(1e-5,1e-3))"]
    space = search_space([*words, "data.batch_bags=int(interval(1,8))", "trainer.max_epochs=range(10,30,10)", "seed=3"])
    assert space.fixed == ("tool=msi-crc", "seed=3")
    assert space.dimensions == (
        Dimension("model", ("abmil", "simlp")),
        Dimension("optimizer.lr", (), 1e-5, 1e-3, log=True),
        Dimension("data.batch_bags", (), 1, 8, integers=True),
        Dimension("trainer.max_epochs", ("10", "20")),
    )
    values = {"model": "simlp", "optimizer.lr": 2e-4, "data.batch_bags": 3, "trainer.max_epochs": "20"}
    chosen = ["model=simlp", "optimizer.lr=0.0002", "data.batch_bags=3", "trainer.max_epochs=20"]
    assert space.words(values) == ["tool=msi-crc", "seed=3", *chosen]
    assert space.dimensions[1].line == "optimizer.lr: 1e-05 to 0.001, log scale"


def test_the_default_search_leaves_out_what_is_given() -> None:
    assert len(search_space(["tool=msi-crc"]).dimensions) == len(DEFAULT)
    assert [each.key for each in search_space(["model=abmil"]).dimensions] == [
        "optimizer.lr",
        "optimizer.weight_decay",
        "trainer.max_epochs",
    ]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("seed=1,2", "seed=1,2: several values of an option that is not searched"),
        ("data.bag=patient,slide", "data.bag=patient,slide: several values of an option that is not searched"),
        ("optimizer.lr=interval(1,0.1)", "expected an interval of two rising numbers"),
        ("optimizer.lr=tag(log,interval(0,1))", "expected an interval of two rising numbers, above 0 on a log scale"),
        ("model=abmil,abmill", "model=abmill does not exist"),
    ],
)
def test_what_cannot_be_searched_is_refused(word: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        search_space([word])
    assert message in str(raised.value)
