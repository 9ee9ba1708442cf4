import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from mil.errors import ConfigError
from mil.features.store import FeatureStore
from mil.simulation import simulated_cohort
from mil.simulation.simulated_cohort import Simulation, cached, draw_patients, write
from mil.simulation.simulated_encoder import encoder
from mil.simulation.targets.class_targets import Binary, Multiclass
from mil.simulation.targets.event_targets import Survival

TARGET = Binary("msi", ("MSS", "MSI-H"), 0.3, 0.9)
SMALL = Simulation(TARGET, patients=12, tiles=100, width=16, slides=1.8)

IN_ANOTHER_PROCESS = """
import sys
from pathlib import Path
from mil.simulation.simulated_cohort import Simulation, write
from mil.simulation.simulated_encoder import encoder
from mil.simulation.targets.class_targets import Binary
write(Simulation(Binary("msi", ("MSS", "MSI-H"), 0.3, 0.9), patients=12, tiles=100, width=16, slides=1.8),
      Path(sys.argv[1]))
"""


def fingerprint(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    texts = {"patient": str, "slide": str}
    return pd.read_csv(folder / "cohort.csv", dtype=texts), pd.read_csv(folder / "truth.csv", dtype=texts)


def phenotypes(folder: Path) -> dict[str, pd.DataFrame]:
    return {path.stem: pd.read_csv(path) for path in sorted((folder / "phenotypes").iterdir())}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated") / "cohort"
    write(SMALL, folder)
    return folder


def test_another_process_makes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, str(tmp_path / "again")]
    subprocess.run(command, check=True, env=environment)
    assert fingerprint(tmp_path / "again") == fingerprint(folder)


def test_another_seed_makes_other_bytes(folder: Path, tmp_path: Path) -> None:
    write(replace(SMALL, seed=1), tmp_path / "other")
    assert not set(fingerprint(tmp_path / "other").values()) & set(fingerprint(folder).values())


def test_every_slide_of_the_table_has_features_and_phenotypes(folder: Path) -> None:
    cohort, truth = tables(folder)
    assert list(cohort) == ["patient", "slide", "site", "scanner", "age", "sex", "stage", "msi", "simulated"]
    assert set(cohort["simulated"]) == {"yes"}
    assert list(truth) == ["patient", "severity", "share", "oracle", "clean_msi", "msi"]
    assert set(cohort["slide"]) == {path.stem for path in (folder / "features").glob("*.h5")} == set(phenotypes(folder))
    assert cohort["slide"].is_unique
    assert (cohort["slide"].str.rsplit("-", n=1).str[0] == cohort["patient"]).all()
    assert (cohort.groupby("patient")[["site", "msi", "age"]].nunique() == 1).all(axis=None)
    assert set(cohort["patient"]) == set(truth["patient"])


def test_truth_is_what_the_tiles_hold(folder: Path) -> None:
    cohort, truth = tables(folder)
    tiles = phenotypes(folder)
    for _, row in truth.iterrows():
        mine = pd.concat([tiles[slide] for slide in cohort.loc[cohort["patient"] == row["patient"], "slide"]])
        carries, tumour = mine["phenotype"] == "biomarker", mine["phenotype"].isin(["tumour", "biomarker"])
        assert row["oracle"] == pytest.approx(carries.sum() / tumour.sum())
        assert row["share"] == pytest.approx(carries.mean())


def test_features_follow_the_phenotype(folder: Path) -> None:
    """Tiles of one phenotype lie closer to their own slide's mean than to other phenotypes'."""
    right = total = 0
    for slide, tiles in phenotypes(folder).items():
        with h5py.File(folder / "features" / f"{slide}.h5") as file:
            features = np.asarray(file["features"], dtype=np.float32)
        names, code = np.unique(tiles["phenotype"], return_inverse=True)
        means = np.stack([features[code == k].mean(axis=0) for k in range(len(names))])
        nearest = ((features[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
        right, total = right + int((nearest == code).sum()), total + len(code)
    assert right / total > 0.7


def test_trident_files_have_their_producer_s_keys(folder: Path) -> None:
    slide, tiles = next(iter(phenotypes(folder).items()))
    with h5py.File(folder / "features" / f"{slide}.h5") as file:
        assert set(file) == {"features", "coords"}
        features, coords = file["features"], file["coords"]
        assert (features.dtype, features.shape) == (np.float16, (len(tiles), 16))
        assert np.isfinite(features[:]).all()
        assert dict(features.attrs) == {"name": slide, "savetodir": "features", "encoder": "simulated"}
        assert coords.dtype == np.int64
        assert np.array_equal(coords[:], tiles[["x", "y"]])
        assert (coords[:] % coords.attrs["patch_size_level0"] == 0).all()
        assert len(np.unique(coords[:], axis=0)) == len(tiles)
        assert (coords[:] + 512 <= [coords.attrs["level0_width"], coords.attrs["level0_height"]]).all()
        expected = {"patch_size", "level0_magnification", "target_magnification", "overlap", "name", "savetodir"}
        assert expected <= set(coords.attrs)


def test_clam_files_have_their_producer_s_keys_and_no_attributes(folder: Path, tmp_path: Path) -> None:
    write(replace(SMALL, layout="clam"), tmp_path)
    files = sorted((tmp_path / "features" / "h5_files").iterdir())
    assert [path.name for path in files] == sorted(path.name for path in (folder / "features").iterdir())
    with h5py.File(files[0]) as file, h5py.File(folder / "features" / files[0].name) as trident:
        features, coords = file["features"], file["coords"]
        assert (features.dtype, coords.dtype) == (np.float32, np.int32)
        assert (features.chunks, features.maxshape) == ((32, 16), (None, 16))
        assert not [*file.attrs, *features.attrs, *coords.attrs]
        assert np.array_equal(coords[:], trident["coords"][:])
        assert np.array_equal(features[:].astype(np.float16), trident["features"][:])


def neighbours_alike(tiles: pd.DataFrame) -> tuple[float, float]:
    """Share of right-hand neighbours of one phenotype, and of any two tiles."""
    place = {(x, y): name for x, y, name in tiles.itertuples(index=False)}
    pairs = [(name, place[x + 512, y]) for (x, y), name in place.items() if (x + 512, y) in place]
    chance = float((tiles["phenotype"].value_counts(normalize=True) ** 2).sum())
    return float(np.mean([a == b for a, b in pairs])), chance


def test_regions_are_contiguous(tmp_path: Path) -> None:
    write(Simulation(TARGET, patients=6, tiles=600, width=8), tmp_path)
    alike, chance = np.mean([neighbours_alike(tiles) for tiles in phenotypes(tmp_path).values()], axis=0)
    assert alike > 0.7 > 0.45 > chance


def test_a_diffuse_biomarker_mixes_with_tumour_and_a_regional_one_does_not(tmp_path: Path) -> None:
    def mixed(signal: str) -> float:
        write(Simulation(TARGET, patients=6, tiles=600, width=8, signal=signal), tmp_path / signal)
        shares = []
        for tiles in phenotypes(tmp_path / signal).values():
            tumour = tiles[tiles["phenotype"].isin(["tumour", "biomarker"])]
            if len(tumour) > 50:
                alike, chance = neighbours_alike(tumour)
                shares.append(alike - chance)
        return float(np.mean(shares))

    assert mixed("regional") > 0.12
    assert abs(mixed("diffuse")) < 0.06


def test_a_sparse_biomarker_is_in_0_2_to_5_percent_of_tiles(tmp_path: Path) -> None:
    write(Simulation(TARGET, patients=20, tiles=1000, width=8, signal="sparse", slides=2.0), tmp_path)
    _, truth = tables(tmp_path)
    assert truth["share"].between(0.002, 0.05).all()
    assert truth["share"].max() > 5 * truth["share"].min()
    assert truth["share"].to_numpy() == pytest.approx(truth["oracle"].to_numpy())


def test_some_slides_are_without_tumour_but_no_patient_is(tmp_path: Path) -> None:
    write(replace(SMALL, patients=20, slides=2.5), tmp_path)
    cohort, _ = tables(tmp_path)
    tumour = pd.Series(
        {name: tiles["phenotype"].isin(["tumour", "biomarker"]).any() for name, tiles in phenotypes(tmp_path).items()}
    )
    with_tumour = cohort.set_index("slide").assign(tumour=tumour)
    assert 0.05 < 1 - with_tumour["tumour"].mean() < 0.4
    assert with_tumour.groupby("patient")["tumour"].any().all()


def test_the_realised_oracle_is_nearly_that_of_endless_tiles(tmp_path: Path) -> None:
    simulation = Simulation(TARGET, patients=60, tiles=200, width=8)
    write(simulation, tmp_path)
    _, truth = tables(tmp_path)
    assert truth["oracle"].corr(draw_patients(simulation).oracle["oracle"]) > 0.999
    assert roc_auc_score(truth["msi"] == "MSI-H", truth["oracle"]) == pytest.approx(0.9, abs=0.03)


def test_every_class_but_the_reference_has_a_phenotype_and_scores_sum_to_one(tmp_path: Path) -> None:
    target = Multiclass("type", ("A", "B", "C"), (0.4, 0.3, 0.3), 0.95)
    write(Simulation(target, patients=12, tiles=200, width=8), tmp_path)
    _, truth = tables(tmp_path)
    names = set(pd.concat(phenotypes(tmp_path).values())["phenotype"])
    assert {name for name in names if name.startswith("biomarker")} == {"biomarker:B", "biomarker:C"}
    assert truth[["oracle_A", "oracle_B", "oracle_C"]].sum(axis=1).to_numpy() == pytest.approx(1)


def test_the_encoder_is_the_same_for_every_number_of_biomarkers() -> None:
    first, second = encoder(32, 1), encoder(32, 3)
    assert np.array_equal(first.out, second.out)
    assert np.array_equal(first.centres, second.centres[:9])


def test_contrast_moves_tissues_apart_and_leaves_the_rest(tmp_path: Path) -> None:
    usual, clear = encoder(32, 2), encoder(32, 2, contrast=2.0)
    assert np.array_equal(clear.centres, 2 * usual.centres)
    assert all(np.array_equal(getattr(clear, part), getattr(usual, part)) for part in ("within", "bends", "out"))
    write(SMALL, tmp_path / "usual")
    write(replace(SMALL, contrast=2.0), tmp_path / "clear")
    for name in ("cohort.csv", "truth.csv"):
        assert (tmp_path / "usual" / name).read_bytes() == (tmp_path / "clear" / name).read_bytes()
    assert told_right(tmp_path / "clear") > told_right(tmp_path / "usual")


def told_right(folder: Path) -> float:
    """The share of tiles that lie nearest to the mean of their own phenotype."""
    names = phenotypes(folder)
    store = FeatureStore(folder / "features")
    tiles = np.concatenate([store.read(slide).features.float().numpy() for slide in names])
    kind = np.concatenate([slide_truth["phenotype"].to_numpy() for slide_truth in names.values()])
    kinds = np.unique(kind)
    middle = np.stack([tiles[kind == phenotype].mean(0) for phenotype in kinds])
    nearest = kinds[((tiles[:, None] - middle) ** 2).sum(2).argmin(1)]
    return float((nearest == kind).mean())


def test_a_cohort_is_cached_once_and_again_for_other_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cached(SMALL, tmp_path)
    stamp = (first / "cohort.csv").stat().st_mtime_ns
    assert cached(SMALL, tmp_path) == first
    assert (first / "cohort.csv").stat().st_mtime_ns == stamp
    others = {
        replace(SMALL, seed=1),
        replace(SMALL, contrast=2.0),
        replace(SMALL, target=replace(TARGET, attainable=0.8)),
    }
    names = {cached(simulation, tmp_path) for simulation in others}
    monkeypatch.setattr(simulated_cohort, "GENERATOR", -1)
    names.add(cached(SMALL, tmp_path))
    assert len(names | {first}) == 5
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in names | {first}}


def test_two_that_make_a_cohort_at_once_leave_one_whole_cohort(tmp_path: Path, folder: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        folders = set(pool.map(lambda _: cached(SMALL, tmp_path), range(3)))
    assert [*tmp_path.iterdir()] == [*folders]
    assert fingerprint(folders.pop()) == fingerprint(folder)


def test_a_cohort_that_fails_half_way_leaves_nothing_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(simulated_cohort, "_write_truth", full)
    with pytest.raises(OSError, match="No space"):
        cached(SMALL, tmp_path)
    assert not [*tmp_path.iterdir()]


def test_a_simulation_that_met_a_full_disk_or_was_killed_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(simulated_cohort, "_write_truth", full)
        with pytest.raises(OSError, match="No space") as raised:
            write(SMALL, tmp_path / "new")
    assert raised.value.filename == str(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "new" / simulated_cohort.UNFINISHED).touch()  # as after kill -9
    (tmp_path / "new" / "features").mkdir()
    write(SMALL, tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        *("cohort.csv", "features", "phenotypes", "truth.csv")
    ]


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="something is there already"):
        write(SMALL, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("patients", 3),
        ("patients", 20.5),
        ("tiles", 1),
        ("width", 4),
        ("slides", 0.5),
        ("slides", float("nan")),
        ("sites", 0),
        ("seed", -1),
        ("signal", "loud"),
        ("layout", "kather"),
        ("contrast", 0.0),
        ("contrast", float("nan")),
        ("label_noise", 0.9),
        ("label_noise", float("nan")),
    ],
)
def test_a_parameter_out_of_range_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{name}: .* expected$"):
        replace(SMALL, **{name: value})


def test_a_target_column_that_the_cohort_uses_itself_is_refused() -> None:
    with pytest.raises(ConfigError, match="stage"):
        Simulation(Survival("stage", "event", 0.3, 0.7))
