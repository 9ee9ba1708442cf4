"""The precision of training that this machine is fast in; without Lightning, so that `mil doctor` is quick."""

import torch


def precision(option: str | int | None) -> str | int | None:
    """Resolve `auto` to bfloat16 where the hardware multiplies it natively, else to single precision."""
    if option != "auto":
        return option
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    native = torch.cpu.get_capabilities()
    return "bf16-mixed" if native.get("avx512_bf16") or native.get("amx_bf16") else "32-true"
