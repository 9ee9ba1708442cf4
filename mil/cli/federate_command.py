"""`mil federate`: sites train one model together; here in one process, or as a job for NVIDIA FLARE."""

import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mil.cli.report_place import say_where
from mil.config import choices, conf_dir, nearest
from mil.errors import ConfigError
from mil.features.feature_folders import paths_of
from mil.federation.federation_job import export
from mil.federation.federation_options import FederationOptions
from mil.federation.job_site import SiteFile, rehearsed
from mil.federation.local_run import federate, resume
from mil.federation.startup_kit import kind_of, prepare_kit
from mil.output_places import check_output_folder
from mil.report.page.words import named
from mil.report.sections.federation import Federation
from mil.runs.describe import PAGE
from mil.study.compose import compose_run, in_one_line

GROUP = "federation"
ACTIONS = {
    "export": "the new folder of a job: mil federate export OUT",
    "site": "a startup kit: mil federate site KIT",
}


def start(words: Sequence[str], config_dir: Path | None) -> None:
    """Train over sites in this process, write a job for FLARE, or let a startup kit of FLARE take part in jobs.

    Raises:
        MilError: Wrong options, or an error in the files of a site.
    """
    action, place, options = action_of(words)
    if action == "export":
        _export(place, options, config_dir)
    elif action == "site":
        _site(place, options)
    else:
        _train(options, config_dir)


def action_of(words: Sequence[str]) -> tuple[str | None, Path, list[str]]:
    """Return what is to be done, where, and the options: words with `=`.

    Raises:
        ConfigError: A word that is neither an action nor an option, or an action without a folder.
    """
    options = [word for word in words if "=" in word]
    names = [word for word in words if "=" not in word]
    if not names:
        return None, Path(), options
    action, *places = names
    if action not in ACTIONS:
        raise ConfigError(
            f"{action!r} is no option{nearest(action, list(ACTIONS))}, expected KEY=VALUE, export OUT or site KIT"
        )
    if len(places) != 1:
        raise ConfigError(f"mil federate {action}: {len(places)} folders, expected {ACTIONS[action]}")
    return action, Path(places[0]), options


def _export(out: Path, words: Sequence[str], config_dir: Path | None) -> None:
    own_words, others = divided(words)
    job = export(compose_run(others, config_dir).config, options_in(own_words), out)
    sys.stdout.write(f"a job of {len(job.sites)} sites: {', '.join(job.sites)}\n{out}\n")


def _site(kit: Path, words: Sequence[str]) -> None:
    file, job_folder = site_words(words)
    if kind_of(kit) == "simulation" and not (kit / "local").is_dir():  # a kit is recognised by its files
        named = [file.data.get(name) for name in ("cohort", "slides", "features")]
        read = [path for text in named if isinstance(text, str) for path in paths_of(Path(text))]
        check_output_folder(kit, read, option="KIT")
    if job_folder is not None:
        sys.stdout.write(f"{rehearsed(job_folder, file, kit)}\n")
    sys.stdout.writelines(f"{path}\n" for path in prepare_kit(kit, file))


def site_words(words: Sequence[str]) -> tuple[SiteFile, Path | None]:
    """Return what a participant keeps to itself, and the job that is tried, from words such as `data.cohort=c.csv`.

    Raises:
        ConfigError: A word that names no option of a site, or a value out of its range.
    """
    try:
        values = OmegaConf.to_container(OmegaConf.from_dotlist(list(words)), resolve=True)
    except OmegaConfBaseException as error:
        raise in_one_line(error) from None
    assert isinstance(values, dict)
    job = values.pop("job", None)
    file = SiteFile.parse({str(key): value for key, value in values.items()}, Path.cwd(), "mil federate site")
    return file, None if job is None else Path(str(job))


def _train(words: Sequence[str], config_dir: Path | None) -> None:
    own_words, others = divided(words)
    options = options_in(own_words)
    composed = compose_run(others, config_dir)
    section = federate(composed.config, options, composed.folder)
    sys.stdout.writelines(f"{line}\n" for line in (*lines(section), composed.folder))
    say_where(composed.folder / PAGE)


def go_on(folder: Path, words: Sequence[str]) -> None:
    """Continue a federation that was stopped or killed.

    Raises:
        MilError: The folder holds none, or options are given, which it already has.
    """
    if words:
        raise ConfigError(f"--resume {folder}: takes the options of that run, found {words[0]}, expected none")
    sys.stdout.writelines(f"{line}\n" for line in (*lines(resume(folder)), folder))


def divided(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words about the federation, and those of `mil train`."""
    about = [word for word in words if word.partition("=")[0].lstrip("+").split(".")[0] == GROUP]
    return about, [word for word in words if word not in about]


def options_in(words: Sequence[str]) -> FederationOptions:
    """Return the options under words such as `federation.sites=[a,b,c]` and `federation=default`.

    Raises:
        ConfigError: A choice or an option that does not exist, or a value out of its range.
    """
    chosen = [word.partition("=")[2] for word in words if word.partition("=")[0] == GROUP]
    name = chosen[-1] if chosen else "default"
    if name not in choices(GROUP):
        raise ConfigError(f"federation={name} does not exist{nearest(name, choices(GROUP))}")
    file = conf_dir() / GROUP / f"{name}.yaml"
    dotted = [word.lstrip("+").partition(".")[2] for word in words if "." in word.partition("=")[0]]
    try:
        node = OmegaConf.merge(OmegaConf.load(file), OmegaConf.from_dotlist([_listed(word) for word in dotted]))
        values = OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException as error:
        raise in_one_line(error) from None
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: holds no mapping, expected the options of a federation")
    return FederationOptions.parse({str(key): value for key, value in values.items()})


def _listed(word: str) -> str:
    """Return a word whose list of paths is quoted, so that a path with a colon or a comma stays one."""
    key, _, value = word.partition("=")
    if key != "sites" or not value.startswith("["):
        return word
    paths = [path.strip().strip("'\"") for path in value[1:-1].split(",")]
    return f"{key}=[{', '.join(repr(path) for path in paths if path)}]"


def lines(section: Federation) -> list[str]:
    """Return the sites with their metrics and what they say together, for a terminal."""
    shown = [
        f"{section.algorithm} over {len(section.sites)} sites, {section.rounds} rounds, {section.megabytes:.1f} MB"
    ]
    for heading, results in (("", section.sites), ("not trained on ", section.left_out)):
        for result in results:
            metrics = ", ".join(f"{named(name)} {estimate}" for name, estimate in result.metrics.items())
            shown.append(f"  {heading}{result.site}: {result.train} train, {result.report} report: {metrics or '-'}")
    for row in (*section.synthesis, *section.left_out_synthesis):
        bounds = f"{row.predicted_low:.3f} to {row.predicted_high:.3f}"
        shown.append(f"  {named(row.metric)} over sites: {row.estimate}; at a further site {bounds}")
    return [*shown, *(f"  {sentence}" for sentence in (*section.unlike, *section.incidents))]
