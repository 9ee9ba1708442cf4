"""A federation from its configuration to the coordinator's run folder: checkpoint, report and card, and no patient."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import JsonValue

from mil import checkpoint, files
from mil.errors import ConfigError
from mil.features.encoders import Encoder, joined
from mil.federation.bag_gradients import load_vector
from mil.federation.coordinator import Coordinator, Engine
from mil.federation.federation_options import FederationOptions
from mil.federation.fold_setup import FoldSetup, fit_setup
from mil.federation.manifest_of_sites import federated_manifest
from mil.federation.messages import Message
from mil.federation.privacy_budget import budget, check_noise
from mil.federation.protocol import SUMMING, Progress, Training, session_of
from mil.federation.same_options import options_digest
from mil.federation.same_sites import check_descriptions
from mil.federation.shared_state import StateQuestions, finish_endpoint, fit_state
from mil.federation.synthesis import synthesis, unlike_sites
from mil.fitted.state import FittedState
from mil.manifest import Manifest
from mil.report.sections.federation import FILE, Federation, SiteResult
from mil.runs.describe import describe_run
from mil.runs.run_inputs import CONFIG
from mil.stats.estimate import Estimate
from mil.study import build
from mil.study.compose import read_config, write_config
from mil.study.run_config import RunConfig
from mil.tables import csv_text

logger = logging.getLogger(__name__)
Floats = NDArray[np.float64]
OPTIONS, STATE, LOG = "federation_options.json", "state", "log/version_0/metrics.csv"
SOMEWHERE = "at the sites"
"""What the coordinator's configuration says in place of files that it has never seen."""


@dataclass(frozen=True, eq=False)
class TrainedFold:
    """One fold after training.

    Attributes:
        setup: What was fitted together before training.
        weights: The best ones, `(parameters,)`.
        fitted: What was fitted together afterwards.
        manifest: Of the checkpoint.
        log: Losses by epoch, as Lightning's CSV logger writes them.
    """

    setup: FoldSetup
    weights: Floats
    fitted: FittedState
    manifest: Manifest
    log: str


def refuse_alone(config: RunConfig) -> None:
    """Check that hospitals can train the model together.

    Raises:
        ConfigError: They cannot; the message says why.
    """
    kind = build.class_of(config.model)
    if reason := getattr(kind, "not_federated", ""):
        raise ConfigError(f"model {config.model.target.rpartition('.')[2]} cannot be trained over hospitals: {reason}")
    if config.model.options.pretrained is not None or config.model.options.trunk_lr is not None:
        raise ConfigError("model.pretrained and model.trunk_lr are of mil train, hospitals start from fresh weights")
    if config.selection.refit is not None:
        raise ConfigError("selection.refit is of mil train, expected null: hospitals train once")
    if config.trainer.options.by_bag:
        raise ConfigError("trainer.devices and trainer.strategy are of mil train, a hospital trains on one device")


class FederatedRun:
    """Trains every fold over the sites of an engine, and writes the coordinator's run folder."""

    def __init__(
        self, config: RunConfig, options: FederationOptions, engine: Engine, encoder: Encoder | None, folder: Path
    ):
        """Prepare a run, or go on with the one in the folder.

        Args:
            config: All options; where files lie is the sites' own business.
            options: Of the federation.
            engine: Reaches the sites.
            encoder: Of the features at all sites; None takes what the sites say.
            folder: The coordinator's run folder.

        Raises:
            ConfigError: Hospitals cannot train the model together.
        """
        refuse_alone(config)
        self.options, self.engine, self.given_encoder, self.folder = options, engine, encoder, folder
        self.config, self.stated = config, options
        sessions = [session for path in sorted((folder / STATE).glob("*.pt")) if (session := session_of(path))]
        self.coordinator = Coordinator(engine, options)
        if sessions:
            self.coordinator.session = sessions[0]
        self.coordinator.on_rejoin = self._rejoin
        self.descriptions: dict[str, Message] = {}
        self.setups: dict[int, FoldSetup] = {}

    @property
    def encoder(self) -> Encoder:
        """The encoder of the features at all sites."""
        if self.given_encoder is not None:
            return self.given_encoder
        first = next(iter(self.descriptions.values()))
        parts = cast(Sequence[tuple[str, int]], first.facts.get("encoders", []))
        encoders = [_encoder(name, width) for name, width in parts]
        return joined(encoders) if encoders else _encoder(first.text("encoder"), int(first.number("width")))

    @property
    def exact(self) -> bool:
        """Whether gradients are summed."""
        return self.options.algorithm in SUMMING

    def run(self) -> Federation:
        """Train, fit, evaluate and describe.

        Raises:
            FederationError: Sites that do not fit together, or too few that answer.
        """
        with files.locked(self._made()) as free:
            if not free:
                raise ConfigError(f"{self.folder} is in use by another coordinator, expected a folder of its own")
            self.join()
            record_begin(self.config, self.stated, self.folder, self.simulated)
            trained = [self.train_fold(fold) for fold in self._folds()]
            for fold in trained:
                self._finish(fold)
            section = self._section(trained)
            self._write(trained, section)
            return section

    def _made(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder

    def join(self) -> None:
        """Ask all sites what they are, check that they fit together, and let them agree on keys.

        Raises:
            FederationError: A site that differs, by name, or one that does not answer.
        """
        self.descriptions = self.coordinator.ask("describe", sites=self.engine.sites)
        check_descriptions(options_digest(self.config), self.descriptions)
        self._exchange_keys()

    def _exchange_keys(self) -> None:
        answers = self.coordinator.ask("join")
        keys: dict[str, JsonValue] = {site: answer.text("public") for site, answer in answers.items()}
        self.coordinator.ask("join", facts={"keys": keys})

    def _rejoin(self, site: str) -> None:
        """Set up a site that was started anew."""
        logger.warning("site %s was started anew and joins again", site)
        rejoin, self.coordinator.on_rejoin = self.coordinator.on_rejoin, None
        try:
            self._exchange_keys()
            for setup in self.setups.values():
                arrays, facts = setup.question(self.exact)
                self.coordinator.ask("setup", arrays, facts, [site])
        finally:
            self.coordinator.on_rejoin = rejoin

    def _folds(self) -> list[int]:
        counts = cast(Mapping[str, JsonValue], next(iter(self.descriptions.values())).facts["counts"])
        return sorted(map(int, counts))

    def quantities(self, fold: int) -> dict[str, dict[str, int]]:
        """Return the patients of each site by role."""
        return {
            site: cast(Mapping[str, dict[str, int]], message.facts["counts"])[str(fold)]
            for site, message in sorted(self.descriptions.items())
        }

    def train_fold(self, fold: int) -> TrainedFold:
        """Fit, train and fit what follows from the weights, for one fold.

        Raises:
            FederationError: Too few sites answer.
        """
        setup = fit_setup(self.config, self.coordinator, self.descriptions, fold)
        self.setups[fold] = setup
        arrays, facts = setup.question(self.exact)
        self.coordinator.ask("setup", arrays, facts)
        by_site = self.quantities(fold)
        check_noise(self.config, self.options, setup.endpoint, by_site)
        counts = {site: roles["train"] for site, roles in by_site.items()}
        training = Training(
            self.config,
            self.coordinator,
            setup,
            self.encoder.dim,
            counts,
            self.folder / STATE / f"fold_{fold}.pt",
            self.encoder.widths,
        )
        progress = training.run()
        weights = training.weights
        questions = StateQuestions(self.coordinator, setup, weights)
        finish_endpoint(questions)
        totals = {role: sum(roles[role] for roles in by_site.values()) for role in ("train", "select", "report")}
        fitted = fit_state(questions, self.config.tool, totals, lambda counts: counts.write(self.folder, fold))
        spent = budget(self.options, training.steps, progress.released)
        manifest = federated_manifest(self, setup, training, fitted, totals, spent)
        return TrainedFold(setup, weights, fitted, manifest, loss_table(progress))

    def _finish(self, fold: TrainedFold) -> None:
        """Let every site write the checkpoint and its own patients' predictions."""
        facts: dict[str, JsonValue] = {"fold": fold.setup.fold, "manifest": fold.manifest.model_dump_json()}
        self.coordinator.ask("finish", {"weights": fold.weights}, facts)

    def _section(self, trained: Sequence[TrainedFold]) -> Federation:
        """Return the table of sites and what they say together."""
        answers = self.coordinator.ask("evaluate")
        results = tuple(self._result(site, answer) for site, answer in sorted(answers.items()))
        traffic = self.coordinator.traffic
        training = trained[0].manifest.training
        record = cast(Mapping[str, JsonValue], (training.model_extra or {})["federation"])
        metric = build.endpoint(self.config).metric
        return Federation(
            algorithm=self.options.algorithm,
            sentences=tuple(sentences(self.options, len(results), record)),
            sites=results,
            synthesis=tuple(synthesis(results)),
            minimum=self.options.minimum,
            secure=self.options.secure,
            epsilon=cast(float | None, record.get("epsilon")),
            delta=self.options.delta if record.get("epsilon") is not None else None,
            rounds=traffic.rounds,
            megabytes=(traffic.sent + traffic.received) / 1e6,
            seconds=round(traffic.seconds, 1),
            incidents=tuple(self.coordinator.incidents),
            unlike=tuple(unlike_sites(results, metric)),
        )

    def _result(self, site: str, answer: Message) -> SiteResult:
        roles = self.quantities(self._folds()[0])[site]
        metrics = cast(Mapping[str, JsonValue], answer.facts["metrics"])
        estimates = {name: Estimate.model_validate(value) for name, value in metrics.items()}
        return SiteResult(
            site=site, train=roles["train"], select=roles["select"], report=answer.patients, metrics=estimates
        )

    def _write(self, trained: Sequence[TrainedFold], section: Federation) -> None:
        """Write the coordinator's run folder."""
        several = len(trained) > 1
        columns = ["patient", "fold", "role", *build.endpoint(self.config).columns]
        header = ",".join(columns) + "\n"
        for fold in trained:
            place = self.folder / f"fold_{fold.setup.fold}" if several else self.folder
            torch.manual_seed(self.config.seed)
            model = build.network(self.config, self.encoder.dim, fold.setup.endpoint, self.encoder.widths)
            load_vector(model, fold.weights)
            checkpoint.save(place / "checkpoint", model.eval(), fold.manifest)
            files.write(place / "predictions.csv", header)
            files.write(place / LOG, fold.log)
        files.write(self.folder / "predictions.csv", header)
        files.write(self.folder / FILE, section.model_dump_json(indent=2) + "\n")
        describe_run(self.folder)

    @property
    def simulated(self) -> bool:
        """Whether the patients of the sites are simulated."""
        return all(bool(message.facts["simulated"]) for message in self.descriptions.values())


def _encoder(name: str, width: int) -> Encoder:
    """Return the encoder of a name, with what is known of it."""
    return next((each for each in build.known_encoders() if each.name == name), Encoder(name, width))


def without_files(config: RunConfig, simulated: bool) -> RunConfig:
    """Return the configuration without the places of files, which are the sites' own business."""
    place = None if simulated else SOMEWHERE
    return config.replaced({"data.cohort": place, "data.features": place, "data.slides": None})


def sentences(options: FederationOptions, sites: int, record: Mapping[str, JsonValue]) -> list[str]:
    """Return how a model was trained over sites, for report and card."""
    summed = {
        "exact": "Gradients of all sites at the same weights were summed: the steps are those of pooled training.",
        "pooled": "Simulation only: the patients of all sites were brought together.",
        "fedavg": "Weights were averaged by the number of bags after training at each site (FedAvg).",
        "fedprox": "Weights were averaged after training at each site with a pull to the common ones (FedProx).",
        "scaffold": "Weights were averaged after training at each site with control variates (SCAFFOLD).",
        "fedadam": "The coordinator took Adam steps along the mean change of weights at the sites (FedAdam).",
    }
    masked = "Sums were masked in pairs: the coordinator saw totals over all sites only."
    plain = "Sums were not masked: the coordinator saw those of each site."
    lines = [f"Trained over {sites} sites; no patient's data left its site. {summed[options.algorithm]}"]
    lines.append(masked if options.secure else plain)
    lines.append(f"Every number that left a site rests on {options.minimum} patients or more.")
    if options.norm_bound is not None:
        lines.append(
            f"Each site clipped its mean gradient or change of weights to norm {options.norm_bound:g}, and the "
            "coordinator checked that no mean over the sites is beyond it."
        )
    lines += [str(note) for note in cast(Sequence[JsonValue], record.get("notes", []))]
    if (spent := record.get("epsilon")) is not None:
        lines.append(
            f"Differential privacy of the training patients' gradients: epsilon {float(str(spent)):.2f} at delta "
            f"{options.delta:g} (a patient is added or removed). Each patient's gradient was clipped to norm "
            f"{options.clip:g}, noise of {options.noise:g} times that was added, {record['released']} times, each to "
            f"patients drawn with probability 1/{record['steps_per_epoch']}. Class weights, cuts, calibration, novelty "
            "and metrics are outside this promise."
        )
    return lines


def loss_table(progress: Progress) -> str:
    """Return the losses by epoch as a table; with noise there is none of training patients."""
    rows = zip(progress.train_loss, progress.select_loss, strict=True)
    table = pd.DataFrame(rows, columns=["train_loss", "select_loss"])
    table.insert(0, "epoch", np.linspace(0, progress.epoch, len(table) + 1)[1:].round().astype(int))
    return csv_text(table.dropna(axis=1, how="all"))


def record_begin(config: RunConfig, options: FederationOptions, folder: Path, simulated: bool) -> None:
    """Write the options with which a federation has begun, from which it can be resumed."""
    files.write(folder / OPTIONS, options.model_dump_json(indent=2) + "\n")
    write_config(folder / CONFIG, without_files(config, simulated))


def check_same_run(config: RunConfig, options: FederationOptions, folder: Path) -> None:
    """Check that a folder holds no run with other options.

    Raises:
        ConfigError: It does.
    """
    path = folder / OPTIONS
    if path.is_file() and path.read_text() != options.model_dump_json(indent=2) + "\n":
        raise ConfigError(f"{folder} holds a federation with other options, expected a new folder")
    if (folder / CONFIG).is_file() and options_digest(read_config(folder / CONFIG)) != options_digest(config):
        raise ConfigError(f"{folder} holds a run with other options, expected a new folder")
