"""What one hospital answers: functions of its own patients and of the numbers that it is sent."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from pydantic import JsonValue

import mil
from mil.federation import site_rounds
from mil.federation.bag_gradients import vector
from mil.federation.federation_options import FederationOptions
from mil.federation.messages import SUMS, FederationError, Message, NotReadyError
from mil.federation.prepared_fold import PreparedFold
from mil.federation.privacy import Gate
from mil.federation.privacy_budget import LEDGER, noise_of
from mil.federation.same_options import options_digest
from mil.federation.secure_sums import Keys
from mil.federation.shared_loss import MeanLoss, SharedLoss, shared_loss
from mil.federation.site_run import describe_site, external_report, safe_metrics, site_metrics, write_fold
from mil.federation.state_sums import state_sums
from mil.federation.targets import TimeCells, covariate_sums, parts_of, risk_sets_of, rounded_times, target_sums
from mil.fitted.state import FittedState
from mil.inference.forward import device
from mil.manifest import Manifest
from mil.report.schema import Report
from mil.splits.folds import Split
from mil.study import build
from mil.study.run_config import RunConfig
from mil.study.study import Study
from mil.training.fold import assembled

logger = logging.getLogger(__name__)
RUN = "run"
"""Folder of a hospital's own run."""


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
        self.noise = noise_of(options, None if folder is None else folder / LEDGER)
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
            "encoders": [[part.name, part.dim] for part in self.study.encoder.parts],
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
            data.target = rounded_times(endpoint, data.target, cells)
        if endpoint.compares_pairs and not question.facts.get("exact"):
            shared: SharedLoss = MeanLoss(endpoint)
        else:
            shared = shared_loss(endpoint, risk_sets_of(cells))
        encoder = self.study.encoder
        model = build.network(self.config, encoder.dim, endpoint, encoder.widths).to(device())
        self.cells[fold] = cells
        self.folds[fold] = PreparedFold(self.study, made, shared, model)
        return Message("done", facts={"parameters": len(vector(model))})

    # a round of training

    def _prepared(self, question: Message) -> PreparedFold:
        fold = int(question.number("fold"))
        if fold not in self.folds:
            raise NotReadyError(f"site {self.name}: has no fold {fold}, expected a setup first")
        return self.folds[fold]

    def _loss_sums(self, question: Message) -> Message:
        return site_rounds.loss_sums(self.config, question, self._prepared(question))

    def _gradient(self, question: Message) -> Message:
        prepared = self._prepared(question)
        if self.noise is not None:
            return site_rounds.noisy_gradient(self.config, question, prepared, self.noise)
        return site_rounds.gradient_sum(self.config, question, prepared, self.options)

    def _update(self, question: Message) -> Message:
        return site_rounds.update(self.config, question, self._prepared(question), self.options)

    def _select_sums(self, question: Message) -> Message:
        return site_rounds.select_sums(question, self._prepared(question))

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
        return self._evaluation(describe_site(self._run_folder()))

    def _external(self, question: Message) -> Message:
        """Tell the metrics of all patients of this hospital, whom the model was not trained on."""
        prepared = self._prepared(question)
        fitted = FittedState.model_validate_json(question.text("fitted"))
        prepared.fold.endpoint.load_state(fitted.endpoint)
        prepared.at(question.array("weights"))
        return self._evaluation(external_report(prepared, fitted, self.config, self.config.resamples))

    def _evaluation(self, report: Report) -> Message:
        minimum, reported = self.options.minimum, report.patients.get("n", 0)
        metrics = safe_metrics(site_metrics(report, self.study.endpoint.metric), reported, minimum)
        facts = {"metrics": {name: cast(JsonValue, each.model_dump(mode="json")) for name, each in metrics.items()}}
        return Message("evaluation", facts=cast(dict[str, JsonValue], facts), patients=reported)
