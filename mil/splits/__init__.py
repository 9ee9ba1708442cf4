"""How patients are divided into training, model selection and final test: strategies, imported when first used."""

from typing import TYPE_CHECKING

from mil.lazy import lazy_attributes

if TYPE_CHECKING:
    from mil.splits.by_site import LeaveOneSiteOut as LeaveOneSiteOut
    from mil.splits.by_site import SitePreserved as SitePreserved
    from mil.splits.folds import AllTrain as AllTrain
    from mil.splits.folds import Fixed as Fixed
    from mil.splits.folds import HoldOut as HoldOut
    from mil.splits.folds import KFold as KFold
    from mil.splits.folds import Nested as Nested

__getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "AllTrain": "folds",
        "Fixed": "folds",
        "HoldOut": "folds",
        "KFold": "folds",
        "LeaveOneSiteOut": "by_site",
        "Nested": "folds",
        "SitePreserved": "by_site",
    },
)
