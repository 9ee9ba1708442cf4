"""Yaml of unknown origin is data: bounded, without aliases, and nothing in it is resolved."""

from pathlib import Path

import pytest

from mil.errors import ConfigError
from mil.yaml_files import DEEPEST, LARGEST, read_yaml


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_values_are_read_as_hydra_reads_them(tmp_path: Path) -> None:
    text = "\ufeffa: 1e-3\nb: [yes, 'no', 007]\nc: {d: null}\n"
    assert read_yaml(write(tmp_path, text)) == {"a": 0.001, "b": [True, "no", 7], "c": {"d": None}}
    assert read_yaml(write(tmp_path, "")) == {}


def test_interpolations_stay_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hush")
    assert read_yaml(write(tmp_path, "a: ${oc.env:SECRET}\n")) == {"a": "${oc.env:SECRET}"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [x, x]\nb: [*a, *a]\n", "line 2: alias [*]a, expected every value written out"),
        ("a: [\n", "no yaml"),
        ("a: !!python/object/apply:os.system [ls]\n", "no yaml"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), f"nested more than {DEEPEST} deep"),
        ("a: " + "x" * LARGEST, "more than 1 MiB"),
    ],
)
def test_what_could_harm_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        read_yaml(write(tmp_path, text))
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.yaml"):
        with pytest.raises(ConfigError, match=f"^{path}: cannot be read"):
            read_yaml(path)
