"""A real Llama of 0.1 million parameters with its own tokenizer and chat template: everything works as with a large one, in a second."""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
COLOURS = ("red", "green", "blue", "white", "black", "brown")
THINGS = ("apple", "leaf", "sea", "snow", "coal", "bear", "rose", "grass", "sky", "milk", "night", "wood")


def rows(count: int, shift: int = 0) -> list[dict[str, str]]:
    """Alpaca rows that a tiny model can learn; ``shift`` gives other answers to the same questions."""
    return [
        {
            "instruction": f"What colour has the {THINGS[n % len(THINGS)]} number {n}?",
            "input": "",
            "output": f"The {THINGS[n % len(THINGS)]} is {COLOURS[(n + shift) % len(COLOURS)]}.",
        }
        for n in range(count)
    ]


def jsonl(data: list[dict[str, str]]) -> bytes:
    """One row a line."""
    return "".join(json.dumps(row) + "\n" for row in data).encode()


def write_tiny_model(folder: Path) -> Path:
    """An ordinary Hugging Face checkpoint: config, safetensors, tokenizer, chat template."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(
        [row["instruction"] + row["output"] for row in rows(200)] + ["user assistant system"], trainer
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<|endoftext|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
