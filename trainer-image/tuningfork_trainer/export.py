"""The export stage: an adapter that peft and vLLM load, with the tokeniser and chat template that it was trained with."""

import json
from pathlib import Path
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer

from tuningfork.api.artifacts import ARTIFACTS, Manifest
from tuningfork_trainer.folders import save_folder
from tuningfork_trainer.store import ObjectStore

KIND = "adapter"
REPORT = "report.json"


def write_adapter(model: Any, tokenizer: Any, base_uri: str, folder: Path) -> None:
    """Writes the adapter's files. The base is named by its URI, since its path here means nothing elsewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.peft_config["default"]
    config.base_model_name_or_path = base_uri
    model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's template of a model card, empty
    tokenizer.save_pretrained(folder)
    path = folder / "adapter_config.json"
    written = json.loads(path.read_bytes())
    written["target_modules"] = target_modules(model)  # peft writes a set, in another order every time
    path.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")


def publish(
    output: ObjectStore, attempt: int, folder: Path, *, report: dict[str, Any], attributes: dict[str, Any]
) -> Manifest:
    """Uploads the adapter and its report, the manifest last."""
    (folder / REPORT).write_text(json.dumps(report, indent=2, sort_keys=True, allow_nan=False) + "\n")
    return save_folder(output.at(f"{ARTIFACTS}/{attempt}"), folder, KIND, attributes)


def target_modules(model: Any) -> list[str]:
    """Names of the modules that have an adapter: the last parts of their paths where those say it all, as engines expect."""
    modules = dict(model.get_base_model().named_modules())
    adapted = {path for path, module in modules.items() if isinstance(module, BaseTunerLayer)}
    names = {path.rpartition(".")[2] for path in adapted}
    meant = {path for path in modules if path.rpartition(".")[2] in names}
    return sorted(names if meant == adapted else adapted)
