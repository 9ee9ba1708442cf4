"""Two examples for the help of each command, and what `mil` alone shows."""

from collections.abc import Iterable

FIRST_DAY = """\
A multiple-instance-learning model zoo for computational pathology.

The first day:
  mil train                                  a tool on simulated slides, from nothing to a report and a card
  mil list tools                             what there is; mil zoo show msi-crc: the facts of one
  mil init my-question                       a project folder for a question of your own
  mil check data.cohort=cohort.csv data.features=features/
                                             every problem of your own data, before any training
  mil predict msi-crc --features features/ --out scores.csv
                                             score slides with a released tool

All commands: mil --help. Of one: mil train --help. If something fails: mil doctor."""

EXAMPLES = {
    "init": (
        "mil init er-breast --column ER --classes negative,positive",
        "mil init os-colon --time months --event dead",
    ),
    "doctor": ("mil doctor", "mil doctor > for_the_report.txt"),
    "list": ("mil list", "mil list models"),
    "simulate": (
        "mil simulate cohort/ tool=surv-crc simulation.patients=300",
        "mil simulate cohort/ simulation.layout=stamp simulation.signal=sparse",
    ),
    "check": (
        "mil check tool=msi-crc data.cohort=cohort.csv data.features=features/ --deep",
        "mil check --split splits_0.csv --id case_id",
    ),
    "import": (
        "mil import clam s_0_checkpoint.pt --out imported --encoder uni --classes MSS,MSI-H --licence GPL-3.0",
        "mil import feather model.safetensors --out trunk --encoder conch_v15 --source MahmoodLab/FEATHER",
    ),
    "convert": (
        "mil convert features/ features.h5",
        "mil convert features/ features.h5 --dtype bfloat16 --on-bad skip",
    ),
    "train": (
        "mil train tool=msi-crc model=abmil data.cohort=cohort.csv data.features=features/",
        "mil train --resume runs/msi-crc/2026-11-30_10-00-00",
        "mil train -m model=abmil,mean seed=0,1 cluster=slurm cluster.partition=gpu cluster.gpus=1",
    ),
    "runs": ("mil runs", "mil runs runs/msi-crc/2026-11-30_10-00-00 --cancel"),
    "tune": (
        "mil tune tuned/ tool=msi-crc split=holdout data.cohort=cohort.csv data.features=features/ --trials 30",
        "mil tune tuned/ model=abmil,simlp 'optimizer.lr=tag(log,interval(1e-5,1e-3))' --inner 3 --minutes 60",
    ),
    "propose": (
        "mil propose tool=msi-crc data.cohort=cohort.csv data.features=features/",
        "mil propose tool=surv-crc simulation.patients=300",
    ),
    "evaluate": (
        "mil evaluate runs/msi-crc/2026-11-30_10-00-00",
        "mil evaluate --predictions theirs.csv --target MSI --positive MSI-H --score p",
    ),
    "compare": (
        "mil compare runs/msi-crc/a runs/msi-crc/b",
        "mil compare runs/msi-crc/a runs/msi-crc/b --out compared/",
    ),
    "site": (
        "mil site runs/msi-crc/random",
        "mil site runs/msi-crc/random --preserved runs/msi-crc/by_site --out site/",
    ),
    "select": ("mil train -m model=abmil,mean split=nested", "mil select multirun/msi-crc/2026-11-30_10-00-00"),
    "calibrate": (
        "mil calibrate msi-crc --cohort known.csv --features features/ --out here/ --sensitivity 0.9",
        "mil calibrate surv-crc --cohort known.csv --features features/ --out here/ --calibration baseline_slope",
    ),
    "predict": (
        "mil predict msi-crc --features features/ --out scores.csv",
        "mil predict all --features features/ --cohort cohort.csv --out scores/",
        "mil predict runs/a/fold_0/checkpoint runs/a/fold_1/checkpoint --features features/ --out scores.csv",
        "mil predict msi-crc --features features/ --out scores.csv cluster=slurm cluster.shards=64",
    ),
    "federate": (
        "mil federate tool=msi-crc split=holdout experiment=quick simulation.sites=3 simulation.patients=400",
        "mil federate tool=msi-crc split=holdout federation.sites=[north/,south/,west/] federation.algorithm=exact",
        "mil federate export msi-2026/ tool=msi-crc split=holdout federation.sites=[north,south,west]",
        "mil federate site kits/north data.cohort=cohort.csv data.features=features/ job=msi-2026/",
    ),
    "explain": (
        "mil explain msi-crc --features features/ --out explained/",
        "mil explain runs/msi-crc/2026-11-30_10-00-00 --cases --most 20",
        "mil explain msi-crc --features features/ --out explained/ cluster=slurm cluster.shards=64",
    ),
    "release": (
        "mil release runs/msi-crc/2026-11-30_10-00-00 --version 1.0.0",
        'mil release runs/msi-crc/b --version 1.1.0 --note "Trained on 120 patients more" --out released/',
    ),
    "zoo list": ("mil zoo list", "mil zoo list --registry hf://owner/repository"),
    "zoo show": ("mil zoo show msi-crc", "mil zoo show model_cards/surv-crc"),
    "zoo compare": (
        "mil zoo compare msi-crc@1.0.0 msi-crc@1.1.0 --out compared.html",
        "mil zoo compare model_cards/msi-crc runs/msi-crc/2026-11-30_10-00-00/fold_0/checkpoint",
    ),
    "zoo pull": (
        "mil zoo pull msi-crc --registry /mnt/zoo",
        "mil zoo pull msi-crc@1.0.0 --registry /mnt/zoo --key theirs.pem",
    ),
    "zoo push": (
        "mil zoo push model_cards/msi-crc --registry /mnt/zoo",
        "mil zoo push model_cards/msi-crc --registry /mnt/zoo --sign ours.pem",
    ),
    "zoo sign": (
        "mil zoo sign model_cards/msi-crc --key ours.pem",
        "mil zoo verify model_cards/msi-crc --key ours_public.pem",
    ),
    "plan binary": (
        "mil plan binary --prevalence 0.174 --parameters 24 --r2 0.288",
        "mil plan binary --prevalence 0.2 --parameters 30 --auroc 0.78",
    ),
    "plan survival": (
        "mil plan survival --rate 0.065 --timepoint 2 --follow-up 2.07 --parameters 30 --r2 0.051",
        "mil plan survival --rate 0.08 --timepoint 5 --follow-up 4.2 --parameters 10 --r2 0.05 --shrinkage 0.8",
    ),
    "plan continuous": (
        "mil plan continuous --mean 1.9 --sd 0.6 --parameters 25 --r2 0.2",
        "mil plan continuous --mean 120 --sd 15 --parameters 8 --r2 0.5",
    ),
    "plan validation": (
        "mil plan validation --prevalence 0.15 --auroc 0.9",
        "mil plan validation --prevalence 0.15 --auroc 0.9 --sensitivity 0.9 --specificity 0.7 --threshold 0.1",
    ),
    "zoo verify": ("mil zoo verify", "mil zoo verify model_cards/msi-crc --key ours_public.pem"),
}
"""By the words of the command; each a line that can be typed."""


def epilog(command: str, further: Iterable[str] = ()) -> str:
    """Return what stands below the options in a command's help: its examples, and further paragraphs."""
    block = "\n".join(["\b", "Examples:", *(f"  {line}" for line in EXAMPLES[command])])
    return "\n\n".join([block, *further])
