"""Words that a shell can complete: `tool=m` to `tool=msi-crc`. Reads folder listings, imports nothing heavy."""

from mil.config import choices, groups


def group_or_value(incomplete: str) -> list[str]:
    """The options that choose a file, and once one is typed, the files."""
    group, given, start = incomplete.partition("=")
    if not given:
        return [f"{name}=" for name in groups() if name.startswith(group)]
    return [f"{group}={name}" for name in choices(group) if name.startswith(start)]


def groups_help() -> str:
    """One line for each option that chooses a file."""
    return "  ".join(f"{group}={'|'.join(choices(group))}" for group in groups())
