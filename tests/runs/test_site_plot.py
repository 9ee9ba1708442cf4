"""The figure of what predicts the site."""

from typing import Any

import numpy as np
from matplotlib.colors import to_hex

from mil.report.figures.style import COLOURS, styled
from mil.runs.design_gap import DesignGap
from mil.runs.site import SiteAudit, SitePatients
from mil.runs.site_plot import draw_site
from mil.stats.estimate import Estimate
from mil.stats.site_signature import SitePredictability


def predictability(value: float, low: float, high: float, chance: float = 0.25) -> SitePredictability:
    accuracy = Estimate(value=value, low=low, high=high)
    return SitePredictability(
        n=100, sites=4, left_out=0, balanced_accuracy=accuracy, chance={"balanced_accuracy": chance}
    )


def audit(**changes: Any) -> SiteAudit:
    results = {
        "embedding": predictability(0.8, 0.7, 0.9),
        "label": predictability(0.26, 0.2, 0.3),
        "encoder": predictability(0.3, 0.25, 0.35),
    }
    return SiteAudit(
        run="run",
        tool="msi-crc",
        model="ABMIL",
        encoder="uni",
        simulated=True,
        cohort=None,
        split="KFold",
        fold=0,
        checkpoint="checkpoint",
        patients=SitePatients(n=100, with_site=100, sites={}),
        site="the TCGA barcodes",
        resamples=10,
        seed=0,
        predicted_from=results,
        beyond_label={},
        metric=None,
        within_sites=None,
        sentences={},
    ).model_copy(update=changes)


def test_each_has_a_row_and_stands_out_where_its_interval_is_above_chance() -> None:
    with styled():
        (axes,) = draw_site(audit()).axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["label", "encoder's mean tile", "bag embedding"]
    texts = {text.get_text(): to_hex(text.get_color()) for text in axes.texts}
    assert list(texts) == ["0.260 (0.200–0.300)", "0.300 (0.250–0.350)", "0.800 (0.700–0.900)"]
    assert [colour == COLOURS[1].lower() for colour in texts.values()] == [False, False, True]
    assert axes.get_title(loc="left") == "msi-crc: the site of 100 patients of 4 sites"


def test_what_cannot_be_predicted_says_so() -> None:
    nothing = SitePredictability(n=4, sites=1, left_out=2, reason="sites of 5 patients or more: 1, expected two")
    results = {"label": predictability(0.3, 0.2, 0.4), "score": nothing}
    (axes,) = draw_site(audit(predicted_from=results)).axes
    assert [text.get_text() for text in axes.texts] == ["0.300 (0.200–0.400)", "not estimable"]


def test_both_designs_are_drawn_with_their_gap() -> None:
    designs = DesignGap(
        metric="auroc",
        random=Estimate(value=0.8, low=0.7, high=0.9),
        preserved=Estimate(value=0.7, low=0.6, high=0.8),
        difference=Estimate(value=0.1, low=0.05, high=0.15),
        paired=True,
        sentence="",
    )
    with styled():
        _, axes = draw_site(audit(designs=designs)).axes
    assert axes.get_title(loc="left") == "Random folds minus folds of whole sites: +0.100 (0.050–0.150)"
    points = axes.lines[1::2]
    assert [float(np.asarray(line.get_xdata())[0]) for line in points] == [0.8, 0.7]
