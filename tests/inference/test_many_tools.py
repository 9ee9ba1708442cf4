"""Several tools in one pass: every slide is read once, and each table is that of the tool alone."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import mil as package
from mil import checkpoint
from mil.bags import Bags
from mil.checkpoint import Checkpoint
from mil.errors import CheckpointError, ConfigError, EncoderError, FeatureError, ResourceError
from mil.features import batches, pieces
from mil.features.encoders import Encoder, joined
from mil.features.formats import Slide
from mil.features.store import FeatureStore
from mil.fitted import novelty
from mil.fitted.options import NoveltyOptions
from mil.inference import forward
from mil.inference.bad_slides import OnBad
from mil.inference.many_tools import predict_tools
from mil.inference.predict import PredictionInputs, predict
from mil.inference.provenance import with_origin
from mil.models.abmil import ABMIL
from mil.models.mil_model import MILModel, Output
from mil.models.pooling import Pooling
from mil.models.transformer import Transformer
from mil.tables import read_table
from mil.zoo import predictor
from tests.checkpoints import Node, rewrite, saved, with_covariates
from tests.conftest import Mil
from tests.features.conftest import random_features, write_trident

SIZES = {"a1": 30, "a2": 2500, "b1": 7, "c1": 90, "d1": 41}
PATIENTS = {"a1": "A", "a2": "A", "b1": "B", "c1": "C", "d1": "D"}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with features/ of five slides, 8 wide, and cohort.csv of four patients."""
    folder = tmp_path_factory.mktemp("cohort")
    for slide, tiles in SIZES.items():
        shift = 5 if slide == "d1" else 0
        write_trident(folder / "features" / f"{slide}.h5", (random_features(tiles, 8) + shift).astype("float16"))
    rows = [f"{patient},{slide},{ord(patient)},F" for slide, patient in PATIENTS.items()]
    (folder / "cohort.csv").write_text("\n".join(["patient,slide,age,sex", *rows, ""]).replace("66,F", "41,M"))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return checkpoint folders: two tools of attention, one of them withholds, and one that reads covariates."""
    root = tmp_path_factory.mktemp("checkpoints")
    folders = {"msi-crc": root / "msi", "her2-breast": root / "her2"}
    for seed, (name, folder) in enumerate(folders.items()):
        torch.manual_seed(seed)
        saved(folder, ABMIL(8, 1, embed_dim=6, attention_dim=4), {"embed_dim": 6, "attention_dim": 4})
        rewrite(folder, partial(_rename, name))
    means = np.random.default_rng(0).normal(size=(40, 8)) * 0.3
    limits = novelty.fit(NoveltyOptions(min_tiles=10), np.full(40, 50), means)
    fitted = {"novelty": limits.model_dump(mode="json")}
    rewrite(folders["her2-breast"], lambda node: node["fitted"].update(fitted))
    return folders | {"several": with_covariates(root / "several")[0]}


def _rename(name: str, node: Node) -> None:
    node["tool"]["name"] = name


@pytest.fixture
def tools(folders: dict[str, Path]) -> dict[str, Checkpoint]:
    return {name: checkpoint.load(folder) for name, folder in folders.items()}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often the features of each slide are read whole, or begun to be read in pieces."""
    counts: Counter[str] = Counter()
    content, runs = FeatureStore._content, FeatureStore._runs

    def counted(store: FeatureStore, slide: str, *rest: object) -> Slide:
        counts[slide] += 1
        return content(store, slide, *rest)  # type: ignore[arg-type]  # passed on

    def counted_runs(store: FeatureStore, slide: str, *rest: object) -> list[torch.Tensor]:
        counts[slide] += 1
        return runs(store, slide, *rest)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(FeatureStore, "_content", counted)
    monkeypatch.setattr(FeatureStore, "_runs", counted_runs)
    return counts


def renamed(original: Checkpoint, name: str, model: MILModel | None = None, bag: str = "patient") -> Checkpoint:
    manifest = original.manifest
    tool = manifest.tool.model_copy(update={"name": name})
    data = manifest.data.model_copy(update={"bag": bag})
    return replace(
        original,
        manifest=manifest.model_copy(update={"tool": tool, "data": data}),
        model=(model or original.model).eval(),
    )


def alone(tool: Checkpoint, inputs: PredictionInputs) -> pd.DataFrame:
    options = {"on_bad": inputs.on_bad, "max_tiles": inputs.max_tiles}
    return with_origin(predict(tool, inputs.features, inputs.cohort, **options), [tool])  # type: ignore[arg-type]


def test_each_table_is_that_of_the_tool_alone_and_slides_are_read_once(
    tools: dict[str, Checkpoint], cohort: Path, reads: Counter[str]
) -> None:
    tools["pooling"] = renamed(tools["msi-crc"], "pooling", Pooling(8, 1))
    tools["by-slide"] = renamed(tools["msi-crc"], "by-slide", bag="slide")
    inputs = PredictionInputs(cohort / "features", cohort / "cohort.csv")
    reads.clear()
    together = predict_tools(list(tools.values()), inputs)
    assert together.left_out == {}
    assert reads == dict.fromkeys(SIZES, 2), "once for the bags of patients, once for those of slides"
    for name, tool in tools.items():
        pd.testing.assert_frame_equal(together.tables[name], alone(tool, inputs), check_exact=True)
    reasons = together.tables["her2-breast"]["withheld"].tolist()
    assert [reason[:8] for reason in reasons] == ["", "It has 7", "", "Its feat"]
    assert together.index()["withheld"].tolist() == [0, 2, 0, 0, 0]


def test_without_a_cohort_one_pass_serves_all(tools: dict[str, Checkpoint], cohort: Path, reads: Counter[str]) -> None:
    del tools["several"]
    tools["by-slide"] = renamed(tools["msi-crc"], "by-slide", bag="slide")
    inputs = PredictionInputs(cohort / "features", max_tiles=20)
    together = predict_tools(list(tools.values()), inputs)
    assert reads == dict.fromkeys(SIZES, 1)
    for name, tool in tools.items():
        pd.testing.assert_frame_equal(together.tables[name], alone(tool, inputs), check_exact=True)


@pytest.mark.parametrize("room", [1e12, 0.0])
def test_large_bags_are_read_once_where_they_fit_into_memory(
    tools: dict[str, Checkpoint], cohort: Path, reads: Counter[str], monkeypatch: pytest.MonkeyPatch, room: float
) -> None:
    tools["quadratic"] = renamed(tools["msi-crc"], "quadratic", Transformer(8, 1, embed_dim=16, heads=2))
    inputs = PredictionInputs(cohort / "features", cohort / "cohort.csv", max_tiles=0)
    monkeypatch.setattr(batches, "LARGE_BYTES", 0)
    monkeypatch.setattr(pieces, "PIECE_BYTES", 1)
    monkeypatch.setattr(forward, "free_bytes", lambda: room)
    expected = {name: alone(tool, inputs) for name, tool in tools.items()}
    reads.clear()
    together = predict_tools(list(tools.values()), inputs)
    in_pieces, whole = 2, 1  # the quadratic model reads the bag whole
    assert (reads["a2"] == in_pieces + whole) == (room > 0), reads
    for name in tools:
        pd.testing.assert_frame_equal(together.tables[name], expected[name], check_exact=True)


def test_slides_that_cannot_be_read_are_the_same_for_all(
    tools: dict[str, Checkpoint], cohort: Path, tmp_path: Path, reads: Counter[str], caplog: pytest.LogCaptureFixture
) -> None:
    for slide in ("a1", "c1", "d1"):
        (tmp_path / f"{slide}.h5").write_bytes((cohort / "features" / f"{slide}.h5").read_bytes())
    write_trident(tmp_path / "b1.h5", np.full((4, 8), np.nan))
    inputs = PredictionInputs(tmp_path, cohort / "cohort.csv", on_bad="skip")
    together = predict_tools(list(tools.values()), inputs)
    assert reads == {"a1": 2, "c1": 2, "d1": 2, "b1": 1}, "once to look for what is not finite"
    assert sum("cannot be used and are left out" in record.message for record in caplog.records) == 1
    for name, tool in tools.items():
        pd.testing.assert_frame_equal(together.tables[name], alone(tool, inputs), check_exact=True)
    with pytest.raises(FeatureError, match="no feature file"):
        predict_tools(list(tools.values()), replace(inputs, on_bad="error"))


@pytest.fixture
def of_encoders(tools: dict[str, Checkpoint], cohort: Path, tmp_path: Path) -> tuple[list[Checkpoint], Path]:
    """Return members of one tool, of uni, conch and both encoders, a tool of both; and the features."""
    for slide, tiles in SIZES.items():
        write_trident(tmp_path / f"{slide}.h5", random_features(tiles, 4), encoder="conch")
    uni, conch = tools["msi-crc"].encoder, Encoder("conch", 4)
    members = [tools["msi-crc"]]
    for seed, encoder in enumerate((conch, joined([uni, conch]))):
        torch.manual_seed(seed)
        member = renamed(tools["msi-crc"], "msi-crc", ABMIL(encoder.dim, 1, embed_dim=6, attention_dim=4))
        manifest = member.manifest.model_copy(update={"files": {checkpoint.WEIGHTS: str(seed)}})
        members.append(replace(member, manifest=manifest, encoder=encoder))
    return [*members, renamed(members[2], "both")], Path(f"conch={tmp_path},uni={cohort}/features")


@pytest.mark.parametrize("on_bad", ["error", "skip"])
def test_members_of_several_encoders_read_their_own_features(
    of_encoders: tuple[list[Checkpoint], Path], reads: Counter[str], cohort: Path, on_bad: OnBad
) -> None:
    members, features = of_encoders
    inputs = PredictionInputs(features, cohort / "cohort.csv", on_bad=on_bad)
    together = predict_tools(members, inputs).tables
    looks = 1 if on_bad == "error" else 2
    assert reads == dict.fromkeys(SIZES, looks * 4), "for uni, for conch, and of each for the two models of both"
    by_member = [alone(member, inputs)["p_MSI-H"].to_numpy() for member in members]
    np.testing.assert_allclose(together["msi-crc"]["p_MSI-H"], np.mean(by_member[:3], axis=0))
    assert together["both"]["p_MSI-H"].tolist() == by_member[3].tolist()
    with pytest.raises(CheckpointError, match="encoder"):
        predict_tools(members, replace(inputs, features=cohort / "features"))


def test_slides_of_one_encoder_alone_are_named(
    of_encoders: tuple[list[Checkpoint], Path], cohort: Path, tmp_path: Path
) -> None:
    members, features = of_encoders
    (tmp_path / "b1.h5").unlink()
    with pytest.raises(FeatureError, match="1 slides have no features for every member of the ensemble: 'b1'"):
        predict_tools(members[:2], PredictionInputs(features))
    inputs = PredictionInputs(features, cohort / "cohort.csv", on_bad="skip")
    tables = predict_tools(members, inputs).tables
    skipped = tables["msi-crc"].set_index("patient")["skipped"]
    assert skipped.to_dict() == {"A": "", "B": "b1: no feature file; b1: no features of 'conch'", "C": "", "D": ""}
    assert tables["both"].set_index("patient").loc["B", "tiles"] == 0


def test_a_tool_that_does_not_fit_is_named_and_refused_or_left_out(tools: dict[str, Checkpoint], cohort: Path) -> None:
    conch = replace(tools["her2-breast"].encoder, name="conch", aliases=())
    chosen = [tools["msi-crc"], replace(tools["her2-breast"], encoder=conch), tools["several"]]
    inputs = PredictionInputs(cohort / "features")
    with pytest.raises(EncoderError, match=r"^her2-breast: features under .* expected encoder 'conch'"):
        predict_tools(chosen, inputs)
    together = predict_tools(chosen, inputs, only_fitting=True)
    assert list(together.tables) == ["msi-crc"]
    assert "expected encoder 'conch'" in together.left_out["her2-breast"]
    assert "expected --cohort" in together.left_out["several"]
    index = together.index().set_index("tool")
    assert index["file"].tolist() == ["msi-crc.csv", "", ""]
    assert index.loc["several", "left_out"] == together.left_out["several"]
    with pytest.raises(EncoderError, match=r"^none of 1 tools can predict these features; the first, her2-breast: "):
        predict_tools(chosen[1:2], inputs, only_fitting=True)


def test_a_tool_without_room_for_a_bag_is_refused_or_left_out(
    tools: dict[str, Checkpoint], cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hungry(ABMIL):
        def forward(self, bags: Bags) -> Output:
            if len(bags.features) > 2000:
                raise MemoryError
            return super().forward(bags)

    hungry = renamed(tools["msi-crc"], "hungry", Hungry(8, 1, embed_dim=6, attention_dim=4))
    chosen, inputs = [hungry, tools["msi-crc"]], PredictionInputs(cohort / "features")
    with pytest.raises(ResourceError, match=r"^hungry: slides 'a2' \(2500 tiles, 8 wide\): out of memory"):
        predict_tools(chosen, inputs)
    together = predict_tools(chosen, inputs, only_fitting=True)
    assert "out of memory" in together.left_out["hungry"]
    pd.testing.assert_frame_equal(together.tables["msi-crc"], alone(tools["msi-crc"], inputs), check_exact=True)


def test_checkpoints_of_one_tool_predict_together(tools: dict[str, Checkpoint], folders: dict[str, Path]) -> None:
    with pytest.raises(CheckpointError, match="the weights of"):
        predict_tools([tools["msi-crc"], tools["her2-breast"], tools["msi-crc"]], PredictionInputs(Path()))


def test_members_and_tools_share_the_pass(tools: dict[str, Checkpoint], cohort: Path, reads: Counter[str]) -> None:
    torch.manual_seed(9)
    second = renamed(tools["msi-crc"], "msi-crc", ABMIL(8, 1, embed_dim=6, attention_dim=4))
    files = second.manifest.model_copy(update={"files": {"weights.safetensors": "0"}})
    members = [tools["msi-crc"], replace(second, manifest=files)]
    together = package.predict_tools(
        [predictor.Predictor(tool) for tool in (members[0], tools["her2-breast"], members[1])], cohort / "features"
    )
    assert reads == dict.fromkeys(SIZES, 1)
    expected = package.predict([predictor.Predictor(tool) for tool in members], cohort / "features")
    pd.testing.assert_frame_equal(together.tables["msi-crc"], expected, check_exact=True)
    assert "spread_p_MSI-H" in expected


@pytest.fixture
def _only_these(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the two tools and a folder that is none for the released ones."""

    def local() -> Iterator[tuple[str, str, Path]]:
        yield "broken", "1.0.0", folders["msi-crc"] / "nowhere"
        yield from ((name, "0.1.0", folder) for name, folder in folders.items())

    monkeypatch.setattr(predictor, "local", local)


@pytest.mark.usefixtures("_only_these")
def test_the_command_writes_a_table_of_each_tool_and_says_who_is_left_out(
    folders: dict[str, Path], cohort: Path, mil: Mil, tmp_path: Path
) -> None:
    words = ["--features", cohort / "features", "--out"]
    done = mil("predict", "all", *words, tmp_path / "all")
    assert (done.code, done.out) == (0, f"{tmp_path / 'all'}\n"), done.err
    assert "broken is left out: " in done.err
    assert "several is left out: " in done.err
    assert "her2-breast: 2 of 5 results are withheld" in done.err
    names = ["her2-breast.csv", "msi-crc.csv", "tools_predicted.csv"]
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == names
    for name in ("msi-crc", "her2-breast"):
        assert mil("predict", folders[name], *words, tmp_path / f"{name}.csv").code == 0
        assert (tmp_path / f"{name}.csv").read_bytes() == (tmp_path / "all" / f"{name}.csv").read_bytes()
    index = read_table(tmp_path / "all" / "tools_predicted.csv").set_index("tool")
    assert index["rows"].tolist() == ["5", "5", "", ""]
    assert index["withheld"].tolist() == ["0", "2", "", ""]
    assert "expected --cohort" in index["left_out"]["several"]

    both = ["predict", folders["msi-crc"], folders["several"], *words, tmp_path / "all"]
    done = mil(*both)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "several: " in done.err
    assert (tmp_path / "all" / "her2-breast.csv").exists(), "nothing is half-written"
    assert mil(*both, "--cohort", cohort / "cohort.csv").code == 0
    names = ["msi-crc.csv", "several.csv", "tools_predicted.csv"]
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == names, (
        "no table of an earlier prediction stays"
    )


def test_what_cannot_be_asked_of_several_tools(
    folders: dict[str, Path], cohort: Path, mil: Mil, tmp_path: Path
) -> None:
    both = ["predict", folders["msi-crc"], folders["her2-breast"], "--features", cohort / "features", "--out"]
    assert "expected a folder" in mil(*both, tmp_path / "scores.csv").err
    assert "expected one checkpoint" in mil(*both, tmp_path / "out", "--tiles", tmp_path / "tiles").err
    assert "all stands for every tool" in mil("predict", "all", *both[1:], tmp_path / "out").err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    assert mil(*both, tmp_path / "full").code == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("_only_these")
def test_tools_that_are_not_signed_as_the_policy_demands_are_left_out_or_refused(
    folders: dict[str, Path], cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "policy.toml").write_text('require_signature = true\nkeys = ["ours.pem"]\n')
    monkeypatch.setenv("MIL_POLICY", str(tmp_path / "policy.toml"))
    with pytest.raises((CheckpointError, ConfigError)):
        package.predict_tools("all", cohort / "features")
    with pytest.raises((CheckpointError, ConfigError)):
        package.predict_tools(list(folders.values()), cohort / "features")
    monkeypatch.setattr(predictor, "check_origin", _only_msi)
    together = package.predict_tools("all", cohort / "features")
    assert list(together.tables) == ["msi-crc"]
    assert together.left_out["her2-breast"] == "not signed"


def _only_msi(folder: Path, key: Path | None) -> str:
    if folder.name != "msi":
        raise CheckpointError("not signed")
    return "signed"
