"""What the measures of faithfulness say of maps whose quality is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mil.bags import Bags
from mil.endpoints.classification import Binary
from mil.endpoints.regression import Regression
from mil.explain.explained_model import ExplainedModel
from mil.explain.measure_faithfulness import FaithfulnessMeter, TrueTiles, discriminant, reinitialised
from mil.explain.methods import MethodOptions, Scored, scorers_of
from mil.explain.tile_scores import Method
from mil.models.abmil import ABMIL
from mil.models.mil_model import MILModel, Output
from mil.report.sections.explanations import Faithfulness, MapFaithfulness
from mil.stats.means import mean_of_patients

OPTIONS = MethodOptions()


class MeanOfFirst(MILModel):
    """The logit is the mean of the tiles' first feature, times a weight."""

    paper, cost = "none", "n"

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([[1.0, 0.0, 0.0]]))

    def forward(self, bags: Bags) -> Output:
        mean = bags.mean(bags.features @ self.weight.T)
        return Output(mean, mean)


class Given:
    """A method whose map is a feature of the tiles, times a sign."""

    def __init__(self, name: str, feature: int, sign: float) -> None:
        self.METHOD = Method(name=name, title=name, signed=True, sentence="")
        self.feature, self.sign = feature, sign

    def score(self, model: ExplainedModel, bag: Bags, options: MethodOptions) -> Scored:
        return Scored(scores=self.sign * bag.features[:, self.feature : self.feature + 1].double())


def measured(endpoint: Binary | Regression, methods: list[Given]) -> dict[str, MapFaithfulness]:
    meter = FaithfulnessMeter(methods, OPTIONS)
    model = ExplainedModel(MeanOfFirst().eval(), endpoint, torch.zeros(3))
    for patient in range(12):
        features = torch.randn(60, 3, generator=torch.Generator().manual_seed(patient)) + 0.3
        telling = {endpoint.explained()[0].name: (features[:, 0] > 1).numpy()}
        meter.add(model, f"P{patient}", Bags(features, (60,)), TrueTiles(telling=telling))
    return {each.method: each for each in meter.section().maps}


def test_the_true_map_gains_the_reversed_one_loses_and_a_foreign_one_does_neither() -> None:
    methods = [Given("true", 0, 1.0), Given("reversed", 0, -1.0), Given("foreign", 1, 1.0)]
    maps = measured(Binary("MSI", ["MSS", "MSI-H"]), methods)
    true, backwards, foreign = (maps[name].srg for name in ("true", "reversed", "foreign"))
    assert true.low is not None
    assert backwards.high is not None
    assert true.low > 0.5
    assert backwards.high < -0.5
    assert foreign.low is not None
    assert foreign.high is not None
    assert foreign.low < 0 < foreign.high
    assert true.counts == {"n": 12}
    assert true.unit == "log odds"
    assert maps["true"].telling is not None
    assert maps["true"].telling.value == 1
    assert maps["reversed"].telling is not None
    assert maps["reversed"].telling.value == 0
    few, many = maps["true"].sufficient, maps["reversed"].sufficient
    assert few is not None
    assert many is not None
    assert few.value is not None
    assert many.value is not None
    assert few.value < 0.1 < many.value


def test_a_map_without_signs_is_judged_towards_the_result() -> None:
    """Tiles far below zero make these outputs low: a map that names them without a sign is right, not wrong."""

    class Size(Given):
        def score(self, model: ExplainedModel, bag: Bags, options: MethodOptions) -> Scored:
            return Scored(scores=bag.features[:, :1].abs().double())

    gains = []
    for signed in (True, False):
        method = Size("size", 0, 1.0)
        method.METHOD = replace(method.METHOD, signed=signed)
        meter = FaithfulnessMeter([method], OPTIONS)
        model = ExplainedModel(MeanOfFirst().eval(), Binary(), torch.zeros(3))
        for patient in range(4):
            features = -torch.rand(30, 3, generator=torch.Generator().manual_seed(patient))
            meter.add(model, f"P{patient}", Bags(features, (30,)))
        gains.append(meter.section().maps[0].srg.value)
    assert gains[0] is not None
    assert gains[1] is not None
    assert gains[0] < 0 < gains[1]


def test_curves_begin_and_end_where_they_must() -> None:
    curves = measured(Regression("score"), [Given("true", 0, 1.0)])["true"]
    assert curves.sufficient is None  # a value makes no call
    assert curves.deletion.x[0] == 0
    assert curves.deletion.x[-1] == 1
    assert len(curves.deletion.x) == 101
    assert curves.deletion.y[0] == pytest.approx(0)
    assert curves.deletion.y[-1] == pytest.approx(curves.deletion_least_first.y[-1])  # no tiles: the reference
    assert curves.deletion.y[50] is not None
    assert curves.deletion_least_first.y[50] is not None
    assert curves.deletion.y[50] < curves.deletion_least_first.y[50]
    assert curves.insertion.y[-1] == pytest.approx(-(curves.deletion.y[-1] or 0))


def test_closed_form_and_reading_every_part_give_the_same_curves() -> None:
    torch.manual_seed(0)
    abmil = ABMIL(3, 1, 8, 4).eval()

    class Closed(ABMIL):
        def tile_terms(self, bags: Bags) -> None:  # type: ignore[override]
            return None

    read = Closed(3, 1, 8, 4).eval()
    read.load_state_dict(abmil.state_dict())
    bag, sections = Bags(torch.randn(37, 3), (37,)), list[Faithfulness]()
    for network in (abmil, read):
        meter = FaithfulnessMeter(scorers_of(["single"]), OPTIONS)
        meter.add(ExplainedModel(network, Binary(), torch.zeros(3)), "P", bag)
        sections.append(meter.section())
    closed, brute = (section.maps[0] for section in sections)
    for name in ("deletion", "deletion_least_first", "insertion", "insertion_least_first"):
        assert getattr(closed, name).y == pytest.approx(getattr(brute, name).y, abs=1e-5)
    assert closed.sufficient == brute.sufficient


def test_new_weights_are_other_weights_of_the_same_size_and_leave_the_model_alone() -> None:
    model = ExplainedModel(ABMIL(3, 1, 64, 8).eval(), None, torch.zeros(3))
    before = [weights.clone() for weights in model.model.parameters()]
    other = reinitialised(model, 0)
    for old, still, new in zip(before, model.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(old, still)
        if old.numel() > 1:
            assert not torch.equal(old, new)
            assert new.std() < 3 * old.std() + 1e-6


def test_the_discriminant_finds_the_direction_between_two_kinds_of_tiles() -> None:
    features = torch.randn(400, 5, generator=torch.Generator().manual_seed(0))
    telling = np.arange(400) < 100
    features[:100, 2] += 3
    way = discriminant(features, telling)
    assert way.abs().argmax() == 2
    assert way[2] > 0


def test_the_mean_over_patients_has_an_interval_where_there_are_two() -> None:
    mean = mean_of_patients([0.2, 0.4, float("nan")], (0, 1))
    assert mean.value == pytest.approx(0.3)
    assert (mean.low, mean.high) == (0, 1)  # one degree of freedom
    assert mean.counts == {"n": 2}
    assert mean_of_patients([0.5]).low is None
    assert mean_of_patients([]).value is None
