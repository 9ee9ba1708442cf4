"""The Python API: what `import mil` offers, see `mil/__init__.py`. The command line calls the same functions.

>>> import mil
>>> endpoint = mil.endpoints.Binary("MSI", classes=["MSS", "MSI-H"])
>>> study = mil.Study.from_tables("cohort.csv", "features/", endpoint=endpoint)
>>> run = mil.fit(study, model="abmil_gated", split=mil.splits.KFold(5), out="runs/msi", max_epochs=20)
>>> run.report.metrics["auroc"]
>>> run.release(version="1.0.0", out="model_cards/")
>>> mil.load("msi-crc").predict("features/")
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import pandas as pd

from mil.checkpoint import Checkpoint
from mil.cohort.columns import Columns
from mil.config import described, groups
from mil.endpoints.endpoint import Endpoint
from mil.errors import ConfigError
from mil.features.feature_folders import features_text
from mil.features.formats import Reading
from mil.inference.bad_slides import OnBad
from mil.inference.cohort_shards import Shard
from mil.inference.ensemble import ensemble
from mil.inference.many_tools import ToolPredictions as ToolPredictions
from mil.inference.many_tools import predict_tools as predict_checkpoints
from mil.inference.predict import PredictionInputs, reading_of
from mil.inference.predict import predict as predict_one
from mil.inference.provenance import with_origin
from mil.report.prediction_columns import PredictionColumns
from mil.report.prediction_files import read
from mil.report.report_files import read_report
from mil.report.schema import Report
from mil.runs.describe import REPORT
from mil.runs.evaluate import RESAMPLES, evaluate_checkpoint, evaluate_predictions, evaluate_run, evaluate_table
from mil.runs.fit_run import fit_run
from mil.runs.run_inputs import CONFIG
from mil.runs.states import checkpoints_in
from mil.splits.folds import Strategy
from mil.study import study as studies
from mil.study.build import create_model as create_model
from mil.study.build import describe
from mil.study.component import TARGET
from mil.study.compose import configure
from mil.study.pipeline import read_study
from mil.study.run_config import RunConfig
from mil.zoo.predictor import Predictor as Predictor
from mil.zoo.predictor import load as load
from mil.zoo.predictor import load_all
from mil.zoo.release import release as release_run

FilePath = str | Path
Features = FilePath | Mapping[str, FilePath]
Tool = FilePath | Predictor


@dataclass(frozen=True, kw_only=True)
class Study(studies.Study):
    """Patients with their slides, features and targets, read and checked.

    Attributes:
        choices: Files of `conf/` that a configuration of the study begins with, by group.
        options: Options that describe where it was read from, by dotted name.
    """

    choices: Mapping[str, str]
    options: Mapping[str, object]

    @classmethod
    def from_tables(
        cls,
        cohort: FilePath,
        features: Features,
        endpoint: Endpoint,
        *,
        slides: FilePath | None = None,
        columns: Mapping[str, str] | None = None,
        labels: Mapping[str, Mapping[str, str | None]] | None = None,
        covariates: Mapping[str, object] | None = None,
        carry: Sequence[str] = (),
        encoder: str = "auto",
        layout: str | None = None,
        batch_axis: bool = False,
        slide_mpp: float | None = None,
        feature_table: str | None = None,
        bag: Literal["patient", "slide"] = "patient",
        on_missing: Literal["error", "skip"] = "error",
        on_bad_bag: Literal["error", "skip"] = "error",
        name: str | None = None,
    ) -> Self:
        """Read a cohort's table and the headers of its feature files.

        Args:
            cohort: Clinical table (CSV or Excel), one row per slide, or one per patient with `slides`.
            features: Folder of feature files, `(tiles, width)` each, or one file that `mil convert` made of it; or
                those of several encoders of the same tiles, `{"uni2": folder, "conch_v15": folder}`.
            endpoint: What is predicted, such as `mil.endpoints.Binary("MSI", classes=["MSS", "MSI-H"])`.
            slides: Table of slides, if the cohort has one row per patient.
            columns: Names of the columns `patient`, `slide`, `site` and `mpp` (micrometres per level-0 pixel of each
                slide); common names are found without it.
            labels: What the values of a column mean, such as `{"MSI": {"high": "MSI-H", "unknown": None}}`.
            covariates: Clinical columns that the model reads: `{"numeric": ["age"], "categorical": {"sex": ["F", "M"]},
                "fusion": "late"}`.
            carry: Further clinical columns, for subgroups of the report.
            encoder: A name of `mil list encoders`; `auto` takes what the feature files say.
            layout: Layout of the feature files, where their content does not tell.
            batch_axis: Accept features of shape `(1, tiles, width)`.
            slide_mpp: Micrometres per level-0 pixel of all slides, for tile positions in micrometres.
            feature_table: Which of several tables of features in one file is read, by its name or its encoder's.
            bag: Whether all slides of a patient are one bag, or each slide is.
            on_missing: Whether slides without feature file are an error or skipped.
            on_bad_bag: Whether empty or non-finite feature files are an error or skipped.
            name: Public name of the cohort, such as TCGA; an encoder that was trained on it is reported.

        Raises:
            MilError: The first error in options, cohort or features.
        """
        data = {
            "cohort": str(cohort),
            "slides": None if slides is None else str(slides),
            "features": features_text(features),
            "layout": layout,
            "batch_axis": batch_axis,
            "slide_mpp": slide_mpp,
            "table": feature_table,
            "name": name,
            "columns": dict(columns or {}),
            "labels": {column: dict(words) for column, words in (labels or {}).items()},
            "covariates": list(carry),
            "bag": bag,
            "on_missing": on_missing,
            "on_bad_bag": on_bad_bag,
        }
        options = {f"data.{option}": value for option, value in data.items()} | _tool_options(endpoint, covariates)
        choices = {"tool": _template(endpoint), "encoder": encoder}
        study = read_study(configure(choices, options))
        return cls(**vars(study), choices=choices, options=options)

    def config(self, **options: object) -> RunConfig:
        """Return the configuration of a run on this study; arguments and errors as the options of `fit`."""
        chosen = {key: value for key, value in options.items() if isinstance(value, str) and key in groups()}
        values: dict[str, object] = {}
        for key, value in options.items():
            if isinstance(value, Mapping):
                values |= {f"{key}.{name}": each for name, each in value.items()}
            elif key == "split" and key not in chosen:
                values[key] = describe(value)
            elif key not in chosen:
                values[key] = value
        return configure({**self.choices, **chosen}, {**self.options, **values})


def _template(endpoint: Endpoint) -> str:
    """Return the tool of `conf/tool/` whose defaults suit an endpoint: decision, batch size."""
    target = describe(endpoint)[TARGET]
    tools = {name: node["tool"] for name, node in described("tool").items()}
    suitable = [name for name, tool in tools.items() if tool["endpoint"][TARGET] == target]
    return min(suitable, key=lambda name: tools[name]["category"] != "custom", default="regression")


def _tool_options(endpoint: Endpoint, covariates: Mapping[str, object] | None) -> dict[str, object]:
    """Return the options of a tool for one endpoint; its name is the endpoint's first column."""
    column = endpoint.columns[0]
    name = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in column.lower()).strip("-")
    options: dict[str, object] = {
        "tool.name": name or "tool",
        "tool.title": f"Prediction of {', '.join(endpoint.columns)}",
        "tool.question": f"What is {', '.join(endpoint.columns)}?",
        "tool.endpoint": describe(endpoint),
    }
    return options if covariates is None else options | {"tool.covariates": dict(covariates)}


@dataclass(frozen=True)
class Run:
    """The folder of a finished run: `mil.Run(Path("runs/msi"))`."""

    folder: Path

    @property
    def report(self) -> Report:
        """Its report: `report.metrics["auroc"]` is an `Estimate`, `report.calibration` a section, or None."""
        return read_report(self.folder / REPORT)

    @property
    def predictions(self) -> pd.DataFrame:
        """The predictions of every fold: patient, fold, role, targets and scores, one row per patient and fold."""
        return read(self.folder / "predictions.csv")

    @property
    def checkpoints(self) -> Mapping[int, Path]:
        """The checkpoint folder of each fold."""
        return checkpoints_in(self.folder)

    def load(self, fold: int = 0) -> Predictor:
        """Return the model of one fold, ready to predict.

        Raises:
            ConfigError: The run has no such fold.
        """
        if fold not in self.checkpoints:
            raise ConfigError(f"{self.folder}: has no fold {fold}, expected one of {list(self.checkpoints)}")
        return load(self.checkpoints[fold])

    def release(
        self,
        version: str,
        out: FilePath = "model_cards",
        fold: int = 0,
        note: str | None = None,
        date: str | None = None,
    ) -> Path:
        """Release the checkpoint of one fold with its card and return the folder.

        Args:
            version: `X.Y.Z`.
            out: Folder of released tools.
            fold: Fold whose checkpoint is released; not chosen by its score.
            note: What changed, for the changelog.
            date: `YYYY-MM-DD`, for the changelog.

        Raises:
            MilError: The run cannot be released.
        """
        return release_run(self.folder, version, Path(out), fold, note, date)


def fit(
    study: Study,
    *,
    model: str = "abmil_gated",
    split: str | Strategy = "kfold",
    out: FilePath,
    max_epochs: int = 20,
    **options: object,
) -> Run:
    """Train one model per fold, evaluate it on the patients held out, and write report, figures and cards.

    A folder that holds the same run is continued where it was stopped. Training keeps every kernel that oneDNN compiles
    for a new bag size; set the environment variables `ONEDNN_PRIMITIVE_CACHE_CAPACITY=128` and `LRU_CACHE_CAPACITY=16`
    before torch is imported to limit the memory they take, as the command line does.

    Args:
        study: The patients.
        model: A name of `mil list models`.
        split: A name of `conf/split/`, or a strategy such as `mil.splits.KFold(5)`.
        out: The run folder.
        max_epochs: Most epochs of a fold; training stops earlier when the loss of the selection patients stops falling.
        options: Any other option of `conf/`: a top-level one (`seed=1`, `resamples=500`, `baseline=False`), a choice of
            a group (`optimizer="adamw"`), options of a group (`data={"batch_bags": 16}`, `tool={"name": "msi"}`), or a
            dotted name (`**{"model.dropout": 0.1}`).

    Raises:
        ConfigError: An option that does not exist or cannot have this value, or `out` holds a different run.
        MilError: An error in features or split.
    """
    config = study.config(model=model, split=split, **{"trainer.max_epochs": max_epochs}, **options)
    fit_run(config, Path(out), replace(study, balance=config.data.balance))
    return Run(Path(out))


def predict(
    tool: Tool | Sequence[Tool],
    features: Features,
    cohort: FilePath | None = None,
    *,
    slides: FilePath | None = None,
    tiles: FilePath | None = None,
    layout: str | None = None,
    batch_axis: bool = False,
    slide_mpp: float | None = None,
    feature_table: str | None = None,
    columns: Mapping[str, str] | None = None,
    on_bad: OnBad = "error",
    max_tiles: int | None = None,
    allow: Collection[str] = (),
    key: FilePath | None = None,
    shard: Shard | None = None,
) -> pd.DataFrame:
    """Predict slides or patients without labels.

    Args:
        tool: A released tool by name (`msi-crc`, `msi-crc@1.0.0`), a checkpoint folder, or what `load` returned;
            several predict together, see `mil.inference.ensemble`.
        features: Folder of feature files, or one packed file; of several encoders by their names.
        cohort: Table with columns patient and slide: slides of a patient are scored together.
        slides: Table of slides, if the cohort has one row per patient.
        tiles: Folder for one table per slide with the attention of each tile; of one tool only.
        layout: Layout of the feature files; by default as in training.
        batch_axis: Accept features of shape `(1, tiles, width)`.
        slide_mpp: Micrometres per level-0 pixel, for tile positions in micrometres; a column `mpp` of the table of
            slides has the resolution of each.
        feature_table: Which of several tables of features in one file is read; by default as in training.
        columns: What the tables call `patient`, `slide` and `mpp`; by default common names are looked for.
        on_bad: Whether slides that are missing, unreadable, empty or not finite are an error, or are skipped: the
            column `skipped` then names them, and patients without another slide have no score.
        max_tiles: Largest number of tiles of a bag, taken at equal steps; the column `tiles` counts them. None takes
            all, and refuses bags for which there is not enough memory or time; 0 tries these too.
        allow: Classes outside this package that the checkpoint may import.
        key: Public key (PEM) of the required signer of every tool; of a loaded one it was checked by `load`.
        shard: The part of the patients to predict, `mil.inference.cohort_shards.Shard(0, 64)`; None predicts all.

    Returns:
        One row per slide, or per patient of the cohort: tool, version and whether it is simulated, scores, calls with
        their thresholds, and the reason where a result is withheld.

    Raises:
        ConfigError: No such tool, or tiles of several tools.
        MilError: Features or cohort cannot be read or do not fit the tool.
    """
    tools = [tool] if isinstance(tool, str | Path | Predictor) else list(tool)
    checkpoints = [_checkpoint(each, allow, key) for each in tools]
    reading = Reading(layout, batch_axis, slide_mpp, feature_table)
    table, slide_table = _path(cohort), _path(slides)
    ids = None if columns is None else Columns(**columns)
    if len(checkpoints) == 1:
        alone = predict_one(
            checkpoints[0],
            Path(features_text(features)),
            table,
            slide_table,
            _path(tiles),
            reading=reading_of(checkpoints[0], reading),
            on_bad=on_bad,
            max_tiles=max_tiles,
            ids=ids,
            shard=shard,
        )
        return with_origin(alone, checkpoints)
    if tiles is not None:
        raise ConfigError("tiles: the attention is of one tool, expected one tool")
    together = ensemble(
        checkpoints,
        Path(features_text(features)),
        table,
        slide_table,
        reading=reading,
        on_bad=on_bad,
        max_tiles=max_tiles,
        ids=ids,
        shard=shard,
    )
    return with_origin(together, checkpoints)


def predict_tools(
    tools: Literal["all"] | Sequence[Tool],
    features: Features,
    cohort: FilePath | None = None,
    *,
    slides: FilePath | None = None,
    layout: str | None = None,
    batch_axis: bool = False,
    slide_mpp: float | None = None,
    feature_table: str | None = None,
    columns: Mapping[str, str] | None = None,
    on_bad: OnBad = "error",
    max_tiles: int | None = None,
    allow: Collection[str] = (),
    key: FilePath | None = None,
) -> ToolPredictions:
    """Predict with several tools in one pass: every slide is read once, and each table is that of the tool alone.

    Args:
        tools: Released tools by name, checkpoint folders, or what `load` returned; several checkpoints of one tool
            predict together. `"all"` takes every tool that is here, and leaves out those that cannot predict these
            features, or are not signed as required: `left_out` says why. A named tool that cannot is an error.
        features: Arguments that are not described here are those of `predict`.
        cohort: Table with columns patient and slide.
        slides: Table of slides.
        layout: Layout of the feature files; by default as in each tool's training.
        batch_axis: Accept features of shape `(1, tiles, width)`.
        slide_mpp: Micrometres per level-0 pixel.
        feature_table: Which of several tables of features in one file is read.
        columns: What the tables call `patient`, `slide` and `mpp`.
        on_bad: Whether slides that cannot be read are an error, or are skipped.
        max_tiles: Largest number of tiles of a bag.
        allow: Classes outside this package that the checkpoints may import.
        key: Public key (PEM) of the required signer of every tool.

    Returns:
        The table of each tool, as `predict` returns it, and why tools are left out.

    Raises:
        MilError: Features or cohort cannot be read, a named tool does not fit them, or none does.
    """
    if tools == "all":
        loaded, left_out = load_all(allow, key)
        checkpoints = [tool.checkpoint for tool in loaded.values()]
    else:
        checkpoints, left_out = [_checkpoint(each, allow, key) for each in tools], {}
    ids = None if columns is None else Columns(**columns)
    inputs = PredictionInputs(Path(features_text(features)), _path(cohort), _path(slides), on_bad, max_tiles, ids)
    reading = Reading(layout, batch_axis, slide_mpp, feature_table)
    predictions = predict_checkpoints(checkpoints, inputs, reading, only_fitting=tools == "all")
    return replace(predictions, left_out={**left_out, **predictions.left_out})


def evaluate(
    subject: Run | Tool | pd.DataFrame,
    *,
    endpoint: Endpoint | None = None,
    columns: PredictionColumns | None = None,
    cohort: FilePath | None = None,
    features: FilePath | None = None,
    slides: FilePath | None = None,
    ids: Mapping[str, str] | None = None,
    patients: pd.DataFrame | None = None,
    out: FilePath | None = None,
    resamples: int = RESAMPLES,
) -> Report:
    """Evaluate a run again, a tool on a labelled cohort, or a table of predictions.

    Args:
        subject: A run; with `cohort` a tool or checkpoint folder; with `endpoint` a table as `predictions.csv` has it
            (`patient`, targets, scores; `fold` and `role` may be absent); with `columns` a file of any software.
        endpoint: What the scores of a table predict.
        columns: What the columns of a file are.
        cohort: Clinical table that the tool was not trained on.
        features: Feature files of the cohort.
        slides: Table of slides, if the cohort has one row per patient.
        ids: What the cohort's tables call `patient`, `slide` and `mpp`; by default common names are looked for.
        patients: Clinical table indexed by patient, for subgroups of a table's report.
        out: Folder for report and figures; required with `cohort`, a run has its own.
        resamples: Bootstrap resamples; a run has its own.

    Raises:
        ConfigError: Arguments that do not go together.
        MilError: What is evaluated cannot be read or scored.
    """
    if isinstance(subject, Run) or (isinstance(subject, str | Path) and (Path(subject) / CONFIG).is_file()):
        folder = subject.folder if isinstance(subject, Run) else Path(subject)
        return evaluate_run(folder)
    if cohort is not None and not isinstance(subject, pd.DataFrame):
        if features is None or out is None:
            raise ConfigError("evaluate: a cohort needs features and out")
        checkpoint = _checkpoint(subject)
        tables = (Path(cohort), Path(features), _path(slides))
        named = None if ids is None else Columns(**ids)
        return evaluate_checkpoint(checkpoint, *tables, Path(out), resamples, ids=named).report
    if columns is not None and isinstance(subject, str | Path):
        return evaluate_table(Path(subject), columns, _path(out), resamples).report
    if endpoint is not None and not isinstance(subject, Predictor):
        table = subject if isinstance(subject, pd.DataFrame) else read(Path(subject), endpoint.columns)
        return evaluate_predictions(table, endpoint, patients, _path(out), resamples)
    raise ConfigError(
        f"evaluate: found {type(subject).__name__} alone, expected a run, a tool with a cohort, or a table with an "
        "endpoint or columns"
    )


def _checkpoint(tool: Tool, allow: Collection[str] = (), key: FilePath | None = None) -> Checkpoint:
    return (tool if isinstance(tool, Predictor) else load(tool, allow, key)).checkpoint


def _path(given: FilePath | None) -> Path | None:
    return None if given is None else Path(given)
