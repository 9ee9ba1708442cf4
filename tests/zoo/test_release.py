"""A released folder is a checkpoint under a version, with a card whose every number has a source, and no patient."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from huggingface_hub import ModelCard

from mil import checkpoint
from mil.cards import RESEARCH, SIMULATED
from mil.errors import ConfigError
from mil.report.prediction_files import read
from mil.report.report_files import read_report
from mil.report.schema import Estimate
from mil.runs.describe import add_measured
from mil.study.compose import compose, read_config, write_config
from mil.zoo import release as module
from mil.zoo.verify import verify
from tests.conftest import Mil
from tests.report.tables import refitted

RUNS = pytest.mark.parametrize("run", ["crc_run", "surv_run", "real_run"])


@pytest.fixture
def released(crc_release: Path, surv_release: Path, real_release: Path) -> dict[str, Path]:
    """Each run's release."""
    return {"crc_run": crc_release, "surv_run": surv_release, "real_run": real_release}


@RUNS
def test_a_released_folder_loads_and_predicts_what_the_run_did(
    run: str, released: dict[str, Path], hospital: Path, request: pytest.FixtureRequest
) -> None:
    source = request.getfixturevalue(run)
    source = source / "checkpoint" if run == "real_run" else source / "fold_0" / "checkpoint"
    place = released[run]
    assert place.name == ("surv-crc" if run == "surv_run" else "msi-crc")
    assert checkpoint.load(place).manifest.tool.version == "1.0.0"
    assert (place / "weights.safetensors").read_bytes() == (source / "weights.safetensors").read_bytes()
    if run == "real_run":
        from mil.inference.predict import predict

        predictions = predict(checkpoint.load(place), hospital / "features", hospital / "cohort.csv").set_index(
            "patient"
        )
        stored = read(source.parent / "predictions.csv").set_index("patient")
        assert predictions["p_MSI-H"].to_dict() == stored["p_MSI-H"].to_dict()


def test_the_zoos_statements_go_with_its_simulated_cohort_alone(
    released: dict[str, Path], crc_run: Path, tmp_path: Path
) -> None:
    for name in ("crc_run", "real_run"):  # a simulated cohort of another size, and patients
        assert not (released[name] / "card.yaml").exists()
        assert "mil zoo developers" not in (released[name] / "README.md").read_text()
    run = shutil.copytree(crc_run, tmp_path / "run")
    of_the_zoo = read_config(run / "config.yaml").model_copy(
        update={"simulation": compose(["tool=msi-crc"]).simulation}
    )
    write_config(run / "config.yaml", of_the_zoo)
    add_measured(run)
    assert "mil zoo developers" in (run / "fold_0" / "checkpoint" / "card.yaml").read_text()
    assert "mil zoo developers" in (run / "fold_0" / "checkpoint" / "README.md").read_text()


@pytest.mark.usefixtures("_undrawn")
def test_what_people_state_in_a_run_is_copied_into_its_release(real_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(real_run, tmp_path / "run")
    (run / "card.yaml").write_text("funding: A fund of the hospital\n")
    place = module.release(run, "1.0.0", tmp_path / "out")
    assert (place / "card.yaml").read_text() == "funding: A fund of the hospital\n"
    assert "- **Funding**: A fund of the hospital" in (place / "README.md").read_text()
    assert "A fund of the hospital" in (place / "model_card.html").read_text()
    assert "<FundingSource>A fund of the hospital</FundingSource>" in (place / "model_card.xml").read_text()
    assert verify(place) == []


def test_a_released_report_shows_the_pictures_of_its_folder_and_holds_none(released: dict[str, Path]) -> None:
    place = released["crc_run"]
    for page in ("report.html", "model_card.html"):
        pictures = re.findall(r'<img src="([^"]+)"', (place / page).read_text())
        assert pictures
        assert all((place / picture).is_file() for picture in pictures)
    assert "data:image" not in (place / "report.html").read_text()


@RUNS
def test_the_card_says_first_what_its_numbers_are_worth(run: str, released: dict[str, Path]) -> None:
    text = (released[run] / "README.md").read_text()
    body = text.split("---\n", 2)[2]
    assert body.splitlines()[0] == f"> **{RESEARCH if run == 'real_run' else SIMULATED}**"
    assert "SIMULATED" in SIMULATED
    assert f"version {'1.0.0'}" in body
    assert "MIL_" not in text
    assert "Undefined" not in text


@RUNS
def test_the_front_matter_is_what_a_model_hub_reads(run: str, released: dict[str, Path]) -> None:
    loaded = ModelCard.load(released[run] / "README.md").data
    report = read_report(released[run] / "report.json")
    assert loaded.eval_results
    for result in loaded.eval_results:
        estimate = report.metrics[result.metric_name]
        assert result.metric_value == estimate.value
        assert result.metric_args["counts"] == estimate.counts
        assert result.dataset_type == ("private" if run == "real_run" else "simulated")
    assert len(loaded.eval_results) == len(report.metrics)
    assert loaded.library_name == "mil-zoo"
    assert ("simulated-data" in loaded.tags) == (run != "real_run")


@RUNS
def test_every_number_of_the_cards_tables_is_in_the_report_at_the_place_it_names(
    run: str, released: dict[str, Path]
) -> None:
    report = read_report(released[run] / "report.json").model_dump(mode="json")
    text = (released[run] / "README.md").read_text()
    rows = re.findall(r"^\| [^|]+ \| [^|]+ \| ([^|]+) \| (n [^|]+) \[\^(\d+)\] \|$", text, re.MULTILINE)
    footnotes = dict(re.findall(r"^\[\^(\d+)\]: `report\.json: ([\w.]+)`$", text, re.MULTILINE))
    cited = [(value, counted, footnotes[number]) for value, counted, number in rows if number in footnotes]
    assert len(cited) >= (5 if run == "crc_run" else 2)
    for value, counted, source in cited:
        node = report
        for key in source.split("."):
            node = node[key]
        estimate = Estimate.model_validate(node)
        assert (value, counted) == (str(estimate), estimate.population)


@RUNS
def test_no_patient_and_no_path_of_this_machine_is_in_a_released_file(
    run: str, released: dict[str, Path], shared: Path, request: pytest.FixtureRequest
) -> None:
    patients = set(read(request.getfixturevalue(run) / "split.csv")["patient"])
    names = {path.name for path in released[run].rglob("*") if path.is_file()}
    assert {"README.md", "manifest.json", "report.json", "weights.safetensors"} < names
    here = [str(shared), str(Path.home()), str(Path(__file__).parents[2])]
    for path in released[run].rglob("*"):
        if path.is_file():
            text = path.read_bytes().decode("utf-8", "replace")
            assert not any(place in text for place in here), path
            if path.suffix in (".json", ".md", ".svg"):
                assert not patients & set(re.findall(r"[\w-]+", text)), path


def test_where_a_split_file_lay_is_in_no_released_file(real_run: Path, given_back: Path, tmp_path: Path) -> None:
    place = module.release(given_back, "1.0.0", tmp_path / "out")
    assert not any(str(real_run).encode() in path.read_bytes() for path in place.rglob("*") if path.is_file())


@pytest.mark.parametrize("version", ["1", "1.0", "v1.0.0", "1.0.0-rc1", "01.0.0", "1.0.0\n", "../1.0.0", ""])
def test_a_version_that_is_none_is_refused(version: str, crc_run: Path, mil: Mil, tmp_path: Path) -> None:
    result = mil("release", crc_run, "--version", version, "--out", tmp_path / "out")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "expected X.Y.Z" in result.err
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("_undrawn")
def test_a_version_is_released_once_and_the_next_replaces_it_whole(crc_run: Path, mil: Mil, tmp_path: Path) -> None:
    def publish(version: str, *words: str) -> tuple[int, str]:
        message = mil("release", crc_run, "--version", version, "--out", tmp_path, *words)
        return message.code, (message.err if message.code else message.out).splitlines()[-1]

    place = tmp_path / "msi-crc"
    assert publish("0.2.0") == (0, str(place))
    first = (place / "manifest.json").read_bytes()
    code, message = publish("0.2.0", "--fold", "1")
    assert (code, message) == (2, f"mil: {place}: version 0.2.0 is released already, expected a new one")
    assert (place / "manifest.json").read_bytes() == first
    assert publish("0.3.0", "--fold", "1")[0] == 0
    assert checkpoint.load(place).manifest.data.split.fold == 1
    assert [path.name for path in tmp_path.iterdir()] == ["msi-crc"]


def test_what_is_no_finished_run_or_fold_is_refused(crc_run: Path, mil: Mil, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for run, words in ((tmp_path / "empty", []), (crc_run, ["--fold", "7"])):
        result = mil("release", run, "--version", "1.0.0", "--out", tmp_path / "out", *words)
        assert (result.code, result.err.count("\n")) == (2, 1)
        assert "no checkpoint of fold" in result.err
    assert not (tmp_path / "out").exists()


def test_a_tools_name_leads_out_of_no_folder(crc_run: Path, mil: Mil, tmp_path: Path) -> None:
    copy = shutil.copytree(crc_run, tmp_path / "run")
    path = copy / "fold_0" / "checkpoint" / "manifest.json"
    node = json.loads(path.read_text())
    node["tool"]["name"] = "../../elsewhere"
    path.write_text(json.dumps(node))
    result = mil("release", copy, "--version", "1.0.0", "--out", tmp_path / "a" / "out")
    assert result.code == 2
    assert "tool name '../../elsewhere'" in result.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


class Killed(BaseException):
    """As if by `kill -9`: nothing after it runs but what a test puts right."""


@pytest.mark.usefixtures("_undrawn")
def test_a_release_that_fails_before_it_is_whole_leaves_the_old_version(
    crc_run: Path, crc_release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = shutil.copytree(crc_release, tmp_path / crc_release.name)

    def killed(*_: object) -> None:
        raise Killed

    for owner, name in ((shutil, "copytree"), (module, "texts"), (checkpoint, "seal")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, killed)
            with pytest.raises(Killed):
                module.release(crc_run, "2.0.0", tmp_path)
        assert checkpoint.load(place).manifest.tool.version == "1.0.0", name
        assert [path.name for path in tmp_path.iterdir()] == ["msi-crc"], name
    assert checkpoint.load(module.release(crc_run, "2.0.0", tmp_path)).manifest.tool.version == "2.0.0"


def test_a_release_killed_between_its_two_renames_gives_the_old_version_back(
    crc_run: Path, crc_release: Path, tmp_path: Path
) -> None:
    place = shutil.copytree(crc_release, tmp_path / crc_release.name)
    place.rename(tmp_path / ".msi-crc.old")  # the first rename, and then the end
    with pytest.raises(ConfigError, match=r"1\.0\.0 is released already"):
        module.release(crc_run, "1.0.0", tmp_path)
    assert checkpoint.load(place).manifest.tool.version == "1.0.0"


def test_an_undefined_metric_is_null_in_the_report_and_not_estimable_in_the_card() -> None:
    from mil.endpoints.classification import Binary
    from mil.report.assemble import evaluate

    frame = pd.DataFrame({"patient": ["a", "b"], "fold": 0, "role": "report", "MSI": "MSS", "p_MSI-H": [0.1, 0.2]})
    report = evaluate(refitted(frame, Binary("MSI", ["MSS", "MSI-H"]), resamples=5))
    assert report.metrics["auroc"].value is None
    assert str(report.metrics["auroc"]) == "not estimable: no fold has positives and negatives"
