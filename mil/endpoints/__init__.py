"""What a tool predicts: one class per kind of target, imported when it is first used."""

from typing import TYPE_CHECKING

from mil.lazy import lazy_attributes

if TYPE_CHECKING:
    from mil.endpoints.aft import LogNormal as LogNormal
    from mil.endpoints.aft import Weibull as Weibull
    from mil.endpoints.classification import Binary as Binary
    from mil.endpoints.classification import Multiclass as Multiclass
    from mil.endpoints.competing_risks import CompetingRisks as CompetingRisks
    from mil.endpoints.discrete_time import DiscreteTime as DiscreteTime
    from mil.endpoints.multilabel import Multilabel as Multilabel
    from mil.endpoints.ordinal import Ordinal as Ordinal
    from mil.endpoints.regression import Regression as Regression
    from mil.endpoints.several import Several as Several
    from mil.endpoints.survival import Cox as Cox

__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "Binary": "classification",
        "CompetingRisks": "competing_risks",
        "Cox": "survival",
        "DiscreteTime": "discrete_time",
        "LogNormal": "aft",
        "Multiclass": "classification",
        "Multilabel": "multilabel",
        "Ordinal": "ordinal",
        "Regression": "regression",
        "Several": "several",
        "Weibull": "aft",
    },
)
