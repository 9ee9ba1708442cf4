"""A federation as a job for NVIDIA FLARE: names and options in JSON files, no code, and no path of any machine."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from pydantic import Field, JsonValue, ValidationError

from mil import files
from mil.errors import ConfigError
from mil.federation.federated_run import without_files
from mil.federation.federation_options import FederationOptions
from mil.federation.left_out import check_left_out
from mil.federation.site_sources import simulated_names
from mil.output_places import check_output_folder
from mil.runs.run_inputs import input_paths
from mil.study import trusted_classes
from mil.study.component import Config
from mil.study.run_config import RunConfig

JOB, APP = "federation_job.json", "app"
META = "meta.json"
COORDINATOR = "mil.federation.engines.flare.FlareCoordinator"
SITE = "mil.federation.engines.flare.FlareSite"
CLASSES = "mil.federation.engines.flare."
"""What a site allows FLARE to build from a job, beside FLARE's own classes."""
SERVER = "server"
NOT_HERE = {
    "local": "each site alone needs no job: mil train at each site",
    "pooled": "patients in one place are for simulations: mil federate",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class FederationJob(Config):
    """What coordinator and sites read of a job.

    Attributes:
        name: Of the federation; sites and coordinator name their folders after it, so that a job that is submitted
            again goes on.
        sites: Names of the sites, as FLARE knows them.
        simulated: Whether each site takes the centre of its name of the tool's simulated cohort, and no files.
        options: Of the federation, without the places of sites.
        config: The options of the run, without files.
    """

    name: str
    sites: list[str] = Field(min_length=2)
    simulated: bool
    options: FederationOptions
    config: dict[str, JsonValue]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a job's file, which comes from elsewhere.

        Raises:
            ConfigError: No such file, or not what a job of this version holds.
        """
        if not path.is_file():
            raise ConfigError(f"{path.name}: not in the job, expected one made by mil federate export")
        try:
            job = cls.model_validate(files.read_json(path))
        except (ValidationError, ValueError) as error:
            raise ConfigError(f"{path.name}: {' '.join(str(error).split())[:200]}") from None
        _check_name(job.name, "name")
        job.options.check()
        trusted_classes.refuse_foreign(job.config)
        return job

    @property
    def run_config(self) -> RunConfig:
        """The options of the run."""
        return RunConfig.parse(self.config)


def export(config: RunConfig, options: FederationOptions, out: Path) -> FederationJob:
    """Write the folder of a job, which an administrator submits.

    Args:
        config: The options of the run.
        options: Of the federation; `sites` are names as FLARE knows them. Without sites the centres of the tool's
            simulated cohort take part.
        out: A new or empty folder, or one of an earlier job; its name is that of the federation.

    Raises:
        ConfigError: An algorithm that needs no job, names that FLARE cannot take, or another folder.
    """
    check_output_folder(out, input_paths(config), META, "OUT")
    if (out / APP / "custom").exists():
        raise ConfigError(f"OUT {out}: holds a job with code of its own, expected a new folder")
    _check_algorithm(options)
    simulated = not options.sites
    sites = list(options.sites) if options.sites else simulated_names(config)
    for site in sites:
        _check_name(site, "federation.sites")
    if len(set(sites)) < max(2, len(sites)):
        raise ConfigError(f"federation.sites: {', '.join(sites)}, expected two or more different names")
    check_left_out(options, len(sites))
    name = out.resolve().name
    _check_name(name, "OUT")
    job = FederationJob(
        name=name,
        sites=sites,
        simulated=simulated,
        options=options.model_copy(update={"sites": []}),
        config=json.loads(json.dumps(without_files(config, simulated).plain())),
    )
    _refuse_paths(job)
    place = out / APP / "config"
    files.write_json(place / JOB, job.model_dump(mode="json"))
    files.write_json(place / "config_fed_server.json", {"format_version": 2, "workflows": [_part(COORDINATOR)]})
    executor = {"tasks": ["*"], "executor": _part(SITE)}
    files.write_json(place / "config_fed_client.json", {"format_version": 2, "executors": [executor]})
    files.write_json(out / META, _meta(job))
    return job


def _part(path: str) -> dict[str, object]:
    return {"id": "mil", "path": path, "args": {}}


def _meta(job: FederationJob) -> dict[str, object]:
    """Return FLARE's description of a job.

    A job starts as soon as `min_clients` sites are there, by default one, and FLARE aborts it when fewer are left: here
    it is the number of all sites, or the quorum.
    """
    quorum = job.options.quorum
    return {
        "name": job.name,
        "resource_spec": {},
        "deploy_map": {APP: [SERVER, *job.sites]},
        "min_clients": len(job.sites) if quorum is None else quorum,
        "mandatory_clients": job.sites if quorum is None else [],
    }


def _refuse_paths(job: FederationJob) -> None:
    """Refuse options that name a file of this machine.

    Raises:
        ConfigError: One does.
    """
    for key, text in _texts(job.config):
        if text.startswith(("/", "~", ".", "\\")) or Path(text).is_absolute():
            raise ConfigError(f"{key}={text}: a path of this machine, expected options that hold at every site")


def _texts(value: JsonValue, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in children:
        yield from _texts(child, f"{key}.{name}" if key else str(name))


def _check_algorithm(options: FederationOptions) -> None:
    if reason := NOT_HERE.get(options.algorithm):
        raise ConfigError(f"federation.algorithm={options.algorithm}: {reason}")


def _check_name(name: str, what: str) -> None:
    if not _NAME.fullmatch(name) or name == SERVER:
        raise ConfigError(f"{what}: {name!r}, expected a name of letters, digits, '.', '_', '-' (not {SERVER!r})")
