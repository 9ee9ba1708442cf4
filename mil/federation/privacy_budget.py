"""What clipping and noise promise of each patient: epsilon at a stated delta."""

from mil.endpoints.endpoint import Endpoint
from mil.errors import ConfigError
from mil.federation.federation_options import FederationOptions
from mil.study.run_config import RunConfig


def epsilon(noise: float, times: int, delta: float) -> float:
    """Return epsilon of Gaussian noise that is added to the gradient of each patient so many times.

    Each patient's gradient is in one step of every pass over the patients. No amplification by sampling is claimed:
    steps are parts of a fixed order.

    Args:
        noise: Standard deviation in multiples of the norm to which each patient's gradient is clipped.
        times: Passes over the patients.
        delta: Of (epsilon, delta)-differential privacy.

    Raises:
        ConfigError: `dp-accounting` is not installed.
    """
    try:
        from dp_accounting import GaussianDpEvent
        from dp_accounting.rdp import RdpAccountant
    except ImportError:
        raise ConfigError(
            "federation.noise needs dp_accounting.rdp, which is not installed: pip install dp-accounting"
        ) from None
    accountant = RdpAccountant()
    accountant.compose(GaussianDpEvent(noise), times)
    return float(accountant.get_epsilon(delta))


def check_noise(config: RunConfig, options: FederationOptions, endpoint: Endpoint) -> float | None:
    """Return epsilon of a training with noise; None without noise.

    Raises:
        ConfigError: A patient's contribution is not bounded by clipping the gradient of each bag.
    """
    if options.clip is None:
        return None
    if config.data.bag != "patient":
        raise ConfigError(
            "federation.clip: a patient with several bags adds several gradients, expected data.bag=patient"
        )
    if not endpoint.alone:
        raise ConfigError(
            f"federation.clip: endpoint {', '.join(endpoint.columns)} compares patients, so that one patient changes "
            "the gradients of others; expected an endpoint without a partial likelihood"
        )
    if options.noise is None:
        return None
    passes = config.data.passes if config.data.whole_cohort else 1
    return epsilon(options.noise, config.trainer.options.max_epochs * passes, options.delta)
