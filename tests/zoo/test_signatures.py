"""Signatures with the library that makes them: who may be trusted is decided before anything of a folder is read."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import mil as package
from mil import checkpoint, files
from mil.errors import CheckpointError, ConfigError
from mil.report.prediction_files import read
from mil.report.report_files import read_report, write_report
from mil.zoo import signing
from mil.zoo.attach import read_external
from mil.zoo.figures import EPOCHS, draw_figures
from mil.zoo.gates import Evidence, gates
from mil.zoo.policy import read_policy
from mil.zoo.registry import pull, push
from mil.zoo.released import texts
from mil.zoo.verify import recompute, released_run, verify
from tests.conftest import Mil, Said
from tests.zoo.checkpoints import made

pytest.importorskip("model_signing", reason="the extra `sign` is not installed")
pytest.importorskip("OpenSSL", reason="the extra `sign` is not installed")

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

pytestmark = pytest.mark.usefixtures("_not_redrawn")


@pytest.fixture(autouse=True)
def _no_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIL_POLICY", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))


def key_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """Private and public key as `openssl ecparam -name prime256v1 -genkey` makes them."""
    secret = ec.generate_private_key(ec.SECP256R1())
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    private.write_bytes(secret.private_bytes(serialization.Encoding.PEM, *plain))
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(secret.public_key().public_bytes(serialization.Encoding.PEM, form))
    return private, public


@pytest.fixture
def ours(tmp_path: Path) -> tuple[Path, Path]:
    return key_pair(tmp_path, "ours")


@pytest.fixture
def theirs(tmp_path: Path) -> tuple[Path, Path]:
    return key_pair(tmp_path, "theirs")


@pytest.fixture
def signed(crc_release: Path, ours: tuple[Path, Path], mil: Mil, tmp_path: Path) -> Path:
    """A release signed by the command."""
    place = shutil.copytree(crc_release, tmp_path / "zoo" / crc_release.name)
    result = mil("zoo", "sign", place, "--key", ours[0])
    assert (result.code, result.out) == (0, f"{place}.sig\n"), result.err
    return place


def forged(place: Path) -> None:
    """Make the predictions better, and all that follows from them, so that the folder agrees with itself."""
    table = read(place / "predictions.csv", ["MSI"])
    chosen = (table["role"] == "report") & (table["MSI"] == "MSI-H")
    table.loc[chosen, "p_MSI-H"] = 0.9 + table.loc[chosen, "p_MSI-H"] / 10
    (place / "predictions.csv").write_text(table.to_csv(index=False))
    checkpoint.seal(place, checkpoint.unverified(place))
    _describe_again(place, checkpoint.load(place))


def _describe_again(place: Path, loaded: checkpoint.Checkpoint) -> None:
    stored = read_report(place / "report.json")
    run = released_run(loaded, stored)
    report = recompute(run, loaded, stored).model_copy(update={"gates": ()})
    results = gates(Evidence(run, loaded.manifest, report, (), read_external(place)))
    report = report.model_copy(update={"gates": tuple(results)})
    write_report(place / "report.json", report)
    shutil.rmtree(place / "figures")
    draw_figures(run, report, place, loaded.manifest.data.split.fold)
    for name, text in texts(place, loaded.manifest, loaded.endpoint, report).items():
        files.write(place / name, text)
    checkpoint.seal(place, loaded.manifest)


def policy(folder: Path, *keys: Path) -> Path:
    path = folder / "policy.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"require_signature = true\nkeys = {json.dumps([str(key) for key in keys])}\n")
    return path


def refused(result: Said, message: str) -> None:
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1), result
    assert message in result.err


def test_a_signed_release_is_sound_and_another_key_is_refused(
    signed: Path, ours: tuple[Path, Path], theirs: tuple[Path, Path], mil: Mil
) -> None:
    result = mil("zoo", "verify", signed, "--key", ours[1])
    assert (result.code, result.out) == (0, "signatures: 1 signed\nmsi-crc: sound (signed)\n")
    result = mil("zoo", "verify", signed)
    assert result.out.startswith("signatures: 1 signed, not checked; where no signature was checked, files that agree ")
    result = mil("zoo", "verify", signed, "--key", theirs[1])
    assert result.code == 1
    assert result.out.startswith("signatures: 1 signature refused")
    assert "the signature does not match (Key mismatch" in result.out


def test_a_coherent_forgery_is_called_unsigned_first_and_fails_where_it_was_signed(
    signed: Path, ours: tuple[Path, Path], mil: Mil
) -> None:
    before = json.loads((signed / "report.json").read_text())["metrics"]["auroc"]["value"]
    forged(signed)
    assert json.loads((signed / "report.json").read_text())["metrics"]["auroc"]["value"] != before
    assert verify(signed) == [], "the forgery agrees with itself"
    result = mil("zoo", "verify", signed, "--key", ours[1])
    assert result.code == 1
    assert "the signature does not match (Signature mismatch" in result.out
    signing.signature_path(signed).unlink()
    result = mil("zoo", "verify", signed)
    assert result.code == 0
    assert result.out.splitlines()[0] == (
        "signatures: 1 unsigned; where no signature was checked, files that agree may all have been changed together"
    )
    assert result.out.splitlines()[1] == "msi-crc: sound (unsigned)"
    result = mil("zoo", "verify", signed, "--key", ours[1])
    assert result.code == 1
    assert "unsigned, expected a signature that" in result.out


def test_predictions_demand_the_signature_of_a_key(
    signed: Path, crc_release: Path, ours: tuple[Path, Path], theirs: tuple[Path, Path], hospital: Path, tmp_path: Path
) -> None:
    assert package.load(signed, key=ours[1]).manifest.tool.name == "msi-crc"
    for folder, key, message in ((signed, theirs[1], "does not match"), (crc_release, ours[1], "unsigned")):
        with pytest.raises(CheckpointError, match=message):
            package.load(folder, key=key)
        with pytest.raises(CheckpointError, match=message):
            package.predict(folder, hospital / "features", key=key)


def test_the_commands_demand_the_signature_of_a_key(
    signed: Path, ours: tuple[Path, Path], theirs: tuple[Path, Path], hospital: Path, mil: Mil, tmp_path: Path
) -> None:
    words = ["predict", signed, "--features", hospital / "features", "--out", tmp_path / "s.csv"]
    assert mil(*words, "--key", ours[1]).code == 0
    (tmp_path / "s.csv").unlink()
    refused(mil(*words, "--key", theirs[1]), "the signature does not match")
    refused(mil(*words, "--key", tmp_path / "none.pem"), "none.pem: no such file, expected a public key in PEM format")
    cohort = ["--cohort", hospital / "cohort.csv", "--features", hospital / "features", "--out", tmp_path / "out"]
    refused(mil("evaluate", signed, *cohort, "--key", theirs[1]), "the signature does not match")
    refused(mil("calibrate", signed, *cohort, "--key", theirs[1]), "the signature does not match")
    assert not (tmp_path / "s.csv").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["variable", "configuration"])
def test_a_policy_demands_signatures_of_everybody(
    place: str,
    signed: Path,
    crc_release: Path,
    ours: tuple[Path, Path],
    theirs: tuple[Path, Path],
    hospital: Path,
    mil: Mil,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / ("site" if place == "variable" else "configuration/mil-zoo")
    path = policy(folder, theirs[1], ours[1])
    if place == "variable":
        monkeypatch.setenv("MIL_POLICY", str(path))
    words = ["--features", hospital / "features", "--out", tmp_path / "s.csv"]
    assert mil("predict", signed, *words).code == 0, "one of several keys suffices"
    refused(
        mil("predict", crc_release, *words), f"unsigned, expected a signature that {theirs[1]} verifies; {path} demands"
    )
    policy(folder, theirs[1])
    refused(mil("predict", signed, *words), "demands a signature by one of 1 keys")
    refused(mil("predict", signed, *words, "--key", ours[1]), "demands a signature by one of 1 keys")
    result = mil("zoo", "verify", signed)
    assert result.code == 1
    assert "signature refused" in result.out
    registry = tmp_path / "registry"
    push(made(tmp_path / "toy"), str(registry))
    with pytest.raises(CheckpointError, match="demands a signature"):
        pull(str(registry), "toy", tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("require_signature = true\n", "demands signatures and names no keys"),
        ("require_signatures = true\n", "require_signatures: Extra inputs are not permitted"),
        ("require_signature: true\n", "expected require_signature and keys in TOML"),
    ],
)
def test_a_policy_that_cannot_be_understood_lets_nothing_pass(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIL_POLICY", str(tmp_path / "policy.toml"))
    with pytest.raises(ConfigError, match="no such file, expected a policy"):
        read_policy()
    (tmp_path / "policy.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        package.load("msi-crc")


def test_a_policy_of_which_only_the_name_is_left_lets_nothing_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert not read_policy().require_signature
    place = tmp_path / "mil-zoo" / "policy.toml"
    place.parent.mkdir()
    place.symlink_to("/of/a/disk/that/is/not/mounted.toml")
    with pytest.raises(ConfigError, match="is no file that can be read, expected a policy"):
        read_policy()
    place.unlink()
    place.mkdir()
    with pytest.raises(ConfigError, match="is no file that can be read, expected a policy"):
        read_policy()
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # nobody's home, as in a container of another user
    assert not read_policy().require_signature


def test_keys_of_a_policy_lie_beside_it(
    tmp_path: Path, ours: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIL_POLICY", str(policy(tmp_path, Path(ours[1].name))))
    assert read_policy().keys == (ours[1],)


@pytest.mark.parametrize("content", ["", "{}", "[]", "no signature", '{"verificationMaterial": 1}'])
def test_what_is_no_signature_is_refused_in_one_line(
    content: str, signed: Path, ours: tuple[Path, Path], mil: Mil
) -> None:
    signing.signature_path(signed).write_text(content)
    result = mil("zoo", "verify", signed, "--key", ours[1])
    assert result.code == 1
    assert "the signature does not match" in result.out
    assert len(result.out.splitlines()) == 2


def other_keys(place: Path) -> dict[str, tuple[Path, str]]:
    """Return files that are no private key to sign with, and what is wrong with each."""
    plain, behind = serialization.NoEncryption(), serialization.BestAvailableEncryption(b"password")
    written: dict[str, tuple[Any, Any]] = {
        "rsa": (rsa.generate_private_key(65537, 1024), plain),
        "edwards": (ed25519.Ed25519PrivateKey.generate(), plain),
        "bitcoin": (ec.generate_private_key(ec.SECP256K1()), plain),
        "locked": (ec.generate_private_key(ec.SECP256R1()), behind),
    }
    for name, (secret, encryption) in written.items():
        form = serialization.PrivateFormat.PKCS8
        (place / name).write_bytes(secret.private_bytes(serialization.Encoding.PEM, form, encryption))
    (place / "empty").write_bytes(b"")
    (place / "huge").write_bytes(b"-----BEGIN PRIVATE KEY-----\n" + b"A" * 2**17)
    (place / "folder").mkdir()
    (place / "link").symlink_to("/nothing/is/here.pem")
    os.mkfifo(place / "pipe")
    wrong = {
        "rsa": "is a key of another kind (RSA)",
        "edwards": "is a key of another kind (Ed25519)",
        "bitcoin": "is a key on the curve secp256k1",
        "locked": "is a key behind a password",
        "empty": "holds no private key that can be read",
        "huge": "has more than 65536 bytes",
        "folder": "it is a folder",
        "link": "no such file",
        "pipe": "it is a pipe",
    }
    return {name: (place / name, message) for name, message in wrong.items()}


def test_every_wrong_key_is_refused_for_what_it_is(
    signed: Path, ours: tuple[Path, Path], mil: Mil, tmp_path: Path
) -> None:
    before = signing.signature_path(signed).read_bytes()
    for name, (path, message) in other_keys(tmp_path).items():
        refused(mil("zoo", "sign", signed, "--key", path), f"{path}: ")
        with pytest.raises(ConfigError, match=re.escape(message)):
            signing.check_key(path, "private")
        assert name == path.name
    refused(mil("zoo", "sign", signed, "--key", ours[1]), "is a public key, expected the private key of the pair")
    refused(mil("zoo", "verify", signed, "--key", ours[0]), "is a private key, expected the public key of the pair")
    assert signing.signature_path(signed).read_bytes() == before
    assert sorted(path.name for path in signed.parent.glob(".*")) == []


@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "huge"])
def test_what_lies_in_the_place_of_a_signature_is_not_unsigned(
    kind: str, signed: Path, ours: tuple[Path, Path], hospital: Path, mil: Mil, tmp_path: Path
) -> None:
    place = signing.signature_path(signed)
    place.unlink()
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    elif kind == "link":
        place.symlink_to("/nothing/is/here.sig")
    else:
        place.write_bytes(b"{}" + b" " * 2**20)
    words = ["predict", signed, "--features", hospital / "features", "--out", tmp_path / "s.csv"]
    refused(mil(*words), f"{place}")
    refused(mil(*words, "--key", ours[1]), f"{place}")
    if kind != "huge":  # which is a file, and is replaced
        refused(mil("zoo", "sign", signed, "--key", ours[0]), "expected a new file for the signature")


def test_a_link_is_not_followed_when_a_signature_is_written(
    signed: Path, ours: tuple[Path, Path], mil: Mil, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    place = signing.signature_path(signed)
    place.unlink()
    place.symlink_to(tmp_path / "mine.txt")
    refused(mil("zoo", "sign", signed, "--key", ours[0]), "is a link, expected a new file for the signature")
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_folder_that_cannot_be_signed_is_not_blamed_on_the_key(
    signed: Path, ours: tuple[Path, Path], tmp_path: Path
) -> None:
    (signed / "link").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match=f"{signed}: cannot be signed: .*symlink"):
        signing.sign(signed, ours[0])


def test_only_a_release_is_signed_and_only_with_a_private_key(
    crc_run: Path, crc_release: Path, ours: tuple[Path, Path], mil: Mil, tmp_path: Path
) -> None:
    place = shutil.copytree(crc_release, tmp_path / "zoo" / crc_release.name)
    refused(mil("zoo", "sign", crc_run / "fold_0" / "checkpoint", "--key", ours[0]), "is not a release")
    refused(mil("zoo", "sign", place, "--key", ours[1]), "expected the private key")
    (place / "README.md").write_text("better")
    refused(mil("zoo", "sign", place, "--key", ours[0]), "README.md is not the file")
    assert not signing.signature_path(place).exists()


def test_an_extra_file_and_a_changed_one_break_the_signature(signed: Path, ours: tuple[Path, Path]) -> None:
    (signed / "extra.py").write_text("")
    with pytest.raises(CheckpointError, match="Extra files"):
        signing.verify(signed, ours[1])
    (signed / "extra.py").unlink()
    assert signing.verify(signed, ours[1]) == "signed"
    epochs = (signed / EPOCHS).read_text()
    (signed / EPOCHS).write_text(epochs + "\n")
    with pytest.raises(CheckpointError, match="does not match"):
        package.load(signed, key=ours[1])
