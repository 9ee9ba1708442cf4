"""A hospital in a job: its own file, what it accepts, its folder, and its answers as bytes."""

import logging
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, JsonValue, ValidationError

from mil import files
from mil.config import nearest
from mil.errors import ConfigError, MilError
from mil.features.feature_folders import placed_features
from mil.federation.federation_job import APP, JOB, FederationJob
from mil.federation.hospital import Hospital
from mil.federation.left_out import FOLDER as LEFT_OUT
from mil.federation.left_out import WITHOUT
from mil.federation.messages import FederationError, Message, NotReadyError
from mil.federation.site_sources import SiteSource, simulated_sites, source_with_files
from mil.study.component import Config
from mil.study.run_config import Count, Flag, RunConfig
from mil.yaml_files import read_yaml

logger = logging.getLogger(__name__)
SITE_FILE = "mil_site.yaml"
"""In the folder `local` of a startup kit of FLARE."""
ANY = "SITE_NAME"
"""Stands for the name of the site in the file that all sites of a simulation share."""
OUT = "mil"
COORDINATOR = "coordinator"
ERROR, REASON, NOT_READY = "error", "reason", "not ready"
WAIT_SECONDS = 60.0
"""How long a job waits for an earlier one, whose server was killed, to notice it and to end."""
_ONE_AT_A_TIME = threading.Lock()
"""Sites of a simulation may share a process, and with it torch's generator of random numbers."""


class SiteFile(Config):
    """What a participant keeps to itself: where its files are, and what it accepts of a job.

    Attributes:
        data: Options of `data` that differ between hospitals: cohort, features, columns and so on.
        out: Folder for the runs; None takes `mil` in the startup kit.
        minimum: Least `federation.minimum` of a job.
        secure: Whether sums must be masked.
        times: Whether the coordinator may be told event times as they are.
    """

    data: dict[str, JsonValue] = Field(default_factory=dict)
    out: str | None = None
    minimum: Count = 10
    secure: Flag = True
    times: Literal["grid", "exact"] = "grid"

    @classmethod
    def read(cls, path: Path, site: str) -> Self:
        """Read the file of a site; a file that does not exist holds the defaults, and no patients.

        Raises:
            ConfigError: A key that does not exist, or a value out of its range.
        """
        if not path.is_file():
            return cls()
        values = read_yaml(path)
        if not isinstance(values, Mapping):
            raise ConfigError(f"{path.name}: holds no mapping, expected data, out, minimum, secure, times")
        return cls.parse({key: _named(value, site) for key, value in values.items()}, path.parent, path.name)

    @classmethod
    def parse(cls, values: Mapping[str, object], folder: Path, source: str) -> Self:
        """Validate what a participant keeps to itself.

        Args:
            values: By name.
            folder: Where relative paths begin.
            source: Names the values in errors.

        Raises:
            ConfigError: A key that does not exist, or a value out of its range.
        """
        if unknown := sorted(set(values) - set(cls.model_fields)):
            near = nearest(unknown[0], list(cls.model_fields))
            raise ConfigError(f"{source}: option {unknown[0]!r} does not exist{near}")
        try:
            return cls.model_validate(_placed(dict(values), folder))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = ".".join(map(str, first["loc"]))
            expected = first["msg"].removeprefix("Input should be ")
            raise ConfigError(f"{source}: {name}={first['input']}, expected {expected}") from None

    def check(self, job: FederationJob, site: str) -> None:
        """Check that a job asks for no less privacy than this site accepts.

        Raises:
            FederationError: It does, with the option.
        """
        options = job.options
        allowed = f"this site's {SITE_FILE} accepts"
        if options.minimum < self.minimum:
            raise FederationError(
                f"site {site}: federation.minimum={options.minimum}, {allowed} {self.minimum} or more"
            )
        if self.secure and not options.secure:
            raise FederationError(f"site {site}: federation.secure=false, {allowed} masked sums only")
        if self.times == "grid" and options.times == "exact":
            raise FederationError(f"site {site}: federation.times=exact, {allowed} federation.times=grid")


def _placed(values: dict[str, object], folder: Path) -> dict[str, object]:
    """Return the content of a site's file with whole paths; relative ones begin at a folder."""
    data = values.get("data")
    if isinstance(data, Mapping):
        places = {key: _place(data[key], folder) for key in ("cohort", "slides") if data.get(key)}
        if data.get("features"):
            places["features"] = placed_features(data["features"], folder)
        values["data"] = {**data, **places}
    if values.get("out"):
        values["out"] = _place(values["out"], folder)
    return values


def _place(value: object, folder: Path) -> str:
    return str((folder / Path(str(value)).expanduser()).resolve())


def _named(value: object, site: str) -> object:
    """Return a value in which the name of the site stands for `SITE_NAME`."""
    if isinstance(value, Mapping):
        return {key: _named(each, site) for key, each in value.items()}
    return value.replace(ANY, site) if isinstance(value, str) else value


class JobFolder:
    """The folder of one participant for one federation; one process at a time works in it."""

    def __init__(self, file: SiteFile, job: FederationJob, participant: str, kit: Path) -> None:
        """Make the folder.

        Args:
            file: Of the participant.
            job: The federation.
            participant: Name of the site, or `coordinator`.
            kit: Root of the participant's startup kit.

        Raises:
            FederationError: Another process works in it, or it holds another federation.
        """
        self.path = (kit / OUT if file.out is None else Path(file.out)) / job.name / participant
        self.path.mkdir(parents=True, exist_ok=True)
        self.stack = ExitStack()
        # not the lock of the run folder itself, which the coordinator's run takes
        place = self.path / "job"
        place.mkdir(exist_ok=True)
        end = time.monotonic() + WAIT_SECONDS
        while not self.stack.enter_context(files.locked(place)):
            self.stack.close()
            if time.monotonic() > end:
                raise FederationError(f"{participant}: another job works in its folder for {job.name}")
            time.sleep(1)
        text = job.model_dump_json(indent=2) + "\n"
        earlier = place / "federation.json"
        if earlier.exists() and earlier.read_text(encoding="utf-8") != text:
            self.close()
            raise FederationError(
                f"{participant}: has a folder of another federation called {job.name}, expected a new name (of the "
                "folder that mil federate export writes)"
            )
        files.write(earlier, text)

    def close(self) -> None:
        """Let others work in the folder."""
        self.stack.close()


class JobSite:
    """A site of a job, which is made from the site's own file when it is first asked."""

    def __init__(self, job: FederationJob, site: str, kit: Path, custom: Path) -> None:
        """Create a site.

        Args:
            job: The federation.
            site: Its name, as FLARE knows it.
            kit: Root of the site's startup kit.
            custom: Folder in which a job would bring code.
        """
        self.job, self.site, self.kit, self.custom = job, site, kit, custom
        self.folder: JobFolder | None = None
        self._source: SiteSource | None = None
        self._hospitals: dict[str, Hospital] = {}

    def hospital(self, left_out: str = "") -> Hospital:
        """Return the hospital.

        Args:
            left_out: The site without which a model is trained; empty for the model of all sites.

        Raises:
            MilError: The job brought code, asks for too little privacy, or the site's files cannot be read.
        """
        if left_out and (not self.job.options.leave_one_site_out or left_out not in self.job.sites):
            raise FederationError(f"site {self.site}: the job trains no model without {left_out}")
        if left_out not in self._hospitals:
            source, folder = self._opened()
            place = folder / LEFT_OUT / left_out if left_out and left_out != self.site else folder
            self._hospitals[left_out] = source.hospital(self.job.options, place)
        return self._hospitals[left_out]

    def _opened(self) -> tuple[SiteSource, Path]:
        """Return the site's patients and its folder.

        Raises:
            MilError: As `hospital`.
        """
        if self._source is None or self.folder is None:
            refuse_foreign_code(self.custom)
            file = SiteFile.read(self.kit / "local" / SITE_FILE, self.site)
            source = _source(self.job, file, self.site)
            source.keep_slides()
            self.folder = self.folder or JobFolder(file, self.job, self.site, self.kit)
            self._source = source
        return self._source, self.folder.path

    def answer(self, content: bytes) -> bytes:
        """Return the bytes of the answer to the bytes of a question; an error is an answer of its own kind."""
        with _ONE_AT_A_TIME:
            try:
                question = Message.from_bytes(content)
                return packed(self.hospital(str(question.facts.get(WITHOUT, ""))).answer(question))
            except FederationError as error:
                return packed(error)
            except Exception as error:
                return packed(self._withheld(error))

    def _withheld(self, error: Exception) -> FederationError:
        """Log an error at the site and return what may travel: messages about files name patients and slides."""
        logger.error("%s", error, exc_info=not isinstance(error, MilError | OSError))
        return FederationError(f"site {self.site}: its files or options do not work; the reason is in the site's log")

    def close(self) -> None:
        """Let other jobs of this name work at this site."""
        if self.folder is not None:
            self.folder.close()


def _source(job: FederationJob, file: SiteFile, site: str) -> SiteSource:
    """Return the patients of a site.

    Raises:
        FederationError: No files, no centre of that name, or less privacy than the site accepts.
    """
    config = job.run_config
    if job.simulated:
        sources = {source.name: source for source in simulated_sites(_without_files(config))}
        if site not in sources:
            raise FederationError(f"site {site}: no centre of the simulated cohort, which has {', '.join(sources)}")
        return sources[site]
    if not file.data:
        raise FederationError(f"site {site}: no local/{SITE_FILE} with data, expected one made by mil federate site")
    file.check(job, site)
    return source_with_files(site, config, file.data)


def _without_files(config: RunConfig) -> RunConfig:
    return config.replaced({"data.cohort": None, "data.features": None, "data.slides": None})


def packed(answer: Message | FederationError) -> bytes:
    """Return the bytes of an answer, or of an error with its kind."""
    if isinstance(answer, Message):
        return answer.to_bytes()
    return Message(ERROR, facts={REASON: str(answer), NOT_READY: isinstance(answer, NotReadyError)}).to_bytes()


def unpacked(content: bytes) -> Message | FederationError:
    """Return what `packed` packed."""
    try:
        message = Message.from_bytes(content)
        if message.kind != ERROR:
            return message
        kind = NotReadyError if message.facts.get(NOT_READY) else FederationError
        return kind(message.text(REASON))
    except FederationError as error:
        return error


def refuse_foreign_code(custom: Path) -> None:
    """Refuse to work in a job that brought code.

    Args:
        custom: The job's folder `custom`, from which FLARE would import.

    Raises:
        FederationError: There is a file in it.
    """
    brought = sorted(path for path in custom.rglob("*") if path.is_file()) if custom.is_dir() else []
    if brought:
        raise FederationError(f"the job brought code of its own ({brought[0].name}), which this site does not run")


def rehearsed(job_folder: Path, file: SiteFile, kit: Path) -> str:
    """Read a site's patients as a job will, and return their numbers in a line.

    Args:
        job_folder: Of the job, as `mil federate export` writes it.
        file: Of the site.
        kit: Root of its startup kit, whose folder has the name of the site.

    Raises:
        MilError: The job asks for less privacy than the site accepts, or the site's files cannot be read.
    """
    job = FederationJob.read(job_folder / APP / "config" / JOB)
    site = kit.resolve().name
    split = _source(job, file, site).split
    fold = min(split.folds)
    counts = ", ".join(f"{len(split.patients(fold, role))} {role}" for role in ("train", "select", "report"))
    return f"{site} in {job.name}: {counts} (patients of the first of {len(split.folds)} folds)"
