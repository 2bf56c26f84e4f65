"""What this machine is: device, arithmetic and memory. Decided by capability, never by a timing.

A timing would choose differently from run to run, and a resumed run would not equal the unbroken one.
"""

import resource
import sys
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Machine:
    """Where the arithmetic happens."""

    device: str
    """cuda or cpu."""
    precision: str
    """bf16, fp16 or fp32: the frozen weights and the forward pass; adapters and optimizer are always fp32."""
    why: str

    @property
    def dtype(self) -> torch.dtype:
        return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[self.precision]


def inspect_machine() -> Machine:
    """The accelerator if there is one, and the fastest arithmetic that it has in hardware."""
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name(0)
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Machine("cuda", "bf16", f"{name} has bf16")
        return Machine("cuda", "fp16", f"{name} has no bf16")
    capabilities = torch.cpu.get_capabilities()
    found = [flag for flag in ("amx_bf16", "avx512_bf16", "bf16") if capabilities.get(flag)]
    if found:
        return Machine("cpu", "bf16", f"the CPU has {found[0]}")
    return Machine("cpu", "fp32", "the CPU has no bf16 instructions")


def peak_rss_bytes() -> int:
    """Highest resident memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
