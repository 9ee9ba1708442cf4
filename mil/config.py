"""Finds and composes `conf/`: beside the package in a checkout, within it in a wheel."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from mil.errors import ConfigError

PLURALS = {"tools": "tool", "models": "model", "encoders": "encoder"}


def conf_dir() -> Path:
    """The folder of choices."""
    package = Path(__file__).parent
    inside, beside = package / "conf", package.parent / "conf"
    return inside if inside.is_dir() else beside


def choices(group: str, extra: Path | None = None) -> list[str]:
    """The names that `group=` takes: the files of its folder, in a user's own `extra` folder too."""
    roots = [conf_dir()] + ([extra] if extra else [])
    return sorted({path.stem for root in roots for path in (root / group).glob("*.yaml")})


def groups() -> list[str]:
    """The options that choose a file: the folders of `conf/`."""
    return sorted(path.name for path in conf_dir().iterdir() if path.is_dir() and any(path.glob("*.yaml")))


def described(group: str) -> dict[str, dict[str, Any]]:
    """Each choice of a group as its yaml says it, nothing resolved."""
    from omegaconf import OmegaConf

    folder = conf_dir() / group
    loaded = {name: OmegaConf.load(folder / f"{name}.yaml") for name in choices(group)}
    return {name: cast(dict[str, Any], OmegaConf.to_container(node)) for name, node in loaded.items()}


def compose(words: Sequence[str] = (), extra: Path | None = None) -> Any:
    """The whole configuration under the words of a command line, as `mil train` would have it.

    Raises:
        ConfigError: a word that names no option, or a value that an option cannot have.
    """
    return _composed(words, extra)


def _composed(words: Sequence[str], extra: Path | None, whole: bool = False) -> Any:
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    search = [f"hydra.searchpath=[{quoted(f'file://{extra.absolute()}')}]"] if extra else []
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return hydra.compose("train", [*search, *words], return_hydra_config=whole)
    except (HydraException, OmegaConfBaseException) as error:
        raise explained(error, extra) from None


def compose_run(words: Sequence[str], extra: Path | None = None) -> tuple[Any, Path]:
    """The configuration, and where a run with it will go; the time of day in the folder's name is only near.

    Raises:
        ConfigError: as `compose`.
    """
    from omegaconf import open_dict

    config = _composed(words, extra, whole=True)
    folder = Path(str(config.hydra.run.dir)).absolute()
    with open_dict(config):
        del config["hydra"]
    return config, folder


def quoted(value: str) -> str:
    """A value as Hydra's grammar takes it whole: paths with spaces, commas, equal signs and quotes.

    A backslash is doubled before a quote and at the end, and stands for itself elsewhere.
    """
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"


def explained(error: Exception, extra: Path | None = None) -> ConfigError:
    """One line for what Hydra says in several, with the nearest name for a misspelt one."""
    text = str(error)
    if found := re.search(r"Could not (?:override|append|delete)[^']*'([^']+)'", text):
        key = found[1].lstrip("+~")
        return ConfigError(f"option {key!r} does not exist{nearest(key, list(_keys(compose())))}")
    if found := re.search(r"Could not find '([^'/]+)/([^']+)'", text):
        known = choices(found[1], extra)
        return ConfigError(
            f"{found[1]}={found[2]} does not exist{nearest(found[2], known)}; there is {', '.join(known)}"
        )
    if found := re.search(r"Could not find '([^']+)'|In '[^']+': (.+)", text):
        return ConfigError(f"configuration {found[1] or found[2]!r} cannot be composed: {_line(text)}")
    return ConfigError(f"configuration: {_line(text)}")


def nearest(name: str, known: Sequence[str], prefix: str = "") -> str:
    """`, did you mean 'model'?`, or nothing where no name is near."""
    near = difflib.get_close_matches(name, known, n=1)
    tails = {key.rsplit(".", 1)[-1]: key for key in known}
    near = near or [tails[tail] for tail in difflib.get_close_matches(name.rsplit(".", 1)[-1], list(tails), n=1)]
    return f", did you mean {prefix + near[0]!r}?" if near else ""


def _keys(node: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(node) if OmegaConf.is_config(node) else node
    for key, value in cast(Mapping[str, Any], plain).items():
        yield prefix + key
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{key}.")


def _line(text: str) -> str:
    return " ".join(text.split())
