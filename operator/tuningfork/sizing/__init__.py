"""How much memory a run needs and where it fits: pure arithmetic on a model's config.json and the cluster's offers, without torch."""

from collections.abc import Mapping
from typing import Any

from tuningfork.api.finetunejob import FineTuneJobSpec
from tuningfork.sizing._catalogue import CPU, GIB, MIB
from tuningfork.sizing._choice import NothingFits, choose
from tuningfork.sizing._memory import Workload
from tuningfork.sizing._model import UnknownModuleError, read_shape
from tuningfork.sizing._offers import GPU_RESOURCE, LABEL_PRODUCT, Offer, catalogue_offers, discover, quantity

__all__ = [
    "CPU",
    "GIB",
    "GPU_RESOURCE",
    "LABEL_PRODUCT",
    "MIB",
    "NothingFits",
    "Offer",
    "UnknownModuleError",
    "Workload",
    "catalogue_offers",
    "choose",
    "discover",
    "quantity",
    "workload",
]

_WIDTHS = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1}


def workload(
    spec: FineTuneJobSpec, config: Mapping[str, Any], *, weight_bytes: int = 0, longest: int | None = None
) -> Workload:
    """What a spec trains on a model.

    ``weight_bytes`` of the safetensors files count parameters exactly; without them the shape does. ``longest`` is the longest
    prepared example; without it every example is taken to be as long as allowed. Raises KeyError for a config.json without
    dimensions and UnknownModuleError for a target that the model lacks.
    """
    shape = read_shape(config)
    lora = spec.method.lora
    shape.targets(lora.target_modules)
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16").removeprefix("torch.")
    allowed = spec.training.max_sequence_length
    return Workload(
        shape=shape,
        parameters=weight_bytes // _WIDTHS.get(dtype, 2) or shape.parameters,
        rank=lora.rank,
        target_modules=tuple(lora.target_modules),
        dropout=lora.dropout,
        tokens=min(longest, allowed) if longest else allowed,
        effective_batch=spec.training.effective_batch_size,
    )
