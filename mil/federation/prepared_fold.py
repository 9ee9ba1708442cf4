"""One fold at a hospital, with everything that is fitted to the patients of all hospitals."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from mil.bags import Bags
from mil.federation.bag_gradients import SharedGradient, load_vector
from mil.federation.shared_loss import SharedLoss
from mil.inference.forward import logits, mean, per_patient
from mil.models.mil_model import MILModel, Output
from mil.study.study import Study
from mil.training.fold import Fold, predictions

Floats = NDArray[np.float64]


@dataclass
class PreparedFold:
    """Patients, loss and model of one fold; predictions at the weights that were last asked for.

    Attributes:
        study: The hospital's patients.
        fold: Its bags by role, and the common endpoint.
        shared: The loss as sums over hospitals.
        model: The network.
        control: SCAFFOLD's control variate of the hospital.
    """

    study: Study
    fold: Fold
    shared: SharedLoss
    model: MILModel
    control: Floats | None = None
    _weights: Floats | None = None
    _logits: dict[str, Tensor] = field(default_factory=dict)
    _means: dict[str, Floats] = field(default_factory=dict)

    def gradient(self, role: str, clip: float | None = None) -> SharedGradient:
        """Return gradients and sums of the bags of a role."""
        names = list(self.fold.bags[role]["bag"])
        return SharedGradient(self.model, self.fold.endpoint, self.shared, self.fold.data[role], names, clip)

    def at(self, weights: Floats) -> None:
        """Set the weights; predictions at other weights are forgotten."""
        if self._weights is None or not np.array_equal(self._weights, weights):
            load_vector(self.model, weights)
            self._weights, self._logits = np.array(weights), {}

    def forget(self) -> None:
        """Forget predictions: the model is about to have other weights."""
        self._weights, self._logits = None, {}

    def logits(self, role: str) -> Tensor:
        """Return the logits of all bags of a role, `(b, c)`."""
        if role not in self._logits:
            means: list[Tensor] = []

            def remember(index: int, bags: Bags, output: Output) -> None:
                means.append(mean(bags))

            self._logits[role] = logits(self.model, self.fold.data[role], watch=remember)
            self._means[role] = torch.stack(means).numpy()
        return self._logits[role]

    def means(self, role: str) -> Floats:
        """Return the mean features of all bags of a role, `(b, d)`."""
        self.logits(role)
        return self._means[role]

    def of_patients(self, role: str) -> tuple[Tensor, Tensor]:
        """Return logits and targets of the patients of a role, `(p, c)` and `(p, ...)`."""
        bags = self.fold.bags[role]["patient"]
        patients = pd.Index(sorted(set(bags)))
        first = pd.Index(bags).get_indexer(patients) if bags.is_unique else _first_rows(bags, patients)
        return per_patient(self.logits(role), bags, patients), self.fold.data[role].target[first]

    def table(self, role: str) -> pd.DataFrame:
        """Return targets and scores of the patients of a role, indexed by patient; empty for a role without any."""
        if role not in self.fold.data:
            return pd.DataFrame()
        return predictions(self.study, self.fold, {role: self.logits(role)}).set_index("patient")

    def patients(self, role: str) -> int:
        """Return the number of patients of a role."""
        return int(self.fold.bags[role]["patient"].nunique()) if role in self.fold.bags else 0


def _first_rows(bags: "pd.Series[str]", patients: pd.Index) -> NDArray[np.intp]:
    first = bags.reset_index(drop=True).drop_duplicates()
    return first.index.to_numpy()[pd.Index(first).get_indexer(patients)]
