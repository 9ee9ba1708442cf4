"""Each site in turn as the test of a model of the others: the same embedded and between hospitals.

A site that takes part in the training of several models answers for each as another hospital would: it has a session,
keys and a prepared fold for each, and one audit file.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from mil import files
from mil.errors import ConfigError
from mil.features.encoders import Encoder
from mil.federation.coordinator import Coordinator, Engine, Reply
from mil.federation.federated_run import FederatedRun
from mil.federation.federation_options import FederationOptions
from mil.federation.messages import Message
from mil.federation.synthesis import synthesis, unlike_sites
from mil.report.sections.federation import FILE, Federation, SiteResult
from mil.runs.describe import describe_run
from mil.stats.estimate import Estimate
from mil.study import build
from mil.study.run_config import RunConfig

logger = logging.getLogger(__name__)
FOLDER = "left_out"
WITHOUT = "without"
"""Fact of a question that names the site that is left out."""
FEWEST = 3
"""Sites, of which two remain to train."""
EngineOf = Callable[[str, Sequence[str]], Engine]
"""Returns what reaches some sites, in the federation in which one site is left out."""


class WithoutSite:
    """An engine whose questions say which site is left out."""

    def __init__(self, engine: Engine, site: str) -> None:
        """Wrap an engine."""
        self.engine, self.site = engine, site

    @property
    def sites(self) -> Sequence[str]:
        """Names of the sites that are asked."""
        return self.engine.sites

    def ask(self, question: Message, sites: Sequence[str], seconds: float) -> Iterator[Reply]:
        """Yield the answers of sites to the question of this federation."""
        facts = {**question.facts, WITHOUT: self.site}
        yield from self.engine.ask(Message(question.kind, question.arrays, facts), sites, seconds)


def check_left_out(options: FederationOptions, sites: int) -> None:
    """Check that sites can be left out in turn.

    Raises:
        ConfigError: Fewer than three sites, or a quorum, with which some may be absent.
    """
    if not options.leave_one_site_out:
        return
    if sites < FEWEST:
        raise ConfigError(f"federation.leave_one_site_out: {sites} sites, expected three or more")
    if options.quorum is not None:
        raise ConfigError("federation.leave_one_site_out: with federation.quorum sites may be absent, expected all")


def with_left_out(
    section: Federation,
    config: RunConfig,
    options: FederationOptions,
    sites: Sequence[str],
    engine_of: EngineOf,
    encoder: Encoder | None,
    folder: Path,
) -> Federation:
    """Train on all sites but one, in turn, and add what the model does at the site that was left out.

    Args:
        section: Of the model of all sites.
        config: The options of the run.
        options: Of the federation.
        sites: Names of all sites.
        engine_of: Reaches them.
        encoder: Of the features; None takes what the sites say.
        folder: The coordinator's run folder, which is described again.

    Raises:
        MilError: As `FederatedRun`.
    """
    results = tuple(_left_out(config, options, sites, site, engine_of, encoder, folder) for site in sorted(sites))
    section = section.model_copy(
        update={
            "left_out": results,
            "left_out_synthesis": tuple(synthesis(results)),
            "unlike": (*section.unlike, *unlike_sites(results, build.endpoint(config).metric)),
        }
    )
    files.write(folder / FILE, section.model_dump_json(indent=2) + "\n")
    describe_run(folder)
    return section


def _left_out(
    config: RunConfig,
    options: FederationOptions,
    sites: Sequence[str],
    test: str,
    engine_of: EngineOf,
    encoder: Encoder | None,
    folder: Path,
) -> SiteResult:
    """Return what a model of the other sites does at one site, by all of its patients."""
    logger.info("site %s is left out", test)
    engine = engine_of(test, [site for site in sites if site != test])
    run = FederatedRun(config, options, engine, encoder, folder / FOLDER / test)
    run.join()
    trained = run.train_fold(0)
    coordinator = Coordinator(engine_of(test, [test]), options)
    arrays, facts = trained.setup.question(run.exact)
    coordinator.ask("setup", arrays, facts)
    question: dict[str, JsonValue] = {"fold": 0, "fitted": trained.fitted.model_dump_json()}
    answer = coordinator.ask("external", {"weights": trained.weights}, question)[test]
    metrics = cast(Mapping[str, JsonValue], answer.facts["metrics"])
    estimates = {name: Estimate.model_validate(value) for name, value in metrics.items()}
    return SiteResult(site=test, train=0, select=0, report=answer.patients, metrics=estimates)
