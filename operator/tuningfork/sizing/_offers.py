"""What the cluster has: accelerators by the labels that NVIDIA's GPU feature discovery puts on nodes, and memory for CPU runs.

Only allocatable counts, and a node that does not take new pods offers nothing. Free capacity is not looked at: who is first is
the scheduler's decision, and a full card is a reason to wait, not to choose another.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tuningfork.sizing._catalogue import BY_NAME, BY_PRODUCT, CATALOGUE, CPU, MIB

GPU_RESOURCE = "nvidia.com/gpu"
LABEL_PRODUCT = "nvidia.com/gpu.product"
LABEL_MEMORY = "nvidia.com/gpu.memory"

_UNITS = {
    "": 1,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "m": 0.001,
}


@dataclass(frozen=True)
class Offer:
    """An accelerator that a run could get."""

    accelerator: str
    usable_bytes: int
    """Of one card; for cpu: of the largest node."""
    products: tuple[str, ...] = ()
    """GFD product labels that the pod's affinity names."""


def discover(nodes: Iterable[Mapping[str, Any]]) -> tuple[Offer, ...]:
    """What the nodes offer: GPUs smallest first, then cpu."""
    gpus: dict[str, Offer] = {}
    memory = 0
    for node in nodes:
        if node.get("spec", {}).get("unschedulable"):
            continue
        allocatable = node.get("status", {}).get("allocatable", {})
        memory = max(memory, quantity(allocatable.get("memory", "0")))
        offer = _gpu(node.get("metadata", {}).get("labels", {}))
        if offer and quantity(allocatable.get(GPU_RESOURCE, "0")) > 0:
            gpus[offer.accelerator] = _merged(gpus.get(offer.accelerator), offer)
    cpu = (Offer(CPU, memory),) if memory else ()
    return (*sorted(gpus.values(), key=lambda offer: (offer.usable_bytes, offer.accelerator)), *cpu)


def catalogue_offers(cpu_bytes: int) -> tuple[Offer, ...]:
    """One of everything: what `tuningfork estimate` chooses from without a cluster."""
    gpus = (Offer(a.name, a.usable_mib * MIB, a.products) for a in CATALOGUE)
    return (*sorted(gpus, key=lambda offer: offer.usable_bytes), Offer(CPU, cpu_bytes))


def quantity(value: str | int) -> int:
    """A Kubernetes quantity in whole units; 500m is 0."""
    match = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(value))
    if not match or match.group(2) not in _UNITS:
        raise ValueError(f"{value!r} is no quantity; write it like 4Gi or 500m")
    return int(float(match.group(1)) * _UNITS[match.group(2)])


def _gpu(labels: Mapping[str, str]) -> Offer | None:
    """The node's card; one that the catalogue lacks is named after its product, its memory is what GFD reports."""
    product = labels.get(LABEL_PRODUCT, "")
    if not product:
        return None
    reported = int(labels[LABEL_MEMORY]) * MIB if labels.get(LABEL_MEMORY, "").isdigit() else 0
    # A simulated or shared card may be labelled with the catalogue's own name.
    known = BY_PRODUCT.get(product) or BY_NAME.get(product.lower())
    name = known.name if known else re.sub("[^a-z0-9]+", "-", product.lower()).strip("-")
    usable = reported or (known.usable_mib * MIB if known else 0)
    return Offer(name, usable, (product,)) if usable else None


def _merged(old: Offer | None, new: Offer) -> Offer:
    """Two nodes' cards of one name: the smaller memory counts, since the pod may land on either."""
    if old is None:
        return new
    products = tuple(sorted({*old.products, *new.products}))
    return Offer(new.accelerator, min(old.usable_bytes, new.usable_bytes), products)
