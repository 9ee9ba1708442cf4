"""Simulated follow-up with predicted risks for the tests of survival."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mil.endpoints.competing_risks import CompetingRisks
from mil.endpoints.survival import Cox

from .tables import names, survival

HORIZONS = {"1y": 12, "3y": 36, "5y": 60}
ENDPOINT = Cox(horizons=HORIZONS)
COMPETING = CompetingRisks(causes=("relapse", "death"), horizons={"3y": 36})
Floats = NDArray[np.float64]


def with_risks(seed: int = 0, patients: int = 150, stretch: float = 1.0) -> pd.DataFrame:
    """The patients of `survival`, and at each horizon the true risk, or one too extreme by `stretch`."""
    table = survival(seed, patients)
    hazard = np.exp(stretch * (table["log_hazard"] - 10 * table["fold"]))
    return table.assign(**{f"risk_{name}": -np.expm1(-at / 50 * hazard) for name, at in HORIZONS.items()})


def competed(seed: int = 0, patients: int = 150) -> pd.DataFrame:
    """Every fourth of them dies of something else."""
    table = with_risks(seed, patients)
    words = np.where(table["event"] == 1, "relapse", "censored")
    words = np.where(table["patient"].astype(int) % 4 == 0, "death", words)
    return table.assign(event=words, risk=table["risk_3y"], risk_relapse_3y=table["risk_3y"])


def clinic(seed: int = 0, patients: int = 150) -> pd.DataFrame:
    """Age, stage and site of the patients as a clinical table has them: words, some of them missing."""
    rng = np.random.default_rng(seed + 100)
    age = [f"{value:.0f}" if at % 17 else "" for at, value in enumerate(rng.normal(65, 10, patients))]
    columns = {
        "age": age,
        "stage": rng.choice(["I", "II", "III", ""], patients),
        "site": rng.choice(["A", "B"], patients),
    }
    return pd.DataFrame(columns, index=pd.Index(names(patients), name="patient"), dtype=object)


def follow_up(seed: int, patients: int, values: int, causes: int = 1) -> tuple[Floats, Floats]:
    """Times and codes; the fewer values, the more ties."""
    rng = np.random.default_rng(seed)
    return rng.integers(1, values + 1, patients).astype(float), rng.integers(0, causes + 1, patients).astype(float)
