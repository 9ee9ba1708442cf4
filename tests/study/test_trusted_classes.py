"""Run folders from elsewhere name classes of this package only, and read nothing of the environment."""

from pathlib import Path

import pytest

from mil.errors import ConfigError
from mil.study import trusted_classes
from mil.study.compose import compose, read_config, write_config


def changed(folder: Path, *words: str, old: str, new: str) -> Path:
    path = folder / "config.yaml"
    write_config(path, compose(["tool=binary", *words]))
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


def test_a_run_of_this_package_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    config = compose(["tool=survival", "model=clam_sb", "split=site_preserved"])
    write_config(path, config)
    assert read_config(path).plain() == config.plain()


@pytest.mark.parametrize(
    "target",
    [
        "torch.load",
        "pandas.eval",
        "os.system",
        "mil.files.os.system",
        "mil.study.build.make",
        "mil.endpoints.classification.pd.DataFrame",
        "torch.nn.Absent",
        "lightning.pytorch.seed_everything",
        "absent_package.Class",
        "lightning.pytorch.cli.LightningCLI",
        "lightning.pytorch.LightningDataModule",
        "mil.runs.fit_run._LogFile",
        "mil.features.store.FeatureStore",
        "mil.training._private.Class",
    ],
)
def test_what_is_no_class_of_this_package_is_refused(tmp_path: Path, target: str) -> None:
    path = changed(tmp_path, old="mil.endpoints.classification.Binary", new=target)
    with pytest.raises(ConfigError, match=f"tool.endpoint._target_ names '{target}'.*set MIL_ALLOW={target}$"):
        read_config(path)


def test_a_class_that_the_user_lists_or_composes_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trusted_classes, "_composed", set())
    path = changed(tmp_path, old="mil.endpoints.classification.Binary", new="my_package.endpoints.Mine")
    with pytest.raises(ConfigError, match="names 'my_package"):
        read_config(path)
    for listed in ("my_package", "other, my_package.endpoints.Mine"):
        monkeypatch.setenv(trusted_classes.ALLOW, listed)
        assert read_config(path).tool.endpoint.target == "my_package.endpoints.Mine"
    for listed in ("my_pack", "", ","):
        monkeypatch.setenv(trusted_classes.ALLOW, listed)
        with pytest.raises(ConfigError, match="names 'my_package"):
            read_config(path)
    trusted_classes.trust({"tool": {"endpoint": {"_target_": "my_package.endpoints.Mine"}}})
    assert read_config(path).tool.endpoint.target == "my_package.endpoints.Mine"


def test_an_interpolation_is_refused_and_nothing_of_the_environment_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "hush")
    path = changed(tmp_path, "tool.title=here", old="title: here", new="title: ${oc.env:SECRET}")
    with pytest.raises(ConfigError, match=r"tool.title holds the interpolation '\$\{oc.env:SECRET\}'") as error:
        read_config(path)
    assert "hush" not in str(error.value)
