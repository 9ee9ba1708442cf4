"""The site of each patient, for splits."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mil.errors import SplitError
from mil.tables import listed, names_no_site

_BARCODE = re.compile(r"TCGA-([A-Z0-9]{2})-[A-Z0-9]{4}(?![A-Z0-9])")


def sites_of(patients: Sequence[str], columns: pd.DataFrame) -> NDArray[np.str_]:
    """Return the site of each patient, `(p,)`.

    Where the cohort has no column for the site and all patients are from TCGA, it is the tissue source site in their
    barcodes. Sites that share a patient count as one, with their names joined by ` + `, because otherwise the patient
    would be in two roles.

    Raises:
        SplitError: Patients have no site.
    """
    if "site" not in columns:
        return _of_barcodes(patients)
    rows = columns.loc[columns["patient"].isin(set(patients)), ["patient", "site"]].drop_duplicates()
    stated = rows["site"].fillna("").astype(str)
    named = rows[[not names_no_site(*pair) for pair in zip(rows["patient"].astype(str), stated, strict=True)]]
    if missing := sorted(set(patients) - set(named["patient"])):
        raise SplitError(
            f"column 'site' names no site of {len(missing)} of {len(patients)} patients: {listed(missing)}"
        )
    person = pd.Categorical(named["patient"], categories=list(patients)).codes.astype(np.intp)
    codes, names = pd.factorize(named["site"].astype(str).str.strip(), sort=True)
    size = len(patients) + len(names)
    links = coo_array((np.ones(len(named)), (person, len(patients) + codes)), (size, size))
    group = connected_components(links, directed=False)[1]
    of_site = group[len(patients) :]
    joined = {component: " + ".join(names[of_site == component]) for component in np.unique(of_site).tolist()}
    return np.array([joined[component] for component in group[: len(patients)].tolist()], dtype=str)


def _of_barcodes(patients: Sequence[str]) -> NDArray[np.str_]:
    sites = {patient: match[1] for patient in patients if (match := _BARCODE.match(patient))}
    if len(sites) < len(patients) or not sites:
        strange = sorted(set(patients) - set(sites))
        raise SplitError(
            f"the cohort has no column 'site', and {len(strange)} of {len(patients)} patients have no TCGA barcode to "
            f"tell it from: {listed(strange)}; name the column by data.columns.site=NAME"
        )
    return np.array([sites[patient] for patient in patients], dtype=str)
