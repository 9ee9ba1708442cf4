"""One run: every fold of a split fitted, scored and saved, from wherever an earlier process was stopped."""

import copy
import logging
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

import mil
from mil import build, checkpoint, files
from mil.build import Study
from mil.checkpoint import Manifest
from mil.data.batches import BagDataset, TrainOrder, loader
from mil.data.splits import Split
from mil.endpoints.base import Endpoint
from mil.endpoints.classification import Binary
from mil.errors import PredictionsError
from mil.evaluation.thresholds import choose
from mil.inference.predict import logits, per_patient
from mil.models.base import MILModel
from mil.training.baseline import linear_logits, mean_features
from mil.training.module import MILModule
from mil.training.progress import Progress

ROLES = ("train", "select", "report")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fold:
    """One fit: its place, its endpoint, and the bags of each role."""

    number: int
    folder: Path
    endpoint: Endpoint
    data: Mapping[str, BagDataset]
    bags: Mapping[str, pd.DataFrame]


def precision(asked: str) -> str:
    """What `auto` means here: bfloat16 where the hardware multiplies it natively, else single precision."""
    if asked != "auto":
        return asked
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    native = torch.cpu.get_capabilities()
    return "bf16-mixed" if native.get("avx512_bf16") or native.get("amx_bf16") else "32-true"


def train(config: DictConfig, study: Study, split: Split, folder: Path) -> None:
    """Fits every fold and writes `predictions.csv`, with `baseline.csv` beside it where the baseline is asked for.

    A fold that an earlier process finished is kept; one that it began goes on from its last epoch.
    """
    means = mean_features(study.store, list(study.bags["slides"])) if config.baseline else None
    tables = {"predictions": list[pd.DataFrame](), "baseline": list[pd.DataFrame]()}
    for number in split.folds:
        fold = _fold(config, study, split, number, fold_folder(folder, split, number))
        done = fold.folder / "predictions.csv"
        if not done.exists():
            logger.info("fold %d of %d", split.folds.index(number) + 1, len(split.folds))
            _fit(config, study, split, fold)
        tables["predictions"].append(read_predictions(done))
        if means is not None:
            tables["baseline"].append(_baseline(study, fold, means))
    for name, parts in tables.items():
        if parts:
            files.write(folder / f"{name}.csv", pd.concat(parts).to_csv(index=False))


def fold_folder(folder: Path, split: Split, number: int) -> Path:
    """A run of one fold holds it itself; a run of several has a folder for each."""
    return folder if len(split.folds) == 1 else folder / f"fold_{number}"


def read_predictions(path: Path) -> pd.DataFrame:
    """A table of predictions with ids and labels as text."""
    table = pd.read_csv(path, dtype={"patient": str}, float_precision="round_trip")
    return table


def _fold(config: DictConfig, study: Study, split: Split, number: int, folder: Path) -> Fold:
    endpoint = copy.deepcopy(study.endpoint)
    data, bags = {}, {}
    for role in ROLES:
        bags[role], target = study.rows(split.patients(number, role))
        most = config.data.max_tiles if role == "train" else None
        data[role] = BagDataset(study.store, list(bags[role]["slides"]), target, most, config.seed)
    endpoint.fit(data["train"].target, balance=config.data.balance == "loss")
    return Fold(number, folder, endpoint, data, bags)


def _fit(config: DictConfig, study: Study, split: Split, fold: Fold) -> None:
    torch.manual_seed(config.seed + fold.number)
    model = build.model(config, study.encoder.dim, fold.endpoint.out_dim)
    trainer, best = _trainer(config, fold)
    schedule = build.make(config.schedule)
    module = MILModule(model, fold.endpoint, build.optimizer(config), schedule, config.seed + fold.number)
    last = fold.folder / "last.ckpt"
    trainer.fit(module, *_loaders(config, fold), ckpt_path=last if last.exists() else None, weights_only=True)
    weights = torch.load(best.best_model_path, weights_only=True, map_location="cpu")["state_dict"]
    model.load_state_dict({name.removeprefix("model."): value for name, value in weights.items()})
    table, threshold = _score(config, study, model, fold)
    record = _manifest(config, study, split, fold, model, trainer, best, threshold)
    checkpoint.save(fold.folder / "checkpoint", model.cpu().eval(), record)
    files.write(fold.folder / "predictions.csv", table.to_csv(index=False))
    for leftover in ("last.ckpt", "best.ckpt"):
        (fold.folder / leftover).unlink(missing_ok=True)


def _loaders(config: DictConfig, fold: Fold) -> tuple[Any, Any]:
    data, workers = fold.data["train"], config.data.workers
    most = config.data.max_tiles or np.inf
    sizes = [int(min(size, most)) for size in data.sizes]
    weight = None
    if config.data.balance == "sampling":
        fold.endpoint.fit(data.target, balance=True)  # refuses endpoints without classes
        fold.endpoint.fit(data.target)
        strata = fold.endpoint.strata(data.target)
        weight = 1 / np.bincount(strata)[strata]
    order = TrainOrder(sizes, config.data.batch_bags, config.data.tiles_per_batch, weight, config.seed + fold.number)
    judged = fold.data["select"] if len(fold.data["select"]) else data
    return loader(data, order, workers), loader(judged, workers=workers)


def _trainer(config: DictConfig, fold: Fold) -> tuple[lightning.Trainer, ModelCheckpoint]:
    best = ModelCheckpoint(
        fold.folder, "best", monitor="select_loss", enable_version_counter=False, save_on_train_epoch_end=False
    )
    last = ModelCheckpoint(fold.folder, "last", enable_version_counter=False, save_on_train_epoch_end=True)
    chosen = [build.make(node) for node in config.callbacks.values()]
    callbacks: list[Callback] = [*chosen, Progress(), best, last]
    log = build.make(config.logger, save_dir=str(fold.folder / "log"))
    trainer: lightning.Trainer = build.make(
        {**build.plain(config.trainer), "precision": precision(config.trainer.precision)},
        callbacks=callbacks,
        logger=log,
        default_root_dir=str(fold.folder),
    )
    return trainer, best


def _score(config: DictConfig, study: Study, model: MILModel, fold: Fold) -> tuple[pd.DataFrame, float | None]:
    """Predictions of every patient of the fold, and the threshold that the select patients set."""
    raw = {role: logits(model, data, config.data.workers) for role, data in fold.data.items() if len(data)}
    values = {role: _by_patient(study, fold, role, found) for role, found in raw.items()}
    ids, trained = values["train"]
    fold.endpoint.finish(trained, study.target[study.patients.index.get_indexer(ids)])
    table = _table(study, fold, values)
    return table, _threshold(config, table[table["role"] == "select"], fold)


def _threshold(config: DictConfig, select: pd.DataFrame, fold: Fold) -> float | None:
    endpoint = fold.endpoint
    if not config.tool.decision or not isinstance(endpoint, Binary) or not len(select):
        return None
    score = select[f"p_{endpoint.positive}"].to_numpy()
    try:
        return choose(config.tool.decision, score, endpoint.labels(select.set_index("patient")) == 1)
    except PredictionsError as error:
        logger.warning("fold %d has no threshold: %s", fold.number, error)
        return None


def _by_patient(study: Study, fold: Fold, role: str, found: Tensor) -> tuple[pd.Index, Tensor]:
    patient = fold.bags[role]["patient"]
    ids = pd.Index(sorted(set(patient)))
    return ids, per_patient(found, patient, ids)


def _table(study: Study, fold: Fold, values: Mapping[str, tuple[pd.Index, Tensor]]) -> pd.DataFrame:
    """`patient, fold, role`, targets and scores, of every role that has patients."""
    tables = []
    for role, (ids, found) in values.items():
        table = pd.DataFrame({"patient": ids, "fold": fold.number, "role": role})
        targets = study.patients.loc[ids, list(study.endpoint.columns)].reset_index(drop=True)
        scores = {name: column.numpy() for name, column in fold.endpoint.decode(found).items()}
        tables.append(pd.concat([table, targets], axis=1).assign(**scores))
    return pd.concat(tables)


def _baseline(study: Study, fold: Fold, means: Tensor) -> pd.DataFrame:
    row = {bag: place for place, bag in enumerate(study.bags["bag"])}
    places = {role: [row[bag] for bag in bags["bag"]] for role, bags in fold.bags.items()}
    everyone = torch.tensor([place for role in ROLES for place in places[role]])
    train, select = (torch.tensor(places[role], dtype=torch.long) for role in ("train", "select"))
    _, target = study.rows(list(study.patients.index))
    endpoint = copy.deepcopy(fold.endpoint)
    found = linear_logits(means, target, train, select, endpoint)
    assert len(found) == len(row) >= len(everyone)
    endpoint.load_state({})
    values = {role: _by_patient(study, fold, role, found[places[role]]) for role in ROLES if places[role]}
    return _table(study, Fold(fold.number, fold.folder, endpoint, fold.data, fold.bags), values)


def _manifest(
    config: DictConfig,
    study: Study,
    split: Split,
    fold: Fold,
    model: MILModel,
    trainer: lightning.Trainer,
    best: ModelCheckpoint,
    threshold: float | None,
) -> Manifest:
    options = {key: value for key, value in build.plain(config.model).items() if key != "_target_"}
    widths = {"in_dim": study.encoder.dim, "out_dim": fold.endpoint.out_dim}
    asked = {key: value for key, value in build.plain(config.tool.endpoint).items() if key != "_target_"}
    amounts = {role: fold.endpoint.counts(data.target) for role, data in fold.data.items() if len(data)}
    return Manifest(
        tool=build.plain(config.tool),
        model=checkpoint.part(model, widths | options),
        endpoint=checkpoint.part(fold.endpoint, asked),
        fitted={
            "endpoint": fold.endpoint.state(),
            "endpoint_on": "train",
            "threshold": threshold,
            "threshold_rule": OmegaConf.to_container(config.tool.decision) if config.tool.decision else None,
            "threshold_on": "select",
        },
        encoder=checkpoint.encoder_record(study.encoder, study.store.verified),
        data={
            "simulated": study.truth is not None,
            "simulation": build.plain(config.simulation) if study.truth is not None else None,
            "cohort_sha256": files.sha256(study.source),
            "patients": amounts,
            "bag": config.data.bag,
            "split": {"strategy": build.plain(config.split), "sha256": split.digest(), "fold": fold.number},
        },
        training={
            "seed": config.seed,
            "epochs": trainer.current_epoch,
            "best_select_loss": float(best.best_model_score) if best.best_model_score is not None else None,
            "precision": precision(config.trainer.precision),
            "threads": torch.get_num_threads(),
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "optimizer": build.plain(config.optimizer),
            "schedule": build.plain(config.schedule),
            "data": build.plain(config.data) | {"cohort": None, "features": None},
            "versions": {
                "mil-zoo": mil.__version__,
                "torch": torch.__version__,
                "lightning": lightning.__version__,
                "python": platform.python_version(),
            },
        },
    )
