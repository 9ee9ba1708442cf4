"""What one hospital answers: functions of its own patients and of the numbers that it is sent."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import JsonValue

import mil
from mil.endpoints.endpoint import Endpoint
from mil.errors import ConfigError
from mil.federation.bag_gradients import Moment, steps_of, vector
from mil.federation.exact_cox import RiskSets
from mil.federation.federation_options import FederationOptions
from mil.federation.messages import SUMS, FederationError, Message, NotReadyError
from mil.federation.prepared_fold import PreparedFold
from mil.federation.privacy import Gate
from mil.federation.secure_sums import Keys
from mil.federation.shared_loss import MeanLoss, SharedLoss, shared_loss
from mil.federation.site_run import describe_site, external_report, site_metrics, write_fold
from mil.federation.site_training import train_at_site
from mil.federation.state_sums import state_sums
from mil.federation.targets import TimeCells, covariate_sums, parts_of, target_sums
from mil.fitted.state import FittedState
from mil.inference.predict import device
from mil.manifest import Manifest
from mil.splits.folds import Split
from mil.stats.estimate import Estimate
from mil.study import build
from mil.study.run_config import RunConfig
from mil.study.study import Study
from mil.training.fold import assembled

logger = logging.getLogger(__name__)
RUN = "run"
"""Folder of a hospital's own run."""
Floats = NDArray[np.float64]


class Hospital:
    """One hospital of a federation.

    Args:
        name: Of the site.
        config: The options of the run, with the hospital's own files.
        study: Its patients.
        split: Their roles.
        options: Of the federation, as this hospital accepts them.
        folder: For its audit file and its own run; None keeps no audit.
    """

    def __init__(
        self,
        name: str,
        config: RunConfig,
        study: Study,
        split: Split,
        options: FederationOptions,
        folder: Path | None = None,
    ) -> None:
        self.name, self.config, self.study, self.split, self.options = name, config, study, split, options
        self.folder = folder
        self.gate = Gate(name, options.minimum, None if folder is None else folder / "audit.jsonl")
        self.keys = Keys(name)
        self.session: str | None = None
        self.rounds = set[str]()
        self.cells: dict[int, dict[str, TimeCells]] = {}
        self.folds: dict[int, PreparedFold] = {}
        self.rng = np.random.default_rng()
        self.answers: dict[str, Callable[[Message], Message]] = {
            "describe": self._describe,
            "join": self._join,
            "target sums": self._target_sums,
            "covariate sums": self._covariate_sums,
            "setup": self._setup,
            "loss sums": self._loss_sums,
            "gradient": self._gradient,
            "update": self._update,
            "select sums": self._select_sums,
            "state sums": self._state_sums,
            "finish": self._finish,
            "evaluate": self._evaluate,
            "external": self._external,
        }

    def answer(self, question: Message) -> Message:
        """Return the answer to a question, once it has passed the gate.

        Raises:
            FederationError: The question is not of this federation, or the answer may not leave.
        """
        self._check_session(question)
        if question.kind not in self.answers:
            raise FederationError(f"site {self.name}: unknown question {question.kind!r}")
        answer = self.answers[question.kind](question)
        if question.kind in SUMS:
            answer = self._for_sum(question, answer)
        facts = {**answer.facts, "round": question.facts.get("round")}
        sealed = Message(answer.kind, answer.arrays, facts, answer.patients, answer.masked)
        return self.gate.release(sealed, question.kind)

    def _check_session(self, question: Message) -> None:
        session = question.text("session")
        if self.session is None:
            self.session = session
        if session != self.session:
            raise FederationError(
                f"site {self.name}: takes part in the federation of another coordinator (session {self.session[:8]}), "
                f"found session {session[:8]}"
            )

    def _for_sum(self, question: Message, answer: Message) -> Message:
        """Mask an answer, so that only the total over the sites of the round can be read."""
        if not self.options.secure:
            return answer
        if answer.patients < self.options.minimum or not answer.finite:
            return answer  # the gate says what is wrong
        if question.text("round") in self.rounds:
            raise FederationError(f"site {self.name}: was asked twice in one round, whose mask it has used")
        self.rounds.add(question.text("round"))
        names = sorted(answer.arrays)
        flat = np.concatenate([np.asarray(answer.arrays[name], np.float64).ravel() for name in names] or [np.zeros(0)])
        sites = cast(list[str], question.facts["sites"])
        if not self.keys.agreed(sites):
            raise NotReadyError(f"site {self.name}: shares no keys with the others yet, expected to join first")
        words = self.keys.masked(flat, f"{self.session}|{question.text('round')}", sites)
        layout: JsonValue = [[name, list(answer.arrays[name].shape)] for name in names]
        return Message(answer.kind, {"masked": words}, {**answer.facts, "layout": layout}, answer.patients, masked=True)

    # what is asked once

    def _describe(self, question: Message) -> Message:
        counts = {
            str(fold): {role: len(self.split.patients(fold, role)) for role in ("train", "select", "report")}
            for fold in self.split.folds
        }
        for fold, roles in counts.items():
            for role, amount in roles.items():
                if 0 < amount < self.options.minimum:
                    raise FederationError(
                        f"site {self.name}: {amount} patients of role {role} in fold {fold}, the minimum is "
                        f"{self.options.minimum}"
                    )
        facts: dict[str, JsonValue] = {
            "site": self.name,
            "version": mil.__version__,
            "options": options_digest(self.config),
            "tool": f"{self.config.tool.name} {self.config.tool.version}",
            "encoder": self.study.encoder.name,
            "width": self.study.encoder.dim,
            "mpp": self.study.store.geometry.mpp,
            "tile_px": self.study.store.geometry.tile_px,
            "minimum": self.options.minimum,
            "secure": self.options.secure,
            "simulated": self.study.simulated,
            "counts": cast(JsonValue, counts),
            "times": cast(JsonValue, self._times()),
        }
        return Message("description", facts=facts)

    def _times(self) -> dict[str, dict[str, list[float]]]:
        """Return, by endpoint of times, the event times if they may be told, the last time, and the codes of strata."""
        times = dict[str, dict[str, list[float]]]()
        for name, (part, target) in parts_of(self.study.endpoint, self.study.target).items():
            if part.survival is not None:
                last = float(target[:, 0].max()) if len(target) else 0.0
                exact = self.options.times == "exact"
                stratified = target.shape[1] > 2
                times[name] = {
                    "last": [last if exact else float(10 * np.ceil(last / 10))],
                    "exact": sorted(set(target[:, 0].double().tolist())) if exact else [],
                    "strata": sorted(set(target[:, 2].double().tolist())) if stratified else [],
                }
        return times

    def _join(self, question: Message) -> Message:
        public = cast(dict[str, str], question.facts.get("keys", {}))
        if public:
            self.keys.agree(public)
        return Message("key", facts={"public": self.keys.public})

    # what is fitted

    def _cells(self, question: Message) -> dict[str, TimeCells]:
        strata = cast(dict[str, list[float]], question.facts.get("strata", {}))
        return {
            name: TimeCells(question.array(f"times {name}"), np.array(codes or [0.0])) for name, codes in strata.items()
        }

    def _target_sums(self, question: Message) -> Message:
        fold = int(question.number("fold"))
        patients = self.split.patients(fold, "train")
        rows = self.study.patients.index.get_indexer(pd.Index(patients))
        centres = cast(dict[str, float], question.facts.get("centres", {}))
        sums = target_sums(self.study.endpoint, self.study.target[rows], self._cells(question), centres)
        return Message("target sums", sums, patients=len(patients))

    def _covariate_sums(self, question: Message) -> Message:
        fold, covariates = int(question.number("fold")), self.study.covariates
        patients = self.split.patients(fold, "train")
        if covariates is None:
            raise FederationError(f"site {self.name}: reads no covariates")
        numbers = covariates.numbers(self.study.patients.loc[patients])
        centres = question.array("centres") if "centres" in question.arrays else None
        return Message("covariate sums", {"sums": covariate_sums(numbers, centres)}, patients=len(patients))

    def _setup(self, question: Message) -> Message:
        """Take over what was fitted to the patients of all hospitals."""
        fold = int(question.number("fold"))
        endpoint = build.endpoint(self.config)
        endpoint.load_state(cast(dict[str, object], question.facts["endpoint"]))
        covariates = self.study.covariates
        if covariates is not None:
            covariates = covariates.fit(self.study.patients.iloc[:0])
            covariates.load_state(cast(dict[str, list[float]], question.facts["covariates"]))
        folder = Path() if self.folder is None else self.folder
        made = assembled(self.config, self.study, self.split, fold, folder, endpoint, covariates)
        cells = self._cells(question)
        for data in made.data.values():
            data.target = _rounded(endpoint, data.target, cells)
        if endpoint.compares_pairs and not question.facts.get("exact"):
            shared: SharedLoss = MeanLoss(endpoint)
        else:
            shared = shared_loss(endpoint, risk_sets_of(cells))
        model = build.network(self.config, self.study.encoder.dim, endpoint).to(device())
        self.cells[fold] = cells
        self.folds[fold] = PreparedFold(self.study, made, shared, model)
        return Message("done", facts={"parameters": len(vector(model))})

    # a round of training

    def _prepared(self, question: Message) -> PreparedFold:
        fold = int(question.number("fold"))
        if fold not in self.folds:
            raise NotReadyError(f"site {self.name}: has no fold {fold}, expected a setup first")
        return self.folds[fold]

    def _moment(self, question: Message) -> Moment:
        return Moment(
            self.config.seed + int(question.number("fold")), int(question.number("epoch")), int(question.number("step"))
        )

    def _bags(self, question: Message, prepared: PreparedFold) -> list[int]:
        """Return the bags of a step: this hospital's part of the common batch."""
        data, moment = prepared.fold.data["train"], self._moment(question)
        events = prepared.fold.endpoint.events(data.target)
        groups = steps_of(len(data), int(question.number("steps")), moment.seed, moment.epoch, events)
        return groups[moment.step % len(groups)]

    def _loss_sums(self, question: Message) -> Message:
        prepared = self._prepared(question)
        bags, gradient = self._bags(question, prepared), prepared.gradient("train")
        if prepared.shared.by_logits:
            gradient.load(question.array("weights"))
            prepared.forget()
        calls = gradient.sums(bags, self._moment(question))
        sums = {f"call {number}": values for number, values in enumerate(calls)}
        patients = _patients_of(prepared, bags)
        return Message("loss sums", {**sums, "bags": np.array([float(len(bags))])}, patients=patients)

    def _gradient(self, question: Message) -> Message:
        prepared = self._prepared(question)
        bags, gradient = self._bags(question, prepared), prepared.gradient("train", self.options.clip)
        gradient.load(question.array("weights"))
        prepared.forget()
        totals = [question.array(name) for name in sorted(question.arrays, key=_call_number) if name.startswith("call")]
        amount = question.number("bags")
        total, loss = gradient.gradient(bags, self._moment(question), totals, amount)
        if self.options.clip and self.options.noise:
            share = 1 / np.sqrt(len(cast(list[str], question.facts["sites"])))
            total = total + self.rng.normal(0, self.options.clip * self.options.noise * share / amount, len(total))
        arrays = {"gradient": total, "loss": np.array([loss])}
        return Message("gradient", arrays, patients=_patients_of(prepared, bags))

    def _update(self, question: Message) -> Message:
        prepared = self._prepared(question)
        weights, data = question.array("weights"), prepared.fold.data["train"]
        prepared.forget()
        epochs = range(int(question.number("epoch")), int(question.number("until")))
        common = question.array("control") if "control" in question.arrays else None
        mine = None if common is None else prepared.control
        mine = np.zeros(len(weights)) if mine is None and common is not None else mine
        update = train_at_site(
            self.config,
            prepared.model,
            prepared.fold.endpoint,
            data,
            weights,
            epochs=epochs,
            all_epochs=int(question.number("epochs")),
            pull=question.number("pull"),
            correction=None if common is None or mine is None else common - mine,
        )
        share = float(len(data))
        arrays: dict[str, Floats] = {
            "change": share * update.change,
            "bags": np.array([share]),
            "loss": np.array([share * update.loss]),
        }
        if common is not None and mine is not None:
            # option II of algorithm 1, with the mean learning rate over the steps
            rate = question.number("rate")
            fresh = mine - common - update.change / (update.steps * rate)
            arrays["control"], prepared.control = fresh - mine, fresh
        return Message("update", arrays, patients=prepared.patients("train"))

    def _select_sums(self, question: Message) -> Message:
        """Return the sums of the loss of the patients of model selection, by the endpoint alone as in `mil train`."""
        prepared = self._prepared(question)
        role = "select" if "select" in prepared.fold.data else "train"
        data = prepared.fold.data[role]
        prepared.at(question.array("weights"))
        sums = prepared.shared.sums(prepared.logits(role), data.target).numpy()
        return Message("select sums", {"sums": sums}, patients=prepared.patients(role))

    # what is fitted once the weights are final

    def _state_sums(self, question: Message) -> Message:
        prepared = self._prepared(question)
        prepared.at(question.array("weights"))
        if "endpoint" in question.facts:
            prepared.fold.endpoint.load_state(cast(dict[str, object], question.facts["endpoint"]))
        role = question.text("role")
        patients = prepared.patients(role)
        if not patients:
            raise FederationError(f"site {self.name}: no patient of role {role}")
        sums = state_sums(question, self.config.tool, prepared, self.cells[prepared.fold.number])
        return Message("state sums", sums, patients=patients)

    # its own run

    def _run_folder(self) -> Path:
        if self.folder is None:
            raise FederationError(f"site {self.name}: has no folder for its run")
        return self.folder / RUN

    def _finish(self, question: Message) -> Message:
        """Write the common checkpoint and the predictions of this hospital's patients to its own run folder."""
        prepared = self._prepared(question)
        manifest = Manifest.model_validate_json(question.text("manifest"))
        prepared.fold.endpoint.load_state(manifest.fitted.endpoint)
        prepared.at(question.array("weights"))
        write_fold(self._run_folder(), prepared, manifest, self.config, self.split)
        return Message("done")

    def _evaluate(self, question: Message) -> Message:
        """Describe the own run and tell its metrics, as far as enough patients stand behind them."""
        report = describe_site(self._run_folder())
        return self._told(site_metrics(report, self.study.endpoint.metric), report.patients.get("n", 0))

    def _external(self, question: Message) -> Message:
        """Tell the metrics of all patients of this hospital, whom the model was not trained on."""
        prepared = self._prepared(question)
        fitted = FittedState.model_validate_json(question.text("fitted"))
        prepared.fold.endpoint.load_state(fitted.endpoint)
        prepared.at(question.array("weights"))
        report = external_report(prepared, fitted, self.config, self.config.resamples)
        return self._told(site_metrics(report, self.study.endpoint.metric), report.patients.get("n", 0))

    def _told(self, metrics: dict[str, Estimate], reported: int) -> Message:
        """Return estimates that rest on enough patients, without counts that are below the minimum."""
        minimum = self.options.minimum
        enough = {name: each for name, each in metrics.items() if (each.n or reported) >= minimum}
        safe = {
            name: each.model_copy(
                update={
                    "counts": {key: n for key, n in each.counts.items() if n >= minimum or n == 0},
                    "folds": (),
                    "caveat": None,
                }
            )
            for name, each in enough.items()
        }
        facts = {"metrics": {name: cast(JsonValue, each.model_dump(mode="json")) for name, each in safe.items()}}
        return Message("evaluation", facts=cast(dict[str, JsonValue], facts), patients=reported)


def _patients_of(prepared: PreparedFold, bags: list[int]) -> int:
    return int(prepared.fold.bags["train"]["patient"].iloc[bags].nunique())


def _call_number(name: str) -> int:
    digits = name.removeprefix("call ")
    return int(digits) if digits.isdigit() else -1


def risk_sets_of(cells: Mapping[str, TimeCells]) -> Callable[[str, Endpoint], RiskSets]:
    """Return the event times and strata of endpoints by name, from the cells of time."""

    def of(name: str, endpoint: Endpoint) -> RiskSets:
        own_cells = cells[name]
        times, strata = torch.from_numpy(own_cells.times), torch.from_numpy(own_cells.strata)
        return RiskSets(times, strata, endpoint.partial_likelihood or "efron")

    return of


def _rounded(endpoint: Endpoint, target: torch.Tensor, cells: Mapping[str, TimeCells]) -> torch.Tensor:
    """Return targets in which the times of partial likelihoods are rounded up to their cells."""
    if endpoint.partial_likelihood is not None:
        return cells[""].rounded(target)
    if not any(part.partial_likelihood for part in endpoint.parts().values()):
        return target
    values = target.clone()
    for part in endpoint.part_targets(target):
        if part.endpoint.partial_likelihood is not None:
            rounded = cells[part.name].rounded(part.target)
            values[torch.from_numpy(part.mask), endpoint.part_columns[part.name]] = rounded.to(values.dtype)
    return values


def options_digest(config: RunConfig) -> str:
    """Return a digest of the options that have to be the same at all sites: all but where files are."""
    plain = config.plain()
    data = {key: value for key, value in plain["data"].items() if key in TRAINING_DATA}
    same = {key: plain[key] for key in ("seed", "model", "tool", "optimizer", "schedule", "split")}
    epochs = plain["trainer"].get("max_epochs"), plain["trainer"].get("gradient_clip_val")
    text = json.dumps([same, data, epochs], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


TRAINING_DATA = ("bag", "batch_bags", "tiles_per_batch", "whole_cohort", "passes", "max_tiles", "balance")
"""Options of `data` that have to be the same at all sites."""


def refuse_balance(config: RunConfig) -> None:
    """Refuse sampling, which draws bags with weights that depend on the others.

    Raises:
        ConfigError: data.balance=sampling.
    """
    if config.data.balance == "sampling":
        raise ConfigError("data.balance=sampling: bags of several sites are not drawn together, expected loss or none")
