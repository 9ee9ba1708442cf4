"""Words that a shell can complete: `tool=m` to `tool=msi-crc`. Reads folder listings, imports nothing heavy."""

from typer import Context

from mil.config import choices, groups


def group_or_value(ctx: Context, incomplete: str) -> list[str]:
    """The options that choose a file, and once one is typed, the files.

    To bash an equal sign ends a word: `tool=m` comes as `tool`, `=`, `m`, and what replaces `m` alone is asked for.
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
    """One line for each option that chooses a file."""
    return "  ".join(f"{group}={'|'.join(choices(group))}" for group in groups())
