"""Shell completion of options, such as `tool=m` to `tool=msi-crc`; it only lists folders, so that it is fast."""

import re
from collections.abc import Iterator, Sequence

from typer import Context

from mil.config import PLURALS, choices, conf_dir
from mil.config import groups as groups_of_a_run

_LONG = ("encoder", "tool")
_KEY = re.compile(r"^([a-z]\w*):", re.MULTILINE)
_WIDTH = 76
"""Characters of a line of the help in a terminal of 80, without the indentation of paragraphs."""


def group_or_value(ctx: Context, incomplete: str) -> list[str]:
    """Return the groups of `conf/`, or after `group=` the names of its files.

    After `data.`, `split.` and the like come the options that the files of the group name. Bash splits words at equal
    signs: `tool=m` arrives as `tool`, `=`, `m`, and expects replacements of `m` only.
    """
    before = list(ctx.params.get("words") or ())
    if not incomplete and before and before[-1] in groups():  # typer drops an equal sign that is the last word
        return choices(before[-1])
    if before[-1:] == ["="] and len(before) > 1:
        return [name for name in choices(before[-2]) if name.startswith(incomplete)]
    group, given, start = incomplete.partition("=")
    if not given and "." in group:
        return [f"{name}=" for name in _options(group.partition(".")[0]) if name.startswith(group)]
    if not given:
        return [f"{name}=" for name in sorted([*groups(), *_single_options()]) if name.startswith(group)]
    return [f"{group}={name}" for name in choices(group) if name.startswith(start)]


def groups() -> list[str]:
    """Return the groups that `mil train` takes: those of a run, and where it runs."""
    return sorted([*groups_of_a_run(), "cluster"])


def tool(incomplete: str) -> list[str]:
    """Return the names of released tools that begin so; where none does, the shell completes folders."""
    from mil.zoo.registry import tool_names

    return [name for name in tool_names() if name.startswith(incomplete)]


def _options(group: str) -> list[str]:
    """Return the options below a group, `group.name`, that any of its files names; Hydra's own run folder."""
    if group == "hydra":
        return ["hydra.run.dir", "hydra.sweep.dir"]
    if group not in groups():
        return []
    texts = [path.read_text(encoding="utf-8") for path in sorted((conf_dir() / group).glob("*.yaml"))]
    names = {name for text in texts if "@package _global_" not in text for name in _KEY.findall(text)}
    return [f"{group}.{name}" for name in sorted(names)]


def _single_options() -> list[str]:
    """Return the options of a run that belong to no group, such as `seed`: keys of `train.yaml` with a value."""
    text = (conf_dir() / "train.yaml").read_text(encoding="utf-8")
    return re.findall(r"^([a-z]\w*): *[^\s#]", text, re.MULTILINE)


def groups_help() -> str:
    """Return every group of `conf/` on lines of its own with the names of its files, for the help text.

    Of the groups with the most files `mil list` shows the names, and what they are.
    """
    listed = {group: plural for plural, group in PLURALS.items() if group in _LONG}
    lines = ["\b", "Choices:"]  # click leaves the lines of a paragraph with this mark as they are
    for group in groups():
        names = choices(group)
        if group in listed:
            lines.append(f"  {group}=  one of {len(names)}, which mil list {listed[group]} shows")
        else:
            lines += _wrapped(f"  {group}=", names)
    return "\n".join(lines)


def _wrapped(start: str, names: Sequence[str]) -> Iterator[str]:
    """Yield `start` and names with `|` between them, in lines that end at a `|`, the later ones indented."""
    line = start
    for at, name in enumerate(names):
        part = name if at == len(names) - 1 else f"{name}|"
        if len(line) + len(part) > _WIDTH:
            yield line
            line = " " * len(start)
        line += part
    yield line
