"""The options of a federation, `conf/federation/`, which `mil federate` takes beside those of `mil train`."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError

from mil.config import nearest
from mil.errors import ConfigError
from mil.study.component import Config, Positive
from mil.study.run_config import Count, Flag

Algorithm = Literal["exact", "fedavg", "fedprox", "scaffold", "fedadam", "local", "pooled"]
Share = Annotated[float, Field(ge=0, lt=1)]


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


class FederationOptions(Config):
    """How hospitals train together.

    Attributes:
        sites: Folders with `cohort.csv` and `features/`, or yaml files with a name and options of `data`. Empty: the
            simulated cohort of the tool, divided by its centres.
        algorithm: `exact` sums gradients of all sites at the same weights; `fedavg`, `fedprox`, `scaffold` and
            `fedadam` average weights after training at each site; `local` trains each site alone; `pooled` brings
            everything together, in simulations only.
        minimum: Patients behind every message, and behind every number of the table of sites.
        secure: Whether sums are masked, so that the coordinator learns totals only.
        quorum: Sites without which a round is not completed; None waits for all.
        attempts: How often a site is asked again before it counts as absent.
        seconds: How long an answer may take.
        local_epochs: Epochs at each site between two averages.
        mu: Strength of FedProx' pull to the common weights.
        server_lr: Step of the coordinator in `scaffold` and `fedadam`.
        beta1: Of FedAdam.
        beta2: Of FedAdam.
        tau: Of FedAdam.
        times: `grid` rounds event times up; `exact` tells the coordinator every event time.
        grid: Width of the grid of times, in months.
        cell_minimum: Patients of all sites whose follow-up ends in a cell of that grid; None takes `minimum`.
        norm_factor: How many times the median of the sites an update's norm may be, where sums are not masked, and how
            many times the largest total before it a total's.
        norm_bound: Norm to which each site clips its mean gradient or change of weights before it is masked; the
            coordinator refuses a total beyond it. None does not clip.
        clip: Norm to which the gradient of each bag is clipped; None does not clip.
        noise: Standard deviation of Gaussian noise in multiples of `clip`; None adds none. With noise the
            patients of a step are drawn at random, and the report states epsilon.
        delta: Of the differential privacy that noise and clipping give.
        leave_one_site_out: Whether each site in turn is the test of a model of the others.
        together: Whether the run folder also holds the predictions of all sites; simulated patients only.
    """

    sites: Annotated[list[str], BeforeValidator(_listed)] = Field(default_factory=list)
    algorithm: Algorithm = "exact"
    minimum: Count = 10
    secure: Flag = True
    quorum: Count | None = None
    attempts: Count = 3
    seconds: Positive = 600.0
    local_epochs: Count = 1
    mu: Positive = 0.01
    server_lr: Positive | None = None
    beta1: Share = 0.9
    beta2: Share = 0.99
    tau: Positive = 1e-3
    times: Literal["grid", "exact"] = "grid"
    grid: Positive = 1.0
    cell_minimum: Count | None = None
    norm_factor: Positive = 20.0
    norm_bound: Positive | None = None
    clip: Positive | None = None
    noise: Positive | None = None
    delta: Positive = 1e-5
    leave_one_site_out: Flag = False
    together: Flag = False

    @classmethod
    def parse(cls, values: dict[str, object]) -> Self:
        """Validate options.

        Raises:
            ConfigError: An option that does not exist, or a value out of its range.
        """
        if unknown := sorted(set(values) - set(cls.model_fields)):
            near = nearest(unknown[0], list(cls.model_fields), "federation.")
            raise ConfigError(f"option 'federation.{unknown[0]}' does not exist{near}")
        try:
            options = cls.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = ".".join(map(str, first["loc"]))
            message = first["msg"].removeprefix("Input should be ")
            raise ConfigError(f"federation.{name}={first['input']}, expected {message}") from None
        options.check()
        return options

    def check(self) -> None:
        """Check options that exclude each other.

        Raises:
            ConfigError: Noise without clipping, or either with an algorithm whose bags have no gradients of their own;
                a bound of the norm where something else is sent too; sites left out where no model is common.
        """
        if self.noise is not None and self.clip is None:
            raise ConfigError("federation.noise is in multiples of federation.clip, which has no value")
        if self.clip is not None and self.algorithm not in ("exact", "pooled"):
            raise ConfigError(
                f"federation.clip: with federation.algorithm={self.algorithm} weights leave a site after many steps, "
                "expected algorithm=exact"
            )

        if self.leave_one_site_out and self.algorithm in ("local", "pooled"):
            raise ConfigError(
                f"federation.leave_one_site_out: algorithm={self.algorithm} trains no model of the other sites, "
                "expected exact, fedavg, fedprox, scaffold or fedadam"
            )
        if self.norm_bound is not None and (self.algorithm == "scaffold" or self.noise is not None):
            reason = "control variates are sent too, which no norm bounds"
            if self.noise is not None:
                reason = "federation.clip bounds each bag's gradient already, and noise is not bounded"
            raise ConfigError(f"federation.norm_bound: {reason}")

    @property
    def least_per_cell(self) -> int:
        """Patients of all sites in a cell of the grid of times."""
        return self.minimum if self.cell_minimum is None else self.cell_minimum
