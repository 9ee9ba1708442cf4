"""Another model on the same patients in the same folds: its metrics, and how much better the evaluated model is."""

from typing import ClassVar

from mil.report.page.words import named
from mil.report.schema import Estimate, Section


class Comparator(Section):
    """Metrics of another model, and the difference to it on the same resamples."""

    model_name: ClassVar[str]
    """what the model is called in sentences"""

    name: str
    metrics: dict[str, Estimate]
    difference: dict[str, Estimate]
    """the evaluated model minus this one, paired"""

    def verdict(self, metric: str) -> str:
        """Return whether the evaluated model is better by this metric, as a sentence."""
        gain = self.difference.get(metric)
        if gain is None or gain.value is None or gain.low is None or gain.high is None:
            return f"The difference to {self.name} is not estimable."
        shown = "beats" if gain.low > 0 else "is worse than" if gain.high < 0 else "is not shown to beat"
        return f"The model {shown} {self.name}: difference in {named(metric)} {gain}, paired."
