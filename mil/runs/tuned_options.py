"""The options that a search chose, as a file of `conf/experiment/` to train with."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from mil import files
from mil.config import groups

PLACE = ("conf", "experiment", "tuned.yaml")


def write_tuned(folder: Path, fixed: Sequence[str], chosen: Sequence[str]) -> Path:
    """Write `conf/experiment/tuned.yaml` into the folder of a search and return its path.

    Args:
        folder: Of the search.
        fixed: Words that all trials shared, without those that say who the patients are.
        chosen: Words with the chosen values.
    """
    choices = dict[str, str]()
    options = list[str]()
    for word in (*fixed, *chosen):
        key, _, value = word.lstrip("+").partition("=")
        if key in groups():
            choices[key] = value
        else:
            options.append(f"{key}={value}")
    defaults = [{f"override /{group}": choice} for group, choice in choices.items()]
    content = OmegaConf.merge({"defaults": defaults} if defaults else {}, OmegaConf.from_dotlist(options))
    head = "# @package _global_\n# Chosen by mil tune among patients that its report does not report.\n"
    path = folder.joinpath(*PLACE)
    files.write(path, head + OmegaConf.to_yaml(content))
    return path
