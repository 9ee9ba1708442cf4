"""A released folder cannot lie: what was changed is found by its name, even where the manifest was made to fit."""

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image, PngImagePlugin

from mil import checkpoint, files
from mil.report.report_files import read_report
from mil.zoo import figures, golden
from mil.zoo import verify as verification
from mil.zoo.index import write_index
from mil.zoo.release import release
from mil.zoo.released import texts
from mil.zoo.verify import differences, recomputed, verify, verify_all
from tests.conftest import Mil
from tests.zoo.checkpoints import reseal

Break = Callable[[Path], object]


@pytest.fixture
def copy(crc_release: Path, tmp_path: Path) -> Path:
    """A release to be spoilt."""
    return shutil.copytree(crc_release, tmp_path / crc_release.name)


def replaced(name: str, old: str, new: str) -> Break:
    """The first place where a text stands becomes another."""

    def change(folder: Path) -> None:
        text = (folder / name).read_text(encoding="utf-8")
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1), encoding="utf-8")

    return change


def reported(change: Callable[[dict[str, Any]], object]) -> Break:
    """A change of report.json."""

    def apply(folder: Path) -> None:
        report = files.read_json(folder / "report.json")
        change(report)
        files.write_json(folder / "report.json", report)

    return apply


def digit(card: Path) -> None:
    """One digit of the first interval in a card."""
    text = (card / "README.md").read_text(encoding="utf-8")
    at = text.index(" to 0.") + len(" to 0.")
    (card / "README.md").write_text(f"{text[:at]}{(int(text[at]) + 1) % 10}{text[at + 1 :]}", encoding="utf-8")


def without_block(folder: Path) -> None:
    """A card whose block 12 is gone."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    start, end = text.index("\n## 12."), text.index("\n## 13.")
    (folder / "README.md").write_text(text[:start] + text[end:], encoding="utf-8")


def weights_of_another_fold(run: Path) -> Break:
    """Sound weights, of the same shape."""
    weights = run / "fold_1" / "checkpoint" / checkpoint.WEIGHTS
    return lambda folder: shutil.copyfile(weights, folder / checkpoint.WEIGHTS)


def test_a_release_as_it_was_made_is_sound(crc_release: Path) -> None:
    assert verify(crc_release) == []
    assert recomputed(crc_release) == read_report(crc_release / "report.json")


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (digit, "README.md is not the file"),
        (reported(lambda report: report["metrics"]["auroc"].update(value=0.99)), "report.json is not the file"),
        (lambda folder: (folder / checkpoint.WEIGHTS).write_bytes(b"x" * 900), "weights.safetensors is not the file"),
        (lambda folder: (folder / "extra.py").write_text(""), "extra.py is not in the manifest"),
        (lambda folder: (folder / "report.html").unlink(), "report.html is missing"),
    ],
)
def test_a_changed_extra_or_missing_file_is_named(spoil: Break, name: str, copy: Path) -> None:
    spoil(copy)
    (problem,) = verify(copy)
    assert name in problem


@pytest.mark.usefixtures("_not_redrawn")
@pytest.mark.parametrize(
    "spoilt",
    [
        {
            "README.md: line ": digit,
            "model_card.xml: line ": replaced("model_card.xml", "</", " </"),
            "report.html: line ": replaced("report.html", "</h1>", "!</h1>"),
            "model_card.html: line ": replaced("model_card.html", "</h1>", "!</h1>"),
            "LICENSE-weights.txt: line ": replaced("LICENSE-weights.txt", "research use only", "any use"),
        },
        {
            "README.md: block 12 is missing": without_block,
            "README.md: line ": replaced("CHANGELOG.md", "First", "Best"),
        },
        {
            "report.json: metrics.auroc.low is 0.0, ": reported(
                lambda stored: stored["metrics"]["auroc"].update(low=0.0)
            ),
            "report.json: metrics.balanced_accuracy is null": reported(lambda report: report["metrics"].popitem()),
            "report.json: run.patients.n is 9": reported(lambda report: report["run"]["patients"].update(n=9)),
            "report.json: gates[1].holds is true": reported(lambda report: report["gates"][1].update(holds=True)),
            'report.json: fitted[0].on is "nobody"': reported(lambda report: report["fitted"][0].update(on="nobody")),
        },
        {
            "README.md: line ": replaced("README.md", "\n\n", "\n \n"),
            "model_card.xml: line ": replaced("model_card.xml", "\n", "\n\n"),
            "report.html: line ": replaced("report.html", " ", "  "),
        },
        {"the stored predictions give": reported(lambda report: report.update(seed=9))},
        {
            "CHANGELOG.md: begins with 0.9.0, the manifest is of 1.0.0": replaced("CHANGELOG.md", "1.0.0", "0.9.0"),
            "README.md: line ": replaced("README.md", "1.0.0", "0.9.0"),
        },
        {"CHANGELOG.md: line 3 is not '- X.Y.Z (date): what changed'": replaced("CHANGELOG.md", "- 1", "* 1")},
        {"extra.py is no part of a release": lambda folder: (folder / "extra.py").write_text("")},
        {"figures/x.js is no part of a release": lambda folder: (folder / "figures" / "x.js").write_text("")},
        {"golden.safetensors is missing": lambda folder: (folder / golden.GOLDEN).unlink()},
        {"predictions.csv is missing": lambda folder: (folder / "predictions.csv").unlink()},
        {"report.json: holds a list, expected a report": lambda folder: (folder / "report.json").write_text("[]")},
    ],
    ids=lambda spoilt: next(iter(spoilt)),
)
def test_what_a_forger_changes_is_named_though_the_manifest_was_made_to_fit(
    spoilt: dict[str, Break], copy: Path
) -> None:
    for spoil in spoilt.values():
        spoil(copy)
    reseal(copy)
    problems = verify(copy)
    for name in spoilt:
        assert any(name in problem for problem in problems), (name, problems)
    assert all("\n" not in problem for problem in problems)


@pytest.mark.usefixtures("_not_redrawn")
def test_a_digit_that_no_reader_sees_is_found_too(copy: Path) -> None:
    report = files.read_json(copy / "report.json")
    report["metrics"]["auroc"]["low"] += 1e-9
    files.write_json(copy / "report.json", report)
    reseal(copy)
    assert verify(copy)[0].startswith("report.json: metrics.auroc.low")


def test_swapped_weights_that_fit_do_not_predict_the_same(copy: Path, crc_run: Path) -> None:
    weights_of_another_fold(crc_run)(copy)
    reseal(copy)
    (problem,) = verify(copy)
    assert "golden.safetensors: logits differ by" in problem


def test_swapped_predictions_give_other_numbers(copy: Path) -> None:
    shutil.copyfile(copy / "baseline.csv", copy / "predictions.csv")
    reseal(copy)
    assert any(problem.startswith("report.json: metrics.auroc.") for problem in verify(copy))


@pytest.mark.usefixtures("_not_redrawn")
def test_elsewhere_the_last_bits_may_differ(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "here", lambda: {"machine": "another"})
    assert verify(copy) == []
    stored, computed = {"a": [0.5, {"b": 1.0}], "c": "x"}, {"a": [0.5 + 1e-12, {"b": 1.001}], "c": "y"}
    assert [line.split()[0] for line in differences(stored, computed, exact=False)] == ["a[1].b", "c"]
    assert [line.split()[0] for line in differences(stored, computed, exact=True)] == ["a[0]", "a[1].b", "c"]
    assert list(differences({"n": 1}, {"n": True}, exact=False))
    assert list(differences({"n": [1]}, {"n": [1, 2]}, exact=False))


def test_a_release_of_real_patients_holds_no_table_of_them_and_is_sound(real_release: Path, tmp_path: Path) -> None:
    place = shutil.copytree(real_release, tmp_path / real_release.name)
    assert [path.name for path in place.rglob("*.csv")] == ["epochs.csv"], "losses, no patients"
    assert "patient" not in (place / "epochs.csv").read_text()
    assert recomputed(place) is None
    assert verify(place) == []
    report = json.loads((place / "report.json").read_text())
    assert [gate["holds"] for gate in report["gates"] if gate["number"] == 9] == [True]
    (place / "patients.csv").write_text("patient,sex\n")
    reseal(place)
    assert verify(place) == ["patients.csv is no part of a release"]


def test_a_release_made_again_is_the_same_to_the_last_byte(crc_run: Path, crc_release: Path, tmp_path: Path) -> None:
    again = release(crc_run, "1.0.0", tmp_path)
    assert (again / "manifest.json").read_bytes() == (crc_release / "manifest.json").read_bytes()


@pytest.mark.usefixtures("_not_redrawn")
def test_several_are_verified_in_order(crc_release: Path, copy: Path) -> None:
    (copy / "extra.py").write_text("")
    assert [len(problems) for _, problems in verify_all([copy, crc_release], 1)] == [1, 0]


@pytest.mark.usefixtures("_not_redrawn")
@pytest.mark.parametrize("broken_first", [True, False])
def test_the_command_fails_wherever_the_broken_folder_stands(
    broken_first: bool, crc_release: Path, copy: Path, mil: Mil
) -> None:
    (copy / "extra.py").write_text("")
    folders = [copy, crc_release] if broken_first else [crc_release, copy]
    result = mil("zoo", "verify", *folders, "--processes", 1)
    first_line, *lines = result.out.splitlines()
    broken_line, sound_line = sorted(lines, key=lambda line: "sound" in line)
    assert result.code == 1
    assert first_line.startswith("signatures: 2 unsigned; where no signature was checked, files that agree may all ")
    assert "extra.py is not in the manifest" in broken_line
    assert sound_line == f"{crc_release.name}: sound (unsigned)"


def repainted(path: Path, keep_text: bool) -> None:
    """Paint a white square over a figure; a forger keeps the text of the file, or writes what fits the new pixels."""
    with Image.open(path) as image:
        image.load()
        text = {str(key): str(value) for key, value in image.info.items() if str(key).startswith("mil-")}
        changed = image.convert("RGB")
    changed.paste((255, 255, 255), (0, 0, 60, 60))
    changed.putpixel((5, 5), (0, 0, 0))
    if not keep_text:
        text[figures.PIXELS] = figures.pixels_digest(changed)
    info = PngImagePlugin.PngInfo()
    for key, value in text.items():
        info.add_text(key, value)
    changed.save(path, pnginfo=info)


def as_shown(folder: Path) -> None:
    """Writes the pages again, which hold the figures, and the manifest."""
    reseal(folder)
    loaded = checkpoint.load(folder)
    for name, text in texts(folder, loaded.manifest, loaded.endpoint, read_report(folder / "report.json")).items():
        files.write(folder / name, text)
    reseal(folder)


def test_a_repainted_figure_is_found(copy: Path) -> None:
    repainted(copy / "figures" / "roc.png", keep_text=True)
    as_shown(copy)
    assert "figures/roc.png: pixels are not those that were drawn" in verify(copy)


def test_a_figure_whose_digest_was_made_to_fit_differs_from_one_drawn_again(copy: Path) -> None:
    repainted(copy / "figures" / "roc.png", keep_text=False)
    as_shown(copy)
    assert verify(copy) == ["figures/roc.png is not what the stored predictions give"]


def test_a_figure_of_other_numbers_is_found_where_nothing_is_drawn_again(
    copy: Path, surv_release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "drawn_by", lambda: "another machine")
    assert verify(copy) == []
    shutil.copyfile(surv_release / "figures" / "learning_curve.png", copy / "figures" / "learning_curve.png")
    as_shown(copy)
    assert verify(copy) == ["figures/learning_curve.png was not drawn from the numbers of report.json"]


def test_figures_that_are_missing_too_many_or_none_are_found(copy: Path) -> None:
    (copy / "figures" / "roc.png").rename(copy / "figures" / "rocket.png")
    as_shown(copy)
    missing, further = verify(copy)
    assert missing == "figures/roc.png is missing, the report has it"
    assert further == "figures/rocket.png: the report has no such figure"
    (copy / "figures" / "rocket.png").write_text("no picture")
    reseal(copy)
    assert "figures/rocket.png is not a figure of a release" in verify(copy)


def test_a_learning_curve_is_drawn_again_from_the_released_epochs(copy: Path) -> None:
    epochs = copy / figures.EPOCHS
    table = pd.read_csv(epochs)
    table.assign(select_loss=table["select_loss"] / 2).to_csv(epochs, index=False)
    reseal(copy)
    assert verify(copy) == ["figures/learning_curve.png is not what the stored predictions give"]


@pytest.mark.usefixtures("_not_redrawn")
def test_a_changed_index_is_found(
    crc_release: Path, surv_release: Path, mil: Mil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "verify", cache(verify))  # only the index changes here
    zoo = tmp_path / "zoo"
    for place in (crc_release, surv_release):
        shutil.copytree(place, zoo / place.name)
    assert mil("zoo", "verify", zoo / "msi-crc", "--processes", 1).out.count("\n") == 2
    write_index(zoo)
    result = mil("zoo", "verify", zoo / "msi-crc", zoo / "surv-crc", "--processes", 1)
    assert (result.code, result.out.splitlines()[-1]) == (0, "zoo/README.md: sound")
    index = (zoo / "README.md").read_text()
    rows = {row.split("<br>")[1].split(" ")[0]: row for row in index.splitlines() if "<br>" in row}
    better = rows["msi-crc"].replace(" 0.", " 0.9", 1)
    (zoo / "README.md").write_text(index.replace(rows["msi-crc"], better))
    for places in (["msi-crc", "surv-crc"], ["msi-crc"]):
        result = mil("zoo", "verify", *(zoo / place for place in places), "--processes", 1)
        last = result.out.splitlines()[-1]
        assert result.code == 1
        assert last.startswith(
            "zoo/README.md: line " if len(places) == 2 else "zoo/README.md: the row of msi-crc is not "
        )
    assert mil("zoo", "verify", zoo / "surv-crc", "--processes", 1).code == 0
    (zoo / "README.md").write_text(index.replace("nobody has assessed", "everybody has assessed"))
    result = mil("zoo", "verify", zoo / "msi-crc", zoo / "surv-crc", "--processes", 1)
    assert result.code == 1


@pytest.mark.slow
def test_several_are_verified_in_processes_of_their_own(crc_release: Path, copy: Path) -> None:
    (copy / "extra.py").write_text("")
    assert [(place, len(problems)) for place, problems in verify_all([crc_release, copy], 2)] == [
        (crc_release, 0),
        (copy, 1),
    ]
