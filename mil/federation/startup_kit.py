"""A startup kit of NVIDIA FLARE that runs the installed `mil`, and at a hospital nothing that a job brings.

What FLARE 2.9 does in a kit as it is delivered, and what is changed at a site:

- Only FLARE's own classes are built from a job: those of this package are added to `class_allow_list`.
- Jobs may bring code (`byoc`), and administrators may run shell commands, which read files below the kit: both are
  denied to all roles.
- Errors in the log are streamed to the server, and messages about files name patients: `allow_log_streaming` is false.
"""

from pathlib import Path

from pydantic import JsonValue

from mil import files
from mil.errors import ConfigError
from mil.federation.federation_job import CLASSES
from mil.federation.job_site import SITE_FILE, SiteFile

RESOURCES, AUTHORIZATION, DEFAULT = "resources.json", "authorization.json", ".default"
ALLOWED, STREAMING = "class_allow_list", "allow_log_streaming"
DENIED = ("byoc", "shell_commands")
RIGHTS = ("submit_job", "clone_job", "manage_job", "download_job", "view", "operate")
"""What a role that may do anything keeps."""
Content = dict[str, JsonValue]


def kind_of(kit: Path) -> str:
    """Return whether a startup kit is that of `server` or `site`, or a new folder, for a `simulation`.

    Raises:
        ConfigError: The folder is no startup kit of a server or a site, and holds something.
    """
    for name, kind in (("fed_server.json", "server"), ("fed_client.json", "site")):
        if (kit / "startup" / name).is_file() and (kit / "local").is_dir():
            return kind
    if not kit.exists() or (kit.is_dir() and {path.name for path in kit.iterdir()} <= {"local"}):
        return "simulation"
    raise ConfigError(f"{kit}: expected a startup kit of FLARE, with startup/fed_client.json and local/")


def prepare_kit(kit: Path, file: SiteFile) -> list[Path]:
    """Let a kit run the installed `mil`, and write the participant's own file.

    Args:
        kit: Its folder, with `startup/` and `local/`; a new one becomes the workspace of FLARE's simulator.
        file: What the participant keeps to itself.

    Returns:
        The files that were written.

    Raises:
        ConfigError: The folder is no startup kit, or one of another version of FLARE.
    """
    local, kind = kit / "local", kind_of(kit)
    resources: Content = {ALLOWED: []} if kind == "simulation" else _read(local / RESOURCES)
    allowed = resources.get(ALLOWED)
    if not isinstance(allowed, list):
        raise ConfigError(f"{local / RESOURCES}: no {ALLOWED}, expected a kit of NVIDIA FLARE 2.9")
    changed = {local / RESOURCES: {**resources, ALLOWED: [*(each for each in allowed if each != CLASSES), CLASSES]}}
    if kind == "site":
        changed[local / RESOURCES][STREAMING] = False
        changed[local / AUTHORIZATION] = _denied(_read(local / AUTHORIZATION))
    changed[local / SITE_FILE] = file.model_dump(mode="json", exclude_unset=True)  # JSON is yaml
    for path, content in changed.items():
        files.write_json(path, content)
    return list(changed)


def _denied(authorization: Content) -> Content:
    """Return who may do what, without code that a job brings and without shell commands."""
    permissions = authorization.get("permissions")
    if not isinstance(permissions, dict):
        raise ConfigError(f"{AUTHORIZATION}: no permissions, expected a kit of NVIDIA FLARE 2.9")
    changed: Content = {}
    for role, rights in permissions.items():
        every = dict.fromkeys(RIGHTS, rights) if isinstance(rights, str) else rights
        assert isinstance(every, dict)
        changed[role] = {**every, **dict.fromkeys(DENIED, "none")}
    return {**authorization, "permissions": changed}


def _read(path: Path) -> Content:
    """Return a file of the kit, or the default that FLARE delivers with it."""
    default = path.with_name(path.name + DEFAULT)
    place = path if path.is_file() else default
    if not place.is_file():
        raise ConfigError(f"{path}: no such file, nor {default.name}")
    content = files.read_json(place)
    if not isinstance(content, dict):
        raise ConfigError(f"{place}: expected an object")
    return content
