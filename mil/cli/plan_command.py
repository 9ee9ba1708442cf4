"""`mil plan`: how many patients a study needs, to develop a model or to validate one."""

from typing import TYPE_CHECKING, Annotated

import typer

from mil.errors import ConfigError

if TYPE_CHECKING:
    from mil.stats.sample_size import Plan

EXAMPLE = (
    "Example: mil plan validation --prevalence 0.15 --auroc 0.9 prints the patients for an AUROC whose interval is 0.1 "
    "wide, a slope whose interval is 0.2 wide and an observed/expected ratio whose interval is 0.2 wide."
)
app = typer.Typer(
    name="plan",
    help="Plan how many patients a study needs, to develop a model or to validate one; every assumption is printed.",
    epilog=EXAMPLE,
    no_args_is_help=True,
    rich_markup_mode=None,
)
NETWORKS = (
    "These criteria are about models that combine a number of parameters, such as clinical variables and a score. "
    "A network on tiles has no such number: take them as a lower bound."
)
Prevalence = Annotated[float, typer.Option(help="anticipated share of patients with the outcome")]
Parameters = Annotated[int, typer.Option(min=1, help="candidate parameters; a variable of c categories counts c - 1")]
CoxSnell = Annotated[float | None, typer.Option("--r2", help="anticipated Cox-Snell R²; or give --auroc")]
Area = Annotated[float | None, typer.Option(help="anticipated AUROC, in place of --r2")]
Shrinkage = Annotated[float, typer.Option(help="expected shrinkage of the coefficients")]


@app.command()
def binary(
    prevalence: Prevalence,
    parameters: Parameters,
    r2: CoxSnell = None,
    auroc: Area = None,
    shrinkage: Shrinkage = 0.9,
) -> None:
    """Size the development of a model of a yes-or-no outcome (Riley et al., BMJ 2020)."""
    from mil.stats import sample_size

    if (r2 is None) == (auroc is None):
        raise ConfigError("mil plan binary: expected --r2 or --auroc, one of them")
    value = sample_size.r2_from_auroc(auroc, prevalence) if r2 is None and auroc is not None else r2
    assert value is not None
    _print(sample_size.develop_binary(prevalence, parameters, value, shrinkage), NETWORKS)


@app.command()
def survival(
    rate: Annotated[float, typer.Option(help="events per unit of follow-up, such as 0.065 a year")],
    timepoint: Annotated[float, typer.Option(help="horizon of the predicted risks, in the same unit")],
    follow_up: Annotated[float, typer.Option(help="mean follow-up, in the same unit")],
    parameters: Parameters,
    r2: Annotated[float, typer.Option("--r2", help="anticipated Cox-Snell R²")],
    shrinkage: Shrinkage = 0.9,
) -> None:
    """Size the development of a model of times to an event (Riley et al., BMJ 2020)."""
    from mil.stats import sample_size

    _print(sample_size.develop_survival(rate, timepoint, follow_up, parameters, r2, shrinkage), NETWORKS)


@app.command()
def continuous(
    mean: Annotated[float, typer.Option(help="mean of the outcome")],
    sd: Annotated[float, typer.Option(help="standard deviation of the outcome")],
    parameters: Parameters,
    r2: Annotated[float, typer.Option("--r2", help="anticipated adjusted R²")],
    shrinkage: Shrinkage = 0.9,
) -> None:
    """Size the development of a model of a number (Riley et al., BMJ 2020)."""
    from mil.stats import sample_size

    _print(sample_size.develop_continuous(mean, sd, parameters, r2, shrinkage), NETWORKS)


@app.command()
def validation(
    prevalence: Prevalence,
    auroc: Annotated[float, typer.Option(help="anticipated AUROC")],
    mean_logit: Annotated[float | None, typer.Option(help="mean of the model's logits; with --sd-logit")] = None,
    sd_logit: Annotated[float | None, typer.Option(help="their standard deviation; both default to what fits")] = None,
    auroc_width: Annotated[float, typer.Option(help="width of the 95% interval of the AUROC")] = 0.1,
    slope_width: Annotated[float, typer.Option(help="width of the interval of the calibration slope")] = 0.2,
    ratio_width: Annotated[float, typer.Option(help="width of the interval of observed/expected")] = 0.2,
    sensitivity: Annotated[float | None, typer.Option(help="at the threshold, for the net benefit")] = None,
    specificity: Annotated[float | None, typer.Option(help="at the threshold")] = None,
    threshold: Annotated[float | None, typer.Option(help="probability at which patients are treated")] = None,
    benefit_width: Annotated[float, typer.Option(help="width of the interval of the standardised net benefit")] = 0.2,
) -> None:
    """Size an external validation by the precision of its results (Riley et al., Statistics in Medicine 2021)."""
    from mil.stats import sample_size

    score, benefit = None, None
    if mean_logit is not None and sd_logit is not None:
        score = (mean_logit, sd_logit)
    elif mean_logit is not None or sd_logit is not None:
        raise ConfigError("mil plan validation: expected --mean-logit and --sd-logit, both or none")
    if sensitivity is not None and specificity is not None and threshold is not None:
        benefit = (sensitivity, specificity, threshold)
    elif (sensitivity, specificity, threshold) != (None, None, None):
        raise ConfigError("mil plan validation: expected --sensitivity, --specificity and --threshold, all or none")
    _print(
        sample_size.validate_binary(
            prevalence, auroc, score, auroc_width, slope_width, ratio_width, benefit, benefit_width
        ),
        "The model is taken to be right: slope 1, observed as expected. The score's logits are taken as normal.",
    )


def _print(plan: "Plan", note: str) -> None:
    typer.echo("Assumed: " + ", ".join(f"{name} {value:.4g}" for name, value in plan.assumptions.items()))
    width = max(len(criterion.name) for criterion in plan.criteria)
    for criterion in plan.criteria:
        typer.echo(f"  {criterion.name:<{width}}  {criterion.patients:>7,}")
    events = "" if plan.events is None else f", with {plan.events:,} events"
    typer.echo(f"Patients: {plan.patients:,}{events}")
    typer.echo(note)
