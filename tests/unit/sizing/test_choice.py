"""Which accelerator, which micro batch: the first that fits, and how it goes down from there."""

from typing import Any

import pytest

from support.api_objects import make_job
from support.jobs import SMOL
from tuningfork.api import FineTuneJob
from tuningfork.sizing import (
    GIB,
    NothingFits,
    Offer,
    UnknownModuleError,
    catalogue_offers,
    choose,
    discover,
    quantity,
    workload,
)

T4 = Offer("nvidia-t4", 15 * GIB, ("Tesla-T4",))
A100 = Offer("nvidia-a100-80gb", 80 * GIB, ("NVIDIA-A100-SXM4-80GB",))
CPU = Offer("cpu", 24 * GIB)
LLAMA_8B = {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
            "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
            "tie_word_embeddings": False}  # fmt: skip


def make_work(config: dict[str, Any] = SMOL, **spec: Any) -> Any:
    job = FineTuneJob.model_validate(make_job("a", **spec))
    return workload(job.spec, config)


def node(**labels_and_more: Any) -> dict[str, Any]:
    product, memory = labels_and_more.get("product"), labels_and_more.get("memory")
    labels = {"nvidia.com/gpu.product": product, "nvidia.com/gpu.memory": memory}
    return {
        "metadata": {"labels": {key: value for key, value in labels.items() if value}},
        "spec": {"unschedulable": labels_and_more.get("cordoned", False)},
        "status": {"allocatable": {"memory": "8Gi", "nvidia.com/gpu": labels_and_more.get("gpus", "0")}},
    }


@pytest.mark.parametrize(
    ("accepted", "offers", "chosen"),
    [
        pytest.param((), (T4, A100, CPU), "nvidia-t4", id="no preference takes the smallest GPU that fits"),
        pytest.param((), (CPU,), "cpu", id="no preference and no GPU takes cpu"),
        pytest.param(("cpu",), (T4, CPU), "cpu", id="cpu when it is asked for"),
        pytest.param(("nvidia-a100-80gb", "nvidia-t4"), (T4, A100), "nvidia-a100-80gb", id="the user's order counts"),
        pytest.param(("nvidia-h200", "nvidia-t4"), (T4,), "nvidia-t4", id="what the cluster lacks is passed over"),
    ],
)
def test_the_first_accepted_accelerator_that_fits_is_chosen(
    accepted: tuple[str, ...], offers: tuple[Offer, ...], chosen: str
) -> None:
    sizing = choose(make_work(), accepted, offers)
    assert not isinstance(sizing, NothingFits)
    assert (sizing.accelerator, sizing.count) == (chosen, 0 if chosen == "cpu" else 1)


def test_a_model_that_is_too_large_for_the_first_goes_to_the_next() -> None:
    sizing = choose(make_work(LLAMA_8B), (), (T4, A100))
    assert not isinstance(sizing, NothingFits)
    assert sizing.accelerator == "nvidia-a100-80gb"


def test_micro_batches_always_divide_the_effective_batch() -> None:
    for effective in range(1, 130):
        sizing = choose(make_work(training__effectiveBatchSize=effective), (), (A100,))
        assert not isinstance(sizing, NothingFits)
        assert sizing.micro_batch_size * sizing.gradient_accumulation_steps == effective


def test_each_step_down_needs_less_memory_and_the_last_one_says_so() -> None:
    work = make_work(training__effectiveBatchSize=12)
    ladder = []
    for smaller in range(20):
        sizing = choose(work, (), (T4,), smaller=smaller)
        if isinstance(sizing, NothingFits):
            assert "Memory ran out at the smallest micro batch" in sizing.message
            break
        ladder.append((sizing.micro_batch_size, sizing.gradient_checkpointing, sizing.per_gpu_bytes))
    assert [step[:2] for step in ladder] == [(3, False), (1, False), (1, True)]
    assert sorted((step[2] for step in ladder), reverse=True) == [step[2] for step in ladder]


@pytest.mark.parametrize(
    ("accepted", "offers", "sentence"),
    [
        pytest.param(("nvidia-t4",), (CPU,), "asks for nvidia-t4; available: cpu", id="not there"),
        pytest.param(("h100",), (CPU,), "(h100: not in the catalogue)", id="a name that nobody knows"),
        pytest.param((), (), "available: no node that takes pods", id="no node"),
        pytest.param(
            ("nvidia-t4",), (T4,), "nvidia-t4 needs 18.0 GiB of usable 14.2 GiB", id="too small, with what it needs"
        ),
    ],
)
def test_nothing_fits_says_what_would(accepted: tuple[str, ...], offers: tuple[Offer, ...], sentence: str) -> None:
    found = choose(make_work(LLAMA_8B), accepted, offers)
    assert isinstance(found, NothingFits)
    assert sentence in found.message


def test_examples_are_as_long_as_prepared_and_never_longer_than_allowed() -> None:
    job = FineTuneJob.model_validate(make_job("a", training__maxSequenceLength=512))
    assert [workload(job.spec, SMOL, longest=n).tokens for n in (None, 100, 9999)] == [512, 100, 512]


def test_parameters_are_counted_by_the_weights_where_they_are_known() -> None:
    job = FineTuneJob.model_validate(make_job("a"))
    by_files = workload(job.spec, SMOL, weight_bytes=269_060_552).parameters
    by_shape = workload(job.spec, SMOL).parameters
    assert by_files == 134_530_276
    assert by_shape == pytest.approx(by_files, rel=0.001)


def test_an_unknown_target_module_names_those_that_exist() -> None:
    with pytest.raises(UnknownModuleError, match="use down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"):
        make_work(method={"lora": {"targetModules": ["qproj"]}})


@pytest.mark.parametrize(
    ("nodes", "offers"),
    [
        pytest.param([node()], [("cpu", 8 * GIB)], id="a node without GPU"),
        pytest.param(
            [node(product="Tesla-T4", memory="15360", gpus="4")],
            [("nvidia-t4", 15 * GIB), ("cpu", 8 * GIB)],
            id="a known card by its product",
        ),
        pytest.param(
            [node(product="NVIDIA-Z1", memory="40960", gpus="1")],
            [("nvidia-z1", 40 * GIB), ("cpu", 8 * GIB)],
            id="an unknown card by its reported memory",
        ),
        pytest.param([node(product="NVIDIA-Z1", gpus="1")], [("cpu", 8 * GIB)], id="an unknown card without memory"),
        pytest.param([node(product="Tesla-T4", gpus="0")], [("cpu", 8 * GIB)], id="no GPU allocatable"),
        pytest.param([node(product="Tesla-T4", gpus="1", cordoned=True)], [], id="a cordoned node"),
        pytest.param(
            [
                node(product="NVIDIA-A100-SXM4-40GB", memory="40960", gpus="8"),
                node(product="NVIDIA-A100-PCIE-40GB", memory="40536", gpus="8"),
            ],
            [("nvidia-a100-40gb", 40536 * 1024 * 1024), ("cpu", 8 * GIB)],
            id="two products of one name count as the smaller",
        ),
    ],
)
def test_nodes_offer_what_their_labels_say(nodes: list[dict[str, Any]], offers: list[tuple[str, int]]) -> None:
    assert [(offer.accelerator, offer.usable_bytes) for offer in discover(nodes)] == offers


def test_the_catalogue_is_offered_smallest_first_and_cpu_last() -> None:
    offers = catalogue_offers(GIB)
    assert [o.usable_bytes for o in offers[:-1]] == sorted(o.usable_bytes for o in offers[:-1])
    assert offers[-1] == Offer("cpu", GIB)


@pytest.mark.parametrize(
    ("text", "value"), [("4Gi", 4 * GIB), ("500m", 0), ("2", 2), ("1500M", 1_500_000_000), ("12e", None)]
)
def test_quantities(text: str, value: int | None) -> None:
    if value is None:
        with pytest.raises(ValueError, match="'12e' is no quantity"):
            quantity(text)
    else:
        assert quantity(text) == value
