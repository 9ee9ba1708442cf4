"""Train on the patients of training and model selection together, for as many epochs as inner folds find best.

The patients of both are divided into parts, stratified as the split is. For each part a network is trained on the
others, and its loss of the part is kept after every epoch. The epochs with the lowest losses, summed over the parts by
their patients, are carried over: a network is trained on all of them, and the mean of its weights after these epochs
counts. So every patient helps to choose the epochs and to train, and the report patients take no part.

Thresholds, calibration and prediction sets need scores of patients that a network was not trained on. For the patients
of model selection these are the mean scores of the networks of the other parts in those epochs (cross-fitting). These
networks had fewer patients than the final one, whose scores may be spread otherwise: what is fitted to them is an
approximation. Where scores have no zero of their own (Cox), those of each part are shifted so that their mean is that
of the final network's for the same patients.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from mil import files
from mil.endpoints.endpoint import Endpoint
from mil.models.mil_model import MILModel
from mil.splits.folds import Split
from mil.splits.strata import check_folds, fold_table, ordered, seeded
from mil.study.run_config import RunConfig
from mil.study.study import Study
from mil.training import saved_state
from mil.training.epoch_choice import Trace, counting
from mil.training.fold import Fold, assembled, cut
from mil.training.ranks import Ranks
from mil.training.train_network import train_network

logger = logging.getLogger(__name__)
TRACE = "trace.json"
CHOICE = 7
"""Place of the choice of parts among the random choices of a fold, see `seeded`."""
Maker = Callable[[Fold], MILModel]
"""Returns a network with fresh weights for the training patients of a fold."""


@dataclass(frozen=True)
class Part:
    """What a network of the other parts says of one part after each epoch.

    Attributes:
        bags: Of the part.
        losses: `(e,)`.
        logits: `(e, b, c)`.
    """

    bags: Sequence[str]
    losses: Tensor
    logits: Tensor


@dataclass(frozen=True)
class CrossFit:
    """What the parts of a fold say together.

    Attributes:
        epochs: Those with the lowest losses, counted from one, the lowest first.
        parts: Bags of each part, and their mean logits `(b, c)` in these epochs.
    """

    epochs: list[int]
    parts: Sequence[tuple[Sequence[str], Tensor]]

    def logits(self, bags: Sequence[str], final: dict[str, Tensor], endpoint: Endpoint) -> Tensor:
        """Return the logits of bags by networks that were not trained on them, `(b, c)`.

        Args:
            bags: Their names.
            final: Logits `(c,)` of every bag by the network of all patients.
            endpoint: What is predicted.
        """
        free = _without_zero(endpoint)
        rows: dict[str, Tensor] = {}
        for names, logits in self.parts:
            shift = torch.stack([final[name] for name in names]).mean(0) - logits.mean(0)
            rows |= zip(names, logits + torch.where(free, shift, 0.0), strict=True)
        return torch.stack([rows[bag] for bag in bags])


def inner_split(config: RunConfig, study: Study, split: Split, number: int) -> Split:
    """Return the parts of a fold's patients of training and model selection, each of which selects once.

    Raises:
        SplitError: A class has fewer patients than there are parts.
    """
    parts = config.selection.refit or 2
    both = sorted([*split.patients(number, "train"), *split.patients(number, "select")])
    strata = study.endpoint.strata(study.target[study.patients.index.get_indexer(pd.Index(both))])
    ids, groups = ordered(both, strata)
    check_folds(parts, 1, groups, f"selection.refit={parts}: fold {number}: ")
    cutter = StratifiedKFold(parts, shuffle=True, random_state=seeded(config.seed, number, CHOICE))
    tables = []
    for part, (_, select) in enumerate(cutter.split(ids, groups)):
        roles = np.full(len(ids), "train", dtype="U6")
        roles[select] = "select"
        tables.append(fold_table(ids, part, roles))
    return Split(pd.concat(tables))


def joined_fold(config: RunConfig, study: Study, split: Split, fold: Fold) -> tuple[Fold, Fold]:
    """Return a fold in which the patients of model selection train too, and the one whose patients are predicted.

    Both have an endpoint and covariates that are fitted to all of them; the latter keeps everybody's role.
    """
    table = split.table[split.table["fold"] == fold.number]
    together = table[table["role"] != "report"].assign(role="train")
    training = cut(config, study, Split(together), fold.number, fold.folder)
    predicted = assembled(config, study, split, fold.number, fold.folder, training.endpoint, training.covariates)
    return training, predicted


def cross_fit(
    config: RunConfig, study: Study, split: Split, fold: Fold, fresh: Maker, readers: int, ranks: Ranks
) -> CrossFit:
    """Train a network for each part and choose the epochs.

    A part that an earlier process finished is kept; one that it began continues.

    Args:
        config: All options.
        study: The patients.
        split: Roles of the patients in each fold.
        fold: The fold.
        fresh: Makes a network.
        readers: Processes that read ahead.
        ranks: The processes that train together.

    Raises:
        MilError: As `mil.training.fit.fit`.
        Interrupted: A signal asks to stop; the state is saved.
    """
    inner = inner_split(config, study, split, fold.number)
    parts = []
    for number in inner.folds:
        name = f"part {number + 1} of {len(inner.folds)}"
        folder = fold.folder / saved_state.FOLDER / f"part_{number}"
        if not (folder / TRACE).exists():
            logger.info("selection.refit: a network is trained without %s", name)
        part = cut(config, study, inner, number, folder)
        parts.append(_traced(config, part, fresh, readers, ranks))
    losses = torch.stack([part.losses for part in parts])  # (parts, e)
    amounts = torch.tensor([len(part.bags) for part in parts], dtype=losses.dtype)
    together, order = (amounts @ losses).sort(stable=True)
    best = order[: counting(together.tolist(), config.selection.best_epochs, len(order))]
    epochs: list[int] = (best + 1).tolist()
    numbers = ", ".join(map(str, sorted(epochs)))
    logger.info("of %d epochs %s have the lowest losses of the parts", len(order), numbers)
    return CrossFit(epochs, [(part.bags, part.logits[best].mean(0)) for part in parts])


def _traced(config: RunConfig, fold: Fold, fresh: Maker, readers: int, ranks: Ranks) -> Part:
    """Return what is said of one part, after training its network unless an earlier process did."""
    path = fold.folder / TRACE
    if path.exists():
        stored = files.read_json(path)
        return Part(stored["bags"], torch.tensor(stored["losses"], dtype=torch.float64), torch.tensor(stored["logits"]))
    trace = Trace()
    train_network(config, fold, fresh(fold), trace, saved_state.latest(fold.folder), readers, ranks)
    bags: list[str] = fold.bags["select"]["bag"].tolist()
    part = Part(bags, torch.tensor(trace.losses, dtype=torch.float64), torch.stack(trace.logits))
    if ranks.leads:
        files.write_json(path, {"bags": bags, "losses": part.losses.tolist(), "logits": part.logits.tolist()})
    return part


def _without_zero(endpoint: Endpoint) -> Tensor:
    """Return for each logit `(c,)` whether a constant may be added to all patients' without a change of the loss."""
    within = endpoint.parts().values() or [endpoint]
    return torch.cat([torch.full((each.out_dim,), each.partial_likelihood is not None) for each in within])
