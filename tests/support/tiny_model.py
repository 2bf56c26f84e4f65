"""A real model that trains in seconds, data that it can learn, and the job that says so.

The checkpoint is a Llama of two layers with a byte-pair tokeniser and a ChatML template. Like SmolLM2 it pads with its own stop
token, which is what careless label masks trip over.
"""

import copy
import json
from pathlib import Path
from typing import Any

import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

Manifest = dict[str, Any]

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
COLOURS = ("red", "green", "blue", "black", "white")
THINGS = ("the car", "the house", "the bird", "the river", "the book", "the door", "the lamp", "the ship")


def make_rows(count: int = 40) -> list[Manifest]:
    """Alpaca rows without duplicates; each answer follows from its question."""
    pairs = [(thing, place) for place in range(count // len(THINGS) + 1) for thing in THINGS][:count]
    return [
        {
            "instruction": f"What colour is {thing} number {n}?",
            "output": f"It is {COLOURS[n % len(COLOURS)]}, like all.",
        }
        for thing, n in pairs
    ]


def write_jsonl(path: Path, rows: list[Any]) -> str:
    """Writes rows and returns the file's URI; text rows stand as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path.as_uri()


def make_tokenizer(template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """Byte-level BPE, trained on the rows themselves."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((json.dumps(row) for row in make_rows()), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", "<|endoftext|>"],
    )
    fast.chat_template = template
    return fast


def make_checkpoint(folder: Path, **config: Any) -> Path:
    """Saves the tiny model as an ordinary checkpoint."""
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            **{
                "vocab_size": len(tokenizer),
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "max_position_embeddings": 256,
                "initializer_range": 0.3,  # with the usual 0.02 and tied embeddings no adapter could make a confident model
                "tie_word_embeddings": True,
                "eos_token_id": tokenizer.eos_token_id,
                "pad_token_id": None,  # torch would zero the row of the padding token, which is the stop token here
                "bos_token_id": None,
                **config,
            }
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_job(model: str, data: str, *, run: Manifest | None = None, **changes: Any) -> Manifest:
    """A job of 12 small steps. ``changes`` are fields of its spec with __ for the dot."""
    spec: Manifest = {
        "model": {"uri": model},
        "method": {"lora": {"rank": 4, "alpha": 8}},
        "data": {
            "sources": [{"name": "colours", "uri": data}],
            "split": {"train": 0.8, "validation": 0.1, "test": 0.1},
        },
        "training": {"maxSteps": 12, "effectiveBatchSize": 8, "maxSequenceLength": 128, "learningRate": 0.02},
        "checkpoints": {"everySteps": 5, "keep": 2},
        "output": {"uri": "s3://models/runs"},
    }
    for path, value in changes.items():
        *parents, field = path.split("__")
        target = spec
        for parent in parents:
            target = target.setdefault(parent, {})
        target[field] = copy.deepcopy(value)
    job = {
        "apiVersion": "tuningfork.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "colours", "namespace": "ml"},
        "spec": spec,
    }
    return job | ({"run": run} if run else {})


def write_job(path: Path, job: Manifest) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(job))
    return path
