"""Search options without ever seeing the report patients, and report the chosen ones honestly (`mil tune`).

Each outer fold of the split has a search of its own, which is given a study without the fold's report patients: neither
their slides nor their labels are in it. Trials are judged by their select patients, or by inner folds. The chosen
options are then trained on the fold, and predict its report patients once. With several outer folds the report is of
the procedure, search included (S. Varma, R. Simon, BMC Bioinformatics 7:91, 2006), and one more search over all
patients gives the options to train with.

Optuna is called directly: Hydra's sweeper for it (hydra-optuna-sweeper 1.3) requires optuna 2, of 2021, and sees one
objective for all folds, so that what it proposes for a fold would depend on the fold's report patients.
"""

import importlib.util
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from mil import files
from mil.errors import ConfigError, TrainingError
from mil.fitted.state import refit
from mil.output_places import check_output_folder
from mil.report.prediction_files import read
from mil.runs.describe import describe_run
from mil.runs.fit_run import fit_run, write_inputs
from mil.runs.run import PATIENTS
from mil.runs.run_inputs import changes, input_paths, read_inputs
from mil.runs.states import write_states
from mil.runs.sweep_choice import mean_metric
from mil.runs.tuned_options import write_tuned
from mil.splits.folds import AllTrain, KFold, Split
from mil.study.component import TARGET
from mil.study.compose import compose, write_config
from mil.study.pipeline import prepare_study, split_by
from mil.study.rehearsal import rehearse
from mil.study.run_config import RunConfig
from mil.study.search_space import SearchSpace, search_space
from mil.study.study import Study
from mil.tables import csv_text
from mil.training.train import train

if TYPE_CHECKING:
    import optuna

logger = logging.getLogger(__name__)
JOURNAL, PLAN, INPUTS, TRIALS, RUN = "study.log", "tune.json", "inputs", "trials.csv", "run"
"""In the folder of a search: optuna's journal, what was searched, what it began with, every trial, and the run."""
EVERYBODY = "all"
"""Name of the search over all patients."""


class TuneOptions(BaseModel):
    """How a search goes.

    Attributes:
        trials: Most trials of a search.
        minutes: No trial begins after so many minutes; None sets no limit.
        inner: Inner folds that judge a trial; 1 takes the fold's own select patients.
        seed: Of what is proposed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    trials: int = 20
    minutes: float | None = None
    inner: int = 1
    seed: int = 0


class Plan(BaseModel):
    """What a folder's search was begun with; another search needs another folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    words: tuple[str, ...]
    inner: int
    seed: int


@dataclass(frozen=True)
class Tuned:
    """The result of a search.

    Attributes:
        run: Folder of the run whose report is of patients that the search never saw.
        options: File with the chosen options, `experiment=tuned`.
        chosen: Words of the chosen options by search: each outer fold's, and with several `all`.
        values: What the choice reached among the patients that judged it, by search.
        metric: The name of that metric.
    """

    run: Path
    options: Path
    chosen: Mapping[str, tuple[str, ...]]
    values: Mapping[str, float]
    metric: str


@dataclass(frozen=True)
class _Search:
    """One search: who is in it, and how trials are judged."""

    name: str
    study: Study
    split: Split
    space: SearchSpace
    folder: Path
    options: TuneOptions
    extra: Path | None
    until: float


def tune(words: Sequence[str], folder: Path, options: TuneOptions | None = None, extra: Path | None = None) -> Tuned:
    """Search options, train the chosen ones, and write a run, its report and a file of the options.

    A folder with the same search goes on where that was stopped; more trials or minutes may be given.

    Args:
        words: Options as `mil train -m` takes them; those with several values are searched.
        folder: Where everything goes.
        options: Budget, inner folds and seed.
        extra: A folder of the user's own, laid out like `conf/`.

    Raises:
        ConfigError: Wrong options, optuna is not installed, or the folder holds another search.
        MilError: An error in cohort, features or split; or no trial could be judged.
        Interrupted: A signal asks to stop; the same command goes on.
    """
    options = options or TuneOptions()
    if options.trials < 1 or options.inner < 1 or (options.minutes is not None and not options.minutes > 0):
        raise ConfigError("expected at least one trial, one inner fold and some time")
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError("mil tune needs optuna: pip install 'mil-zoo[tune]'")
    space = search_space(words, extra)
    config = compose(space.first, extra)
    check_place(folder, config)
    study, split = prepare_study(config)
    _begin(folder, Plan(words=tuple(words), inner=options.inner, seed=options.seed), config, study, split)
    searches = list(_searches(study, split, space, folder, options, extra))
    best = {search.name: _searched(search) for search in searches}
    files.write(folder / TRIALS, csv_text(pd.concat([_trials(search) for search in searches])))
    chosen = {name: tuple(space.words(trial.params)) for name, trial in best.items()}
    tuned = [dimension.word(best[searches[-1].name].params) for dimension in space.dimensions]
    place = write_tuned(folder, [word for word in space.fixed if not _names_data(word)], tuned)
    run = _reported(folder, study, split, {name: compose(line, extra) for name, line in chosen.items()})
    values = {name: float(trial.value or np.nan) for name, trial in best.items()}
    return Tuned(run, place, chosen, values, study.endpoint.metric)


def _names_data(word: str) -> bool:
    """Return whether a word says who the patients are, or where a run goes: no part of what was tuned."""
    group = word.lstrip("+~").partition("=")[0].partition(".")[0]
    return group not in ("model", "optimizer", "schedule", "trainer", "callbacks")


def check_place(folder: Path, config: RunConfig) -> None:
    """Check that the folder is new, that of a search, or of one that was stopped as it began.

    Raises:
        ConfigError: As `check_output_folder`.
    """
    was_begun = folder.is_dir() and [each.name for each in folder.iterdir()] == [INPUTS]
    if not was_begun:
        check_output_folder(folder, input_paths(config), PLAN, "OUT")


def _begin(folder: Path, plan: Plan, config: RunConfig, study: Study, split: Split) -> None:
    """Record what a search begins with, or compare it with what it began with.

    Raises:
        ConfigError: The folder holds another search, or its patients or features have changed.
    """
    path = folder / PLAN
    if not path.is_file():
        (folder / INPUTS).mkdir(parents=True, exist_ok=True)
        write_inputs(config, study, split, folder / INPUTS)
        files.write_json(path, plan.model_dump(mode="json"))
        return
    try:
        earlier = Plan.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ConfigError(f"{path}: {error.errors()[0]['msg']}, expected what a search was begun with") from None
    for name in Plan.model_fields:
        if getattr(earlier, name) != getattr(plan, name):
            raise ConfigError(
                f"--out {folder}: holds a search with {name} {getattr(earlier, name)}, found {getattr(plan, name)}; "
                "expected a new folder"
            )
    record = read_inputs(folder / INPUTS)
    sentences = [] if record is None else changes(record, config, study, folder / INPUTS)
    if record is None or sentences:
        raise ConfigError(f"--out {folder}: {'; '.join(sentences) or 'its inputs are lost'}; expected a new folder")


def _searches(
    study: Study, split: Split, space: SearchSpace, folder: Path, options: TuneOptions, extra: Path | None
) -> Iterator[_Search]:
    """Yield a search for each outer fold, and with several one over all patients.

    Each has its share of the time that is left when it begins.
    """
    names = [f"fold_{fold}" for fold in split.folds] + ([EVERYBODY] if len(split.folds) > 1 else [])
    share = np.inf if options.minutes is None else 60 * options.minutes / len(names)
    start = time.monotonic()
    for at, name in enumerate(names):
        rest = _without_report(study, split, split.folds[at]) if at < len(split.folds) else study
        judged_by = _judges(rest, split, split.folds[at] if at < len(split.folds) else None, options)
        yield _Search(name, rest, judged_by, space, folder, options, extra, start + (at + 1) * share)


def _without_report(study: Study, split: Split, fold: int) -> Study:
    """Return the study of the patients that a fold does not report: nothing of the others is left in it."""
    members = {*split.patients(fold, "train"), *split.patients(fold, "select")}
    is_member = study.patients.index.isin(members)
    bags = study.bags[study.bags["patient"].isin(members)].reset_index(drop=True)
    table = study.cohort.table
    return replace(
        study,
        cohort=study.cohort.only(table.loc[table["patient"].isin(members), "slide"]),
        patients=study.patients[is_member],
        target=study.target[np.flatnonzero(is_member)],
        bags=bags,
    )


def _judges(study: Study, split: Split, fold: int | None, options: TuneOptions) -> Split:
    """Return who trains and who judges in a search, without the roles of anybody else."""
    if options.inner > 1:
        inner = split_by(KFold(options.inner), study, options.seed).table
        roles = inner["role"].map({"train": "train", "select": "train", "report": "select"})
        return Split(inner.assign(role=roles))
    if fold is None:
        return split_by(AllTrain(), study, options.seed)
    rows = split.table[(split.table["fold"] == fold) & (split.table["role"] != "report")]
    return Split(rows.assign(fold=0))


def _searched(search: _Search) -> "optuna.trial.FrozenTrial":
    """Try options until the budget is spent, and return the best trial.

    Proposals of a trial depend on the seed and the finished trials alone: a search that was stopped goes on with the
    same ones.

    Raises:
        TrainingError: No trial could be judged.
    """
    import optuna

    study = _opened(search)
    while (done := len(_finished(study))) < search.options.trials and (not done or time.monotonic() < search.until):
        seed = int(np.random.SeedSequence((search.options.seed, done, *search.name.encode())).generate_state(1)[0])
        study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=min(10, search.options.trials // 2))
        trial = study.ask()
        for dimension in search.space.dimensions:
            dimension.suggest(trial)
        start, value = time.monotonic(), _judged(search, trial.params)
        trial.set_user_attr("seconds", round(time.monotonic() - start, 1))
        trial.set_user_attr("finished", True)
        study.tell(trial, value, state=None if value is not None else optuna.trial.TrialState.FAIL)
        shown = "not trained" if value is None else f"{search.study.endpoint.metric} {value:.3f}"
        logger.info("%s, trial %d of %d: %s, %s", search.name, done + 1, search.options.trials, shown, trial.params)
    try:
        return study.best_trial
    except ValueError:
        raise TrainingError(
            f"{search.name}: none of {len(_finished(study))} trials could be judged by {search.study.endpoint.metric} "
            "of its select patients; more select patients, or --inner 3, may help"
        ) from None


def _opened(search: _Search) -> "optuna.Study":
    """Open the journal of a search; trials that were stopped are given up and do not count."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(search.folder / JOURNAL)))
    study = optuna.create_study(storage=storage, study_name=search.name, direction="maximize", load_if_exists=True)
    for trial in study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def _finished(study: "optuna.Study") -> list["optuna.trial.FrozenTrial"]:
    return [trial for trial in study.get_trials(deepcopy=False) if trial.user_attrs.get("finished")]


def _judged(search: _Search, params: Mapping[str, object]) -> float | None:
    """Train with these options and return the metric of the select patients; None where training diverges.

    Raises:
        MilError: Options that cannot be, or features that cannot be read.
    """
    config = compose(search.space.words(params), search.extra).replaced({"baseline": False, "parallel": 1})
    study = replace(search.study, balance=config.data.balance)
    rehearse(config, study)
    folder = search.folder / "trials" / search.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        train(config, study, search.split, folder)
        table = read(folder / "predictions.csv", study.endpoint.columns)
        value, _, _ = mean_metric(table, search.split.folds, study.endpoint)
    except TrainingError as error:
        logger.warning("%s: %s", search.name, error)
        return None
    finally:
        shutil.rmtree(search.folder / "trials", ignore_errors=True)
    return value if np.isfinite(value) else None


def _trials(search: _Search) -> pd.DataFrame:
    rows = [
        {"search": search.name, "trial": at, "value": trial.value, "seconds": trial.user_attrs["seconds"]}
        | trial.params
        for at, trial in enumerate(_finished(_opened(search)))
    ]
    return pd.DataFrame(rows)


def _reported(folder: Path, study: Study, split: Split, configs: Mapping[str, RunConfig]) -> Path:
    """Train each outer fold with its chosen options and return the run of all report patients."""
    several, out = len(split.folds) > 1, folder / RUN
    for fold in split.folds:
        place = folder / f"outer_{fold}" if several else out
        config = configs[f"fold_{fold}"]
        if several:
            roles = folder / INPUTS / f"roles_{fold}.csv"
            Split(split.table[split.table["fold"] == fold].assign(fold=0)).write(roles)
            fixed = {TARGET: "mil.splits.folds.Fixed", "file": str(roles.absolute())}
            config = config.replaced({"split": fixed})
        if not (place / "report.json").is_file():
            fit_run(config, place, replace(study, balance=config.data.balance))
    if several and not (out / "report.json").is_file():
        _join(folder, study, split, configs)
        describe_run(out)
    return out


def _join(folder: Path, study: Study, split: Split, configs: Mapping[str, RunConfig]) -> None:
    """Write the outer folds' runs as one run, whose folds have models of their own."""
    out = folder / RUN
    for name in ("predictions.csv", "baseline.csv"):
        tables = [
            read(place, study.endpoint.columns).assign(fold=fold)
            for fold in split.folds
            if (place := folder / f"outer_{fold}" / name).is_file()
        ]
        if len(tables) == len(split.folds):
            files.write(out / name, csv_text(pd.concat(tables)))
    first = folder / f"outer_{split.folds[0]}"
    for name in ("oracle.csv", PATIENTS):
        if (first / name).is_file():
            files.write(out / name, (first / name).read_bytes())
    split.write(out / "split.csv")
    config = configs[f"fold_{split.folds[0]}"]
    models = dict.fromkeys(each.model.target.rpartition(".")[2] for each in configs.values())
    write_states(out, refit(read(out / "predictions.csv", study.endpoint.columns), study.endpoint, config.tool))
    write_config(out / "config.yaml", config.replaced({"model": {TARGET: " or ".join(models)}}))
