"""Shell completion of options, such as `tool=m` to `tool=msi-crc`; it only lists folders, so that it is fast."""

from typer import Context

from mil.config import choices, groups


def group_or_value(ctx: Context, incomplete: str) -> list[str]:
    """Return the groups of `conf/`, or after `group=` the names of its files.

    Bash splits words at equal signs: `tool=m` arrives as `tool`, `=`, `m`, and expects replacements of `m` only.
    """
    before = list(ctx.params.get("words") or ())
    if not incomplete and before and before[-1] in groups():  # typer drops an equal sign that is the last word
        return choices(before[-1])
    if before[-1:] == ["="] and len(before) > 1:
        return [name for name in choices(before[-2]) if name.startswith(incomplete)]
    group, given, start = incomplete.partition("=")
    if not given:
        return [f"{name}=" for name in groups() if name.startswith(group)]
    return [f"{group}={name}" for name in choices(group) if name.startswith(start)]


def groups_help() -> str:
    """Return every group of `conf/` with the names of its files, for the help text."""
    return "  ".join(f"{group}={'|'.join(choices(group))}" for group in groups())
