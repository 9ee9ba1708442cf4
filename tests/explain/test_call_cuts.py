"""The cut of a call is that of the tool's own decision, on the scale of the explained output."""

import numpy as np
import pandas as pd
import pytest
import torch

from mil.bags import Bags
from mil.endpoints.classification import Binary, Multiclass
from mil.endpoints.ordinal import Ordinal
from mil.endpoints.several import Several
from mil.explain.call_cuts import CallCuts, call_cuts
from mil.explain.explained_model import ExplainedModel
from mil.explain.measure_faithfulness import FaithfulnessMeter
from mil.explain.methods import MethodOptions
from mil.fitted.calibrators import fit as fit_calibrator
from mil.fitted.decision import Decision
from mil.fitted.rules import ArgmaxRule, TwoCutsRule, YoudenRule
from mil.fitted.state import FittedState
from mil.report.sections.explanations import MapFaithfulness
from tests.explain.test_measure_faithfulness import Given, MeanOfFirst

MSI = Binary("MSI", ["MSS", "MSI-H"])


def decision(cuts: tuple[float, ...], columns: tuple[str, ...] = ("p_MSI-H",), name: str = "MSI-H") -> Decision:
    calls = ("no", "yes") if len(cuts) == 1 else ("no", "indeterminate", "yes")
    rule = YoudenRule(rule="youden") if len(cuts) == 1 else TwoCutsRule(rule="two_cuts", low=cuts[0], high=cuts[1])
    return Decision(name=name, columns=columns, rule=rule, cuts=cuts, calls=calls, on="select")


def test_cuts_are_the_log_odds_of_the_decision() -> None:
    state = FittedState(decisions=(decision((0.2,)),))
    assert call_cuts(MSI, state)["MSI-H"].cuts == pytest.approx((np.log(0.25),))
    state = FittedState(decisions=(decision((0.2, 0.8)),))
    assert call_cuts(MSI, state)["MSI-H"].cuts == pytest.approx((np.log(0.25), np.log(4)))
    grades = Ordinal("grade", ["a", "b", "c"])
    above = decision((0.3,), ("p_b", "p_c"), ">= b")
    assert call_cuts(grades, FittedState(decisions=(above,)))[">= b"].cuts == pytest.approx((np.log(3 / 7),))
    both = Several({"msi": MSI, "grade": grades})
    named = decision((0.2,)).model_copy(update={"name": "msi MSI-H"})
    assert list(call_cuts(both, FittedState(decisions=(named,)))) == ["msi: MSI-H"]


def test_a_cut_of_calibrated_probabilities_is_taken_back_to_the_models_own() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(400) < 0.4
    logits = rng.normal(size=400) + 2 * truth
    table = pd.DataFrame({"p_MSI-H": 1 / (1 + np.exp(-logits)), "MSI": np.where(truth, "MSI-H", "MSS")})
    calibrator = fit_calibrator("platt", MSI, table)
    cut = decision((0.35,), ("calibrated_MSI-H",))
    (value,) = call_cuts(MSI, FittedState(decisions=(cut,), calibration=calibrator))["MSI-H"].cuts
    called = cut.call(calibrator.apply(table)) == "yes"
    assert 0 < called.sum() < 400
    assert (called == (logits >= value)).mean() > 0.995


def test_outputs_without_a_cut_of_their_own_have_none() -> None:
    classes = Multiclass("kind", ["a", "b", "c"])
    likeliest = Decision(
        name="kind",
        columns=("p_a", "p_b", "p_c"),
        rule=ArgmaxRule(rule="argmax"),
        cuts=(),
        calls=("a", "b", "c"),
        on="select",
    )
    assert call_cuts(classes, FittedState(decisions=(likeliest,))) == {}
    assert call_cuts(MSI, FittedState()) == {}


def measured(cuts: dict[str, CallCuts] | None) -> MapFaithfulness:
    """Return the measures of the reversed map: lowest tiles first."""
    meter = FaithfulnessMeter([Given("reversed", 0, -1.0)], MethodOptions())
    model = ExplainedModel(MeanOfFirst().eval(), MSI, torch.zeros(3))
    for patient in range(8):
        features = torch.rand(100, 3, generator=torch.Generator().manual_seed(patient))  # means near one half
        meter.add(model, f"P{patient}", Bags(features, (100,)), cuts=cuts)
    (section,) = meter.section().maps
    return section


def test_the_sufficient_share_keeps_the_call_of_the_tool_and_not_that_of_one_half() -> None:
    """Tiles are spread from zero to one, so that the lowest share s of them has the mean s / 2."""
    half = measured(None)
    assert half.sufficient is not None
    assert half.sufficient.value == pytest.approx(0.01)
    assert half.call_at == "a probability of one half, as the tool has no cut of its own for it"
    tool = measured({"MSI-H": CallCuts(cuts=(0.001, 0.99), of_tool=True)})
    assert tool.sufficient is not None
    assert tool.sufficient.value is None, "between two cuts there is no call to keep"
    strict = measured({"MSI-H": CallCuts(cuts=(0.2,), of_tool=True)})
    assert strict.call_at == "the tool's own cut, a probability of 0.550, before calibration"
    assert strict.sufficient is not None
    assert strict.sufficient.value == pytest.approx(0.4, abs=0.05)
