"""Whether the devices that a run asks for exist."""

import os

from mil.errors import ConfigError
from mil.study.run_config import RunConfig

PROCESSES = ("parallel", "trainer.devices")
"""Options with which a run may go on that was begun with others."""
_SLURM_TASKS = "SLURM_STEP_NUM_TASKS"
"""How many processes `srun` has started; `sbatch` alone does not set it."""
_SLURM_NODES, _SLURM_PER_NODE = "SLURM_NNODES", "SLURM_NTASKS_PER_NODE"


def slurm_tasks() -> int:
    """Return how many processes of this command `srun` has started; 1 outside of SLURM."""
    return int(os.environ.get(_SLURM_TASKS, "1"))


def check_devices(config: RunConfig) -> None:
    """Check that several devices exist and can share the batches.

    Raises:
        ConfigError: Fewer GPUs or cores than devices, an option that does not go with several devices, or `srun` has
            started another number of processes.
    """
    options = config.trainer.options
    count, devices = options.device_count, f"trainer.devices={_shown(options.devices)}"
    if count == 1:
        return
    if config.parallel > 1:
        raise ConfigError(
            f"{devices} with parallel={config.parallel}: expected one of them; several devices train one fold after "
            "the other"
        )
    if config.data.batch_bags < count:
        raise ConfigError(
            f"{devices} with data.batch_bags={config.data.batch_bags}: the bags of a batch are divided among the "
            f"devices, expected data.batch_bags={count} or more"
        )
    limit = options.limit_val_batches
    if limit and not (isinstance(limit, float) and limit == 1):
        raise ConfigError(f"{devices} with trainer.limit_val_batches={limit}: expected 1.0 or 0")
    _check_slurm(count, devices)
    _check_number(config, devices)


def _check_slurm(count: int, devices: str) -> None:
    """Check that `srun` has started one process for all devices, or one for each, on one node."""
    started, nodes, per_node = slurm_tasks(), os.environ.get(_SLURM_NODES, "1"), os.environ.get(_SLURM_PER_NODE)
    if started == 1:
        return
    expected = f"expected --nodes=1 --ntasks-per-node={count}, or 1"
    if started != count or nodes != "1":
        raise ConfigError(f"{devices}, but srun has started {started} processes on nodes: {nodes}; {expected}")
    if per_node != str(count):  # Lightning reads this one
        raise ConfigError(f"{devices} with srun: {_SLURM_PER_NODE} is {per_node or 'not set'}; {expected}")


def _check_number(config: RunConfig, devices: str) -> None:
    """Check that there are so many GPUs, or cores where the CPU trains."""
    import torch  # the names above are needed without it

    options = config.trainer.options
    accelerator = options.keywords().get("accelerator", "auto")
    on_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())
    if on_gpu:
        available, kind = torch.cuda.device_count(), "GPU" if torch.cuda.device_count() == 1 else "GPUs"
        needed = max(options.devices) + 1 if isinstance(options.devices, list | tuple) else options.device_count
    elif accelerator in ("auto", "cpu"):
        cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
        available, kind, needed = len(cores), "core" if len(cores) == 1 else "cores", options.device_count
        if isinstance(options.devices, list | tuple):
            raise ConfigError(f"{devices}: this machine has no GPU, expected a number of processes")
    else:
        raise ConfigError(f"{devices} with trainer.accelerator={accelerator}: expected gpu or cpu")
    if needed > available:
        raise ConfigError(f"{devices}: this machine has {available} {kind}")


def _shown(devices: object) -> str:
    return str(devices).replace(" ", "")
