"""Patients for the tests of survival endpoints."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor


def table(**columns: list[object]) -> pd.DataFrame:
    """Return a table of patients named p0, p1, ..."""
    rows = len(next(iter(columns.values())))
    return pd.DataFrame(columns, index=pd.Index([f"p{row}" for row in range(rows)], name="patient"), dtype=object)


def follow_up_targets(seed: int = 0, patients: int = 80, causes: int = 1, step: float = 0.01) -> Tensor:
    """Return targets `(p, 2)`: times from 0.01 to 60 months, multiples of `step`, and 0 or the cause."""
    rng = np.random.default_rng(seed)
    ends = np.stack([rng.uniform(1, 60, patients), *rng.exponential(40, (causes, patients))])  # (1 + k, p)
    time = np.ceil(ends.min(0) / step) * step
    return torch.from_numpy(np.stack([np.minimum(time, 60), ends.argmin(0)], 1))
