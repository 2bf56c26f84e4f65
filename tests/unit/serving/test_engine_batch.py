"""Requests share passes without sharing anything else: each answer equals the one that transformers and peft give it alone."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

from tuningfork_serving.engine import batcher as batcher_module
from tuningfork_serving.engine.batcher import Batcher, Delta, Generation
from tuningfork_serving.engine.model import BASE, AdapterError, LoraModel
from tuningfork_serving.engine.sampling import Sampling
from tuningfork_serving.engine.text import TextStream

NEVER = frozenset[int]()


class Request:
    """A request and the deltas that it got."""

    def __init__(self, model: LoraModel, prompt: str, handle: str = BASE, tokens: int = 8, stop: str = "") -> None:
        self.deltas: list[Delta] = []
        self.generation = Generation(
            prompt=model.tokenizer(prompt)["input_ids"],
            handle=handle,
            max_tokens=tokens,
            sampling=Sampling(temperature=0),
            text=TextStream(model.tokenizer.decode, [stop]),
            deliver=self.deltas.append,
        )

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)

    @property
    def finished(self) -> str | None:
        return self.deltas[-1].finish_reason if self.deltas else None


@pytest.fixture
def model(base_dir: Path) -> LoraModel:
    model = LoraModel(base_dir, dtype=torch.float32, max_rank=4)
    model.end_tokens = NEVER  # random weights end at random; lengths are the tests' to choose
    return model


@pytest.fixture
def alone(base_dir: Path, adapter_dirs: dict[str, Path]) -> Callable[..., str]:
    """What transformers and peft answer when nobody else is there and nothing of ours is used."""

    def answer(model: LoraModel, prompt: str, adapter: str | None, tokens: int = 8) -> str:
        reference = LlamaForCausalLM.from_pretrained(base_dir)
        if adapter:
            reference = PeftModel.from_pretrained(reference, adapter_dirs[adapter])
        ids = torch.tensor([model.tokenizer(prompt)["input_ids"]])
        out = reference.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            do_sample=False,
            eos_token_id=None,
        )
        return str(model.tokenizer.decode(out[0, ids.shape[1] :]))

    return answer


def batch(model: LoraModel, *, rows: int = 8, adapters: int = 8) -> Batcher:
    return Batcher(model, max_running=rows, max_adapters=adapters, base=BASE)


def run(batcher: Batcher, *requests: Request, steps: int = 200) -> None:
    for request in requests:
        batcher.submit(request.generation)
    for _ in range(steps):
        batcher.step()
        if not batcher.running and not batcher.waiting:
            return
    raise AssertionError("the batch did not end")


def test_a_mixed_batch_answers_each_request_as_if_it_were_alone(
    model: LoraModel, adapter_dirs: dict[str, Path], alone: Callable[..., str]
) -> None:
    handles = {name: model.load_adapter(path) for name, path in adapter_dirs.items()} | {None: BASE}
    wanted = [
        ("hello", "one"),
        ("a much longer prompt than that", None),
        ("hello", "two"),
        ("hello", None),
        ("x", "one"),
    ]
    requests = [Request(model, prompt, handles[adapter]) for prompt, adapter in wanted]
    run(batch(model), *requests)
    assert [request.text for request in requests] == [alone(model, *each) for each in wanted]
    assert len({request.text for request in (requests[0], requests[2], requests[3])}) == 3, "the adapters must differ"


def test_requests_that_join_and_leave_in_the_middle_do_not_disturb_the_others(
    model: LoraModel, adapter_dirs: dict[str, Path], alone: Callable[..., str]
) -> None:
    one = model.load_adapter(adapter_dirs["one"])
    batcher = batch(model)
    first, short = Request(model, "first", tokens=20), Request(model, "short one", one, tokens=3)
    last = Request(model, "the last to come", one, tokens=12)
    for request in (first, short):
        batcher.submit(request.generation)
    for _ in range(5):
        batcher.step()
    assert short.finished == "length"
    run(batcher, last)
    assert first.text == alone(model, "first", None, 20)
    assert short.text == alone(model, "short one", "one", 3)
    assert last.text == alone(model, "the last to come", "one", 12)


def test_a_long_prompt_comes_in_chunks_while_others_go_on(
    model: LoraModel, alone: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batcher_module, "PROMPT_BUDGET", 16)
    batcher = batch(model)
    running, prompt = Request(model, "running", tokens=12), "a long prompt, " * 6
    batcher.submit(running.generation)
    batcher.step()
    long = Request(model, prompt, tokens=4)
    batcher.submit(long.generation)
    before = len(running.deltas)
    while not long.deltas:
        batcher.step()
    assert len(running.deltas) - before == 6, "90 tokens are 6 chunks of 16, and each step gave the other one a token"
    run(batcher)
    assert (running.text, long.text) == (alone(model, "running", None, 12), alone(model, prompt, None, 4))


def test_loading_an_adapter_changes_no_running_answer(
    model: LoraModel, adapter_dirs: dict[str, Path], alone: Callable[..., str]
) -> None:
    one = model.load_adapter(adapter_dirs["one"])
    batcher = batch(model)
    requests = [Request(model, "base"), Request(model, "tuned", one)]
    for request in requests:
        batcher.submit(request.generation)
    batcher.step()
    model.load_adapter(adapter_dirs["two"])
    run(batcher)
    assert [r.text for r in requests] == [alone(model, "base", None), alone(model, "tuned", "one")]


def test_an_unloaded_adapter_is_freed_only_when_its_last_request_ends(
    model: LoraModel, adapter_dirs: dict[str, Path], alone: Callable[..., str]
) -> None:
    one = model.load_adapter(adapter_dirs["one"])
    batcher = batch(model)
    request = Request(model, "hello", one)
    batcher.submit(request.generation)
    batcher.retire(one)
    batcher.start()
    batcher.call(lambda: None).result(timeout=10)
    while request.finished is None:
        batcher.call(lambda: None).result(timeout=10)
    batcher.call(lambda: None).result(timeout=10)
    batcher.stop()
    batcher.join(timeout=10)
    assert request.text == alone(model, "hello", "one")
    with pytest.raises(AdapterError, match="not loaded"):
        model.forward(0, [[1]], [0], [one])


def test_a_freed_row_gives_room_to_the_next_request(model: LoraModel, alone: Callable[..., str]) -> None:
    requests = [Request(model, f"request {n}", tokens=2 + n % 3) for n in range(7)]
    run(batch(model, rows=2), *requests)
    assert [r.text for r in requests] == [alone(model, f"request {n}", None, 2 + n % 3) for n in range(7)]


def test_no_more_adapters_share_a_pass_than_max_loras(model: LoraModel, adapter_dirs: dict[str, Path]) -> None:
    handles = [model.load_adapter(path) for path in adapter_dirs.values()]
    batcher = batch(model, adapters=1)
    requests = [Request(model, "x", handle) for handle in (handles[0], handles[1], handles[0], BASE)]
    for request in requests:
        batcher.submit(request.generation)
    batcher.step()
    assert [g.handle for g in batcher.running] == [handles[0], handles[0], BASE]
    run(batcher)
    assert all(request.finished == "length" for request in requests)


def test_an_aborted_request_leaves_and_the_others_stay_right(model: LoraModel, alone: Callable[..., str]) -> None:
    batcher = batch(model, rows=2)
    gone, stays, waits = (Request(model, text) for text in ("gone", "stays", "waits"))
    for request in (gone, stays, waits):
        batcher.submit(request.generation)
    batcher.step()
    gone.generation.aborted = waits.generation.aborted = True
    run(batcher)
    assert (gone.finished, waits.finished, len(waits.deltas)) == ("abort", "abort", 1)
    assert stays.text == alone(model, "stays", None)


def test_a_stop_string_and_the_end_token_both_end_with_stop(model: LoraModel, alone: Callable[..., str]) -> None:
    whole = alone(model, "hello", None)
    stopped = Request(model, "hello", stop=whole[3])
    run(batch(model), stopped)
    assert (stopped.text, stopped.finished) == (whole[: whole.index(whole[3])], "stop")
    model.end_tokens = frozenset([int(stopped.generation.last)])
    ended = Request(model, "hello")
    run(batch(model), ended)
    assert (ended.finished, ended.generation.generated) == ("stop", stopped.generation.generated)


def test_an_adapter_stored_in_float32_serves_on_a_base_in_bfloat16(
    base_dir: Path, adapter_dirs: dict[str, Path]
) -> None:
    model = LoraModel(base_dir, dtype=torch.bfloat16)
    one = model.load_adapter(adapter_dirs["one"])
    base, tuned = model.forward(0, [[5, 6], [5, 6]], [0, 0], [BASE, one])
    assert not torch.equal(base, tuned)


def test_an_adapter_whose_weights_are_another_model_s_is_refused_and_leaves_nothing(
    model: LoraModel, adapter_dirs: dict[str, Path], tmp_path: Path, alone: Callable[..., str]
) -> None:
    shutil.copytree(adapter_dirs["one"], tmp_path / "wrong")
    save_file(
        {"base_model.model.other.lora_A.weight": torch.zeros(4, 9)}, tmp_path / "wrong" / "adapter_model.safetensors"
    )
    with pytest.raises(AdapterError):
        model.load_adapter(tmp_path / "wrong")
    request = Request(model, "hello", model.load_adapter(adapter_dirs["two"]))
    run(batch(model), request)
    assert request.text == alone(model, "hello", "two")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        pytest.param({"r": 8}, "LoRA rank 8 is greater than max_lora_rank 4", id="too high a rank"),
        pytest.param({"use_dora": True}, "use_dora is set", id="DoRA"),
        pytest.param({"modules_to_save": ["lm_head"]}, "modules_to_save is set", id="whole modules"),
        pytest.param({"target_modules": ["embed_tokens", "q_proj"]}, "plain LoRA on linear layers", id="an embedding"),
        pytest.param({"lora_bias": True}, "plain LoRA on linear layers", id="a bias of the adapter"),
        pytest.param({"bias": "lora_only"}, "bias is lora_only", id="trained biases"),
    ],
)
def test_an_adapter_that_would_be_served_wrongly_is_refused(
    model: LoraModel, make_adapter: Callable[..., Path], config: dict[str, object], message: str
) -> None:
    with pytest.raises(AdapterError, match=message):
        model.load_adapter(make_adapter(**config))
