"""Measure how far maps can be believed, on patients that the model was not trained on.

Deletion: tiles are removed in steps of 1%, most relevant first and least relevant first. A faithful map makes the
output fall early where the most relevant go first, and late, or rise, where the least relevant do. The mean distance of
the two curves is the symmetric relevance gain (J. Hense et al.: xMIL, NeurIPS 2024), here less that of random orders.
Insertion is the same from no tiles upwards. Scores are taken with their sign: a tile against the output comes last. A
map without signs, such as attention, cannot say which way its tiles pull: its gain is counted towards the result, down
for a patient whose output lies below that of the reference.

The model-randomisation check (J. Adebayo et al.: Sanity checks for saliency maps, NeurIPS 2018) compares the map with
that of the same model whose weights were drawn anew, with the mean and spread of each tensor kept.
"""

import copy
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

from mil.bags import Bags
from mil.errors import ConfigError
from mil.explain.call_cuts import CallCuts
from mil.explain.coalitions import Coalitions
from mil.explain.explained_model import ExplainedModel
from mil.explain.methods import MethodOptions, Scorer
from mil.models.mil_model import MILModel
from mil.report.schema import Curve, Estimate
from mil.report.sections.explanations import Faithfulness, MapFaithfulness
from mil.stats import auroc
from mil.stats.estimate import format_number
from mil.stats.means import mean_of_patients

Floats = NDArray[np.float64]
STEPS = 100
"""Steps of the curves: 1% of the tiles each."""
CLOSED_ORDERS, ORDERS = 8, 2
"""Random orders a bag: of weighted means of tiles, which cost nothing, and of other models."""


@dataclass(frozen=True, kw_only=True)
class BagMeasures:
    """The measures of one map of one bag.

    Attributes:
        method: Name of the method.
        title: Of the method.
        output: Name of the output.
        unit: Of the output.
        patient: Whose bag it is.
        cuts: Where the tool's calls change; None where a number has no call.
        descending: Output of the most relevant tiles, by the share of tiles, `STEPS + 1` values.
        ascending: Output of the least relevant tiles.
        gain: Symmetric relevance gain less that of random orders.
        sufficient: Least share of tiles that keeps the call; NaN without a call.
        randomised: Rank correlation with the map of weights that were drawn anew.
        telling: AUROC against the tiles that truly tell; NaN where they are not known.
        oracle: The same of a reader who knows the tissues.
    """

    method: str
    title: str
    output: str
    unit: str
    patient: str
    cuts: CallCuts | None
    descending: tuple[float, ...]
    ascending: tuple[float, ...]
    gain: float
    sufficient: float
    randomised: float
    telling: float
    oracle: float


@dataclass(frozen=True, kw_only=True, eq=False)
class TrueTiles:
    """What is known of the tiles of a simulated bag.

    Attributes:
        telling: Which tiles carry what an output is about, `(n,)`, by output.
        oracle: Score of a reader who knows the tissues, `(n,)`, by output; empty where there is none.
    """

    telling: Mapping[str, NDArray[np.bool_]]
    oracle: Mapping[str, Floats] = field(default_factory=dict)


class FaithfulnessMeter:
    """Collects the measures of patients, bag by bag, and returns the section of the report."""

    def __init__(self, scorers: Sequence[Scorer], options: MethodOptions, randomisations: int = 1) -> None:
        """Begin; `randomisations` is how often the weights are drawn anew for each bag."""
        self.scorers, self.options, self.randomisations = list(scorers), options, randomisations
        self.measures = list[BagMeasures]()

    def add(
        self,
        model: ExplainedModel,
        patient: str,
        bag: Bags,
        truth: TrueTiles | None = None,
        cuts: Mapping[str, CallCuts] | None = None,
    ) -> None:
        """Measure the maps of a bag that the model was not trained on; bags of fewer than two tiles have no order.

        Methods that the model does not have are left out.

        Args:
            model: The model.
            patient: Whose bag it is.
            bag: The bag.
            truth: What is known of its tiles.
            cuts: Where the tool's calls change, by output; other outputs with a yes and a no change at one half.
        """
        if len(bag.features) < 2:
            return
        coalitions, complete = Coalitions(model, bag), model(bag)[0].numpy()
        untrained = [reinitialised(model, seed) for seed in range(self.randomisations)]
        random = self._random_gain(coalitions)
        for scorer in self.scorers:
            try:
                scores = scorer.score(model, bag, self.options).scores.numpy()
                others = [scorer.score(each, bag, self.options).scores.numpy() for each in untrained]
            except ConfigError:
                continue
            for at, output in enumerate(model.outputs):
                of_output = None if output.turns_at is None else CallCuts(cuts=(output.turns_at,))
                of_output = (cuts or {}).get(output.name, of_output)
                curves = _curves(coalitions, scores[:, at])[:, :, at]
                towards = float(np.sign(complete[at] - curves[0, 0]))
                direction = 1.0 if scorer.METHOD.signed else towards
                measures = BagMeasures(
                    method=scorer.METHOD.name,
                    title=scorer.METHOD.title,
                    output=output.name,
                    unit=output.unit,
                    patient=patient,
                    cuts=of_output,
                    descending=tuple(curves[0].tolist()),
                    ascending=tuple(curves[1].tolist()),
                    gain=direction * (_gain(curves) - float(random[at])),
                    sufficient=_sufficient(curves, float(complete[at]), of_output, scorer.METHOD.signed),
                    randomised=float(np.mean([_rank_correlation(scores[:, at], drawn[:, at]) for drawn in others])),
                    telling=_area(truth, output.name, scores[:, at]),
                    oracle=_area(truth, output.name, None),
                )
                self.measures.append(measures)

    def section(self) -> Faithfulness:
        """Return the measures of each method and output, means over patients with intervals."""
        return faithfulness_of(self.measures)

    def _random_gain(self, coalitions: Coalitions) -> Floats:
        """Return the mean gain of random orders, `(o,)`; its expectation is zero, that of few orders is not."""
        generator = torch.Generator().manual_seed(self.options.seed)
        n, orders = len(coalitions.bag.features), CLOSED_ORDERS if coalitions.terms is not None else ORDERS
        gains = []
        for _ in range(orders):
            noise = torch.rand(n, generator=generator).numpy().astype(np.float64)
            curves = _curves(coalitions, noise)
            gains.append((curves[0] - curves[1])[1:-1].mean(0))
        return np.asarray(np.mean(gains, axis=0))


def faithfulness_of(measures: Iterable[BagMeasures]) -> Faithfulness:
    """Return the measures of each method and output, means over patients with intervals.

    Args:
        measures: Of all bags, in the order of their patients.
    """
    maps: dict[tuple[str, str], list[BagMeasures]] = defaultdict(list)
    for each in measures:
        maps[each.method, each.output].append(each)
    return Faithfulness(maps=tuple(map(_summary, maps.values())))


def _summary(measures: Sequence[BagMeasures]) -> MapFaithfulness:
    """Return the measures of one method and output."""
    by_patient: dict[str, list[BagMeasures]] = defaultdict(list)
    for each in measures:
        by_patient[each.patient].append(each)
    patients, first = list(by_patient.values()), measures[0]
    cuts = {each.cuts for each in measures if each.cuts is not None}
    descending = np.mean([np.mean([bag.descending for bag in bags], axis=0) for bags in patients], axis=0)
    ascending = np.mean([np.mean([bag.ascending for bag in bags], axis=0) for bags in patients], axis=0)
    complete, none = descending[-1], descending[0]

    def estimate(name: str, bounds: tuple[float, float] = (-np.inf, np.inf)) -> Estimate:
        return mean_of_patients([_mean([getattr(bag, name) for bag in bags]) for bags in patients], bounds)

    telling = estimate("telling", (0, 1))
    oracle = estimate("oracle", (0, 1))
    return MapFaithfulness(
        method=first.method,
        title=first.title,
        output=first.output,
        unit=first.unit,
        srg=estimate("gain").model_copy(update={"unit": first.unit}),
        deletion=_curve(ascending[::-1] - complete),
        deletion_least_first=_curve(descending[::-1] - complete),
        insertion=_curve(descending - none),
        insertion_least_first=_curve(ascending - none),
        sufficient=estimate("sufficient", (0, 1)) if cuts else None,
        call_at=_call_at(cuts),
        randomised=estimate("randomised", (-1, 1)),
        telling=telling if telling.value is not None else None,
        telling_oracle=oracle if oracle.value is not None else None,
    )


def reinitialised(model: ExplainedModel, seed: int) -> ExplainedModel:
    """Return the model with weights drawn anew: normal, with the mean and the spread of each tensor."""
    network: MILModel = copy.deepcopy(model.model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in network.parameters():
            noise = torch.randn(weights.shape, generator=generator).to(weights)
            spread = weights.std(correction=0)
            weights.copy_(weights.mean() + spread * noise)
    return replace(model, model=network)


def _curves(coalitions: Coalitions, scores: Floats) -> Floats:
    """Return the outputs of the most and of the least relevant tiles by their share, `(2, STEPS + 1, o)`."""
    n = len(scores)
    counts = np.round(np.linspace(0, n, STEPS + 1)).astype(int)
    distinct, place = np.unique(counts, return_inverse=True)
    descending = torch.from_numpy(np.argsort(-scores, kind="stable"))
    curves = [coalitions.firsts(order, distinct.tolist())[place] for order in (descending, descending.flip(0))]
    return torch.stack(curves).numpy()


def _gain(curves: Floats) -> float:
    """Return the mean over the steps of what is left without the least relevant less without the most relevant."""
    return float((curves[0] - curves[1])[1:-1].mean())


def _sufficient(curves: Floats, complete: float, cuts: CallCuts | None, signed: bool) -> float:
    """Return the smallest share of tiles that gives the call of all tiles; NaN without a call, or between two cuts.

    For a negative call the tiles against the output come first, where scores have a sign.
    """
    if cuts is None:
        return float("nan")
    zone, highest = int(cuts.zone(np.array([complete]))[0]), len(cuts.cuts)
    if 0 < zone < highest:
        return float("nan")
    same = cuts.zone(curves[0] if zone == highest or not signed else curves[1]) == zone
    same[0] = False  # no tiles are no evidence
    return float(np.argmax(same) / STEPS)


def _call_at(cuts: Collection[CallCuts]) -> str | None:
    """Return in words where a call changes; models of several folds have cuts of their own."""
    if not cuts:
        return None
    if not all(each.of_tool for each in cuts):
        fallback = "a probability of one half, as the tool has no cut of its own for it"
        return f"the tool's own cut, or in some folds at {fallback}" if any(each.of_tool for each in cuts) else fallback
    texts = []
    for at in range(max(len(each.cuts) for each in cuts)):
        shares = [1 / (1 + np.exp(-each.cuts[at])) for each in cuts if at < len(each.cuts)]
        low, high = (format_number(float(value)) for value in (min(shares), max(shares)))
        texts.append(low if low == high else f"{low} to {high} by fold")
    return f"the tool's own cut, a probability of {' and of '.join(texts)}, before calibration"


def _rank_correlation(first: Floats, second: Floats) -> float:
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(spearmanr(first, second).statistic)


def _area(truth: TrueTiles | None, output: str, scores: Floats | None) -> float:
    """Return the AUROC against the telling tiles, of a map or of the oracle (None); NaN where it is not defined."""
    telling = None if truth is None else truth.telling.get(output)
    if truth is None or telling is None or telling.all() or not telling.any():
        return float("nan")
    values = truth.oracle.get(output) if scores is None else scores
    return float("nan") if values is None else float(auroc(values, telling))


def _mean(values: Sequence[float]) -> float:
    numbers = [value for value in values if np.isfinite(value)]
    return float(np.mean(numbers)) if numbers else float("nan")


def _curve(values: Floats) -> Curve:
    shares = np.linspace(0, 1, STEPS + 1)
    return Curve(x=tuple(shares.round(2).tolist()), y=tuple(values.tolist()))


def discriminant(features: Tensor, telling: NDArray[np.bool_]) -> Tensor:
    """Return the direction `(d,)` of Fisher's linear discriminant between telling tiles and others."""
    tiles = features.double()
    mask = torch.from_numpy(telling)
    inside, outside = tiles[mask], tiles[~mask]
    centred = torch.cat([inside - inside.mean(0), outside - outside.mean(0)])
    spread = centred.T @ centred / len(centred)
    ridge = 1e-3 * spread.diagonal().mean() * torch.eye(len(spread), dtype=torch.float64)
    direction: Tensor = torch.linalg.solve(spread + ridge, inside.mean(0) - outside.mean(0))
    return direction
