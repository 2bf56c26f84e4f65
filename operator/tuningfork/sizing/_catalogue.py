"""Accelerators as data: what they are called by NVIDIA's GPU feature discovery (GFD), and how much of their memory is usable.

Usable is not the number on the box: a "24 GB" card reports 22 to 23.6 GiB, and the driver takes its part of that. The figures
are nvidia-smi's total memory in MiB as the drivers report it; what a process's CUDA context takes is part of the estimate and not
of this table. Cards that are missing here are still found, by the memory that GFD reports (see `_offers`).
"""

from typing import Final, NamedTuple

MIB: Final = 1024 * 1024
GIB: Final = 1024 * MIB

CPU: Final = "cpu"
"""Stands in spec.compute.accelerators for a run without accelerator."""


class Accelerator(NamedTuple):
    """One kind of card."""

    name: str
    """As users write it in spec.compute.accelerators."""
    usable_mib: int
    """Total memory as nvidia-smi shows it."""
    products: tuple[str, ...]
    """Values of GFD's label nvidia.com/gpu.product."""


CATALOGUE: Final = (
    Accelerator("nvidia-t4", 15_360, ("Tesla-T4",)),
    Accelerator("nvidia-v100-16gb", 16_384, ("Tesla-V100-SXM2-16GB", "Tesla-V100-PCIE-16GB")),
    Accelerator("nvidia-a10", 23_028, ("NVIDIA-A10",)),
    Accelerator("nvidia-a10g", 23_028, ("NVIDIA-A10G",)),
    Accelerator("nvidia-l4", 23_034, ("NVIDIA-L4",)),
    Accelerator("nvidia-rtx-4090", 24_564, ("NVIDIA-GeForce-RTX-4090",)),
    Accelerator("nvidia-v100-32gb", 32_768, ("Tesla-V100-SXM2-32GB", "Tesla-V100-PCIE-32GB")),
    Accelerator("nvidia-a100-40gb", 40_960, ("NVIDIA-A100-SXM4-40GB", "NVIDIA-A100-PCIE-40GB")),
    Accelerator("nvidia-l40s", 46_068, ("NVIDIA-L40S",)),
    Accelerator("nvidia-a6000", 49_140, ("NVIDIA-RTX-A6000",)),
    Accelerator("nvidia-a100-80gb", 81_920, ("NVIDIA-A100-SXM4-80GB", "NVIDIA-A100-80GB-PCIe")),
    Accelerator("nvidia-h100-80gb", 81_559, ("NVIDIA-H100-80GB-HBM3", "NVIDIA-H100-PCIe")),
    Accelerator("nvidia-h200", 143_771, ("NVIDIA-H200",)),
    Accelerator("nvidia-b200", 183_359, ("NVIDIA-B200",)),
)
"""Smallest first. Totals: nvidia-smi on each card under drivers 535 to 580."""

BY_NAME: Final = {accelerator.name: accelerator for accelerator in CATALOGUE}
BY_PRODUCT: Final = {product: accelerator for accelerator in CATALOGUE for product in accelerator.products}
