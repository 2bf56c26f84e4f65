"""GPUs that can be simulated, with the labels that NVIDIA's GPU feature discovery would set. Data, no code.

Names are TuningFork's accelerator names; memory is what the driver reports, in MiB, which is less than the card's name says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

RESOURCE = "nvidia.com/gpu"


@dataclass(frozen=True)
class Gpu:
    """One model of card as GPU feature discovery describes it."""

    product: str
    memory_mib: int
    family: str
    compute: str

    def labels(self, count: int) -> dict[str, str]:
        major, minor = self.compute.split(".")
        return {
            "nvidia.com/gpu.present": "true",
            "nvidia.com/gpu.count": str(count),
            "nvidia.com/gpu.replicas": "1",
            "nvidia.com/gpu.product": self.product,
            "nvidia.com/gpu.memory": str(self.memory_mib),
            "nvidia.com/gpu.family": self.family,
            "nvidia.com/gpu.compute.major": major,
            "nvidia.com/gpu.compute.minor": minor,
        }


CATALOGUE: Mapping[str, Gpu] = {
    "nvidia-a100-80gb": Gpu("NVIDIA-A100-SXM4-80GB", 81920, "ampere", "8.0"),
    "nvidia-a100-40gb": Gpu("NVIDIA-A100-SXM4-40GB", 40960, "ampere", "8.0"),
    "nvidia-h100-80gb": Gpu("NVIDIA-H100-80GB-HBM3", 81559, "hopper", "9.0"),
    "nvidia-h200": Gpu("NVIDIA-H200", 143771, "hopper", "9.0"),
    "nvidia-l40s": Gpu("NVIDIA-L40S", 46068, "ada-lovelace", "8.9"),
    "nvidia-l4": Gpu("NVIDIA-L4", 23034, "ada-lovelace", "8.9"),
    "nvidia-a10g": Gpu("NVIDIA-A10G", 23028, "ampere", "8.6"),
    "nvidia-t4": Gpu("Tesla-T4", 15360, "turing", "7.5"),
    "nvidia-v100-16gb": Gpu("Tesla-V100-SXM2-16GB", 16384, "volta", "7.0"),
}
