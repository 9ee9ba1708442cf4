"""Whose checkpoints may be used here: a signature that the caller demands, or that a policy file demands for everybody.

The file is `$MIL_POLICY`, otherwise `mil-zoo/policy.toml` in the user's configuration folder (`$XDG_CONFIG_HOME`, by
default `~/.config`):

    require_signature = true
    keys = ["hospital.pub.pem"]   # public keys; relative to this file

With `require_signature` a checkpoint is loaded for predictions, evaluations on cohorts, and calibration only if one of
the keys made its signature. What a run does with its own checkpoints while it trains is not affected.
"""

import os
import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from mil.errors import CheckpointError, ConfigError
from mil.storage import read_bytes
from mil.zoo import signing

VARIABLE, FILE = "MIL_POLICY", "policy.toml"
_MOST_BYTES = 2**20


class Policy(BaseModel):
    """What a policy file states."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    require_signature: bool = False
    keys: tuple[Path, ...] = ()


def policy_path() -> Path | None:
    """Return the policy file, or None if there is none.

    Raises:
        ConfigError: if `$MIL_POLICY` names a file that does not exist, or the usual place holds something that is no
            file, such as a link to a disk that is not mounted: a policy that cannot be read demands all the more.
    """
    if stated := os.environ.get(VARIABLE):
        path = Path(stated).expanduser()
        if not path.is_file():
            raise ConfigError(f"{VARIABLE}={stated}: no such file, expected a policy")
        return path
    # without a home, as in some containers, `~` stays and names nothing
    configuration = Path(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"))  # noqa: PTH111
    path = configuration / "mil-zoo" / FILE
    if os.path.lexists(path) and not path.is_file():
        raise ConfigError(f"{path}: is no file that can be read, expected a policy, or nothing of this name")
    return path if path.is_file() else None


def read_policy() -> Policy:
    """Return the policy of this machine; without a file nothing is demanded.

    Raises:
        ConfigError: if the file is not a policy, or demands signatures and names no key.
    """
    path = policy_path()
    if path is None:
        return Policy()
    try:
        content = read_bytes(path, most=_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ConfigError(f"{path}: has more than {_MOST_BYTES} bytes, expected a policy")
        policy = Policy.model_validate(tomllib.loads(content.decode("utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}, expected require_signature and keys in TOML") from None
    if policy.require_signature and not policy.keys:
        raise ConfigError(f"{path}: demands signatures and names no keys, expected keys = [...]")
    return policy.model_copy(update={"keys": tuple(path.parent / key.expanduser() for key in policy.keys)})


def check_origin(folder: Path, key: Path | None = None, signature: Path | None = None) -> str:
    """Check who made a checkpoint, before anything else of it is read, and return the state of its signature.

    Args:
        folder: A checkpoint folder.
        key: Public key that the caller demands a signature of.
        signature: Path of the signature; by default beside the folder.

    Raises:
        CheckpointError: if the folder is not signed as the key or the policy demands.
        ConfigError: if the policy cannot be read.
    """
    policy = read_policy()
    state = signing.verify(folder, key, signature)
    if not policy.require_signature:
        return state
    refusals = list[str]()
    for trusted in policy.keys:
        try:
            return signing.verify(folder, trusted, signature)
        except CheckpointError as error:
            refusals.append(str(error))
    raise CheckpointError(f"{refusals[0]}; {policy_path()} demands a signature by one of {len(policy.keys)} keys")
