"""Which accelerator, which micro batch, recompute or not: the first combination in order of preference that fits.

The order is one list, `_candidates`: accepted accelerators as the user prefers them, each without recomputation before with it,
micro batches from large to small. Running out of memory moves further down the same list, so that a retry is never a new guess
and the effective batch never changes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tuningfork.api.finetunejob import Sizing
from tuningfork.sizing._catalogue import BY_NAME, CPU, GIB
from tuningfork.sizing._memory import Estimate, Workload, estimate
from tuningfork.sizing._offers import Offer

USABLE_SHARE = 0.95
"""Of a card's memory that an estimate may fill; the rest is for what the estimate does not see."""
CPU_SHARE = 0.5
"""Of the largest node's memory that a CPU run may ask for at first; other pods live there too."""
CPU_MICRO_BATCH = 8
"""On cores a larger micro batch is no faster, it only takes memory."""


@dataclass(frozen=True)
class NothingFits:
    """No accepted accelerator can hold the run; a sentence says what could."""

    message: str


@dataclass(frozen=True)
class _Candidate:
    offer: Offer
    micro_batch: int
    checkpointing: bool
    estimate: Estimate


def choose(
    work: Workload, accepted: Sequence[str], offers: Sequence[Offer], *, smaller: int = 0
) -> Sizing | NothingFits:
    """The first combination that fits; ``smaller`` counts the times that memory ran out since."""
    wanted = _wanted(accepted, offers)
    if not wanted:
        return NothingFits(_nothing_offered(accepted, offers))
    fitting = (c for offer in wanted for c in _candidates(work, offer) if c.estimate.total <= _limit(offer))
    chosen = next(fitting, None)
    if chosen is None:
        return NothingFits(_too_large(work, wanted))
    for _ in range(smaller):
        chosen = next(fitting, None)
        if chosen is None:
            return NothingFits(
                "Memory ran out at the smallest micro batch with recomputed activations on every accepted accelerator;"
                " lower spec.training.maxSequenceLength or accept a larger accelerator in spec.compute.accelerators"
            )
    return _sizing(work, chosen)


def _wanted(accepted: Sequence[str], offers: Sequence[Offer]) -> list[Offer]:
    """Accepted offers in order of preference; without a list every GPU, and cpu only where there is none."""
    by_name = {offer.accelerator: offer for offer in offers}
    if accepted:
        return [by_name[name] for name in accepted if name in by_name]
    gpus = [offer for offer in offers if offer.accelerator != CPU]
    return gpus or list(offers)


def _candidates(work: Workload, offer: Offer) -> Iterator[_Candidate]:
    """Fast before small: whole activations first, then recomputed ones; micro batches halve or divide downwards."""
    cpu = offer.accelerator == CPU
    for checkpointing in (False, True):
        for micro in _micro_batches(work.effective_batch, CPU_MICRO_BATCH if cpu else work.effective_batch):
            if checkpointing and micro > 1 and _fits_without(work, offer):
                continue  # recomputation is the step after the smallest micro batch, not a second descent
            yield _Candidate(offer, micro, checkpointing, estimate(work, micro, checkpointing=checkpointing, cpu=cpu))


def _fits_without(work: Workload, offer: Offer) -> bool:
    plain = estimate(work, 1, checkpointing=False, cpu=offer.accelerator == CPU)
    return plain.total <= _limit(offer)


def _micro_batches(effective: int, most: int) -> list[int]:
    """Divisors of the effective batch from large to small, each at most half of the one before."""
    chosen: list[int] = []
    for size in range(min(effective, most), 0, -1):
        if effective % size == 0 and (not chosen or size <= chosen[-1] / 2):
            chosen.append(size)
    return chosen


def _limit(offer: Offer) -> int:
    return int(offer.usable_bytes * (CPU_SHARE if offer.accelerator == CPU else USABLE_SHARE))


def _sizing(work: Workload, chosen: _Candidate) -> Sizing:
    cpu = chosen.offer.accelerator == CPU
    accumulation = work.effective_batch // chosen.micro_batch
    where = "on cpu" if cpu else f"on 1 x {chosen.offer.accelerator}"
    recomputed = ", activations recomputed" if chosen.checkpointing else ""
    assumed = "".join(f"; {sentence}" for sentence in work.shape.assumed)
    return Sizing(
        accelerator=chosen.offer.accelerator,
        count=0 if cpu else 1,
        nodes=1,
        per_gpu_bytes=chosen.estimate.total,
        breakdown=chosen.estimate.breakdown(),
        micro_batch_size=chosen.micro_batch,
        gradient_accumulation_steps=accumulation,
        gradient_checkpointing=chosen.checkpointing,
        message=(
            f"About {chosen.estimate.total / GIB:.1f} GiB {where}: micro batch {chosen.micro_batch} x {accumulation}"
            f" accumulation steps of up to {work.tokens} tokens{recomputed}{assumed}"
        ),
    )


def _nothing_offered(accepted: Sequence[str], offers: Sequence[Offer]) -> str:
    has = ", ".join(offer.accelerator for offer in offers) or "no node that takes pods"
    unknown = [name for name in accepted if name != CPU and name not in BY_NAME]
    hint = f" ({', '.join(unknown)}: not in the catalogue)" if unknown else ""
    return f"spec.compute.accelerators asks for {', '.join(accepted) or 'any'}{hint}; available: {has}"


def _too_large(work: Workload, wanted: Sequence[Offer]) -> str:
    smallest = {o.accelerator: estimate(work, 1, checkpointing=True, cpu=o.accelerator == CPU).total for o in wanted}
    needs = "; ".join(
        f"{o.accelerator} needs {smallest[o.accelerator] / GIB:.1f} GiB of usable {_limit(o) / GIB:.1f} GiB"
        for o in wanted
    )
    return f"Even micro batch 1 with recomputed activations does not fit: {needs}. Accept a larger accelerator in spec.compute.accelerators"
