"""Checkpoints in the object store: complete or absent, newest first, whichever attempt wrote them.

A checkpoint is what transformers' Trainer needs to go on bit by bit: adapter, optimizer, scheduler, random generators, position.
Its other files are dropped: training_args.bin is a pickle of a class, the tokeniser is the model's.
"""

import json
import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuningfork.api.artifacts import CHECKPOINTS, MANIFEST
from tuningfork_trainer.errors import DigestMismatch, ObjectNotFound
from tuningfork_trainer.folders import fetch_folder, read_manifest, remove_folder, save_folder
from tuningfork_trainer.store import ObjectStore

log = logging.getLogger(__name__)

KIND = "checkpoint"
FILES = {
    *("adapter_config.json", "adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "scaler.pt"),
    *("rng_state.pth", "trainer_state.json"),
}
_PATH = re.compile(r"(\d+)/step-(\d+)/")


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint on this machine."""

    attempt: int
    step: int
    folder: Path

    def history(self) -> list[dict[str, Any]]:
        """What was logged up to it."""
        history: list[dict[str, Any]] = json.loads((self.folder / "trainer_state.json").read_bytes())["log_history"]
        return history


class Checkpoints:
    """The checkpoints of one run. ``data_digest`` ties them to the examples that they have seen."""

    def __init__(self, output: ObjectStore, attempt: int, keep: int, data_digest: str):
        self._store = output.at(CHECKPOINTS)
        self._attempt, self._keep, self._data_digest = attempt, keep, data_digest

    def save(self, folder: Path, step: int) -> None:
        """Uploads what Trainer wrote and then lets go of older ones."""
        for path in folder.iterdir():
            if path.name not in FILES:
                path.unlink()
        store = self._store.at(f"{self._attempt}/step-{step}")
        save_folder(store, folder, KIND, {"step": step, "data": self._data_digest})
        log.info("checkpoint: step %s saved", step)
        self._prune()

    def restore(self, target: Path) -> Checkpoint | None:
        """The newest complete checkpoint that is what its manifest says."""
        for step, attempt in self._complete():
            store = self._store.at(f"{attempt}/step-{step}")
            folder = target / f"checkpoint-{step}"
            try:
                manifest = read_manifest(store)
                if manifest is None:
                    continue
                if manifest.attributes.get("data") != self._data_digest:
                    log.warning("checkpoint: step %s of attempt %s belongs to other data, skipped", step, attempt)
                    continue
                shutil.rmtree(folder, ignore_errors=True)
                fetch_folder(store, manifest, folder)
            except (DigestMismatch, ObjectNotFound) as error:
                log.warning(
                    "checkpoint: step %s of attempt %s is damaged, trying the one before: %s", step, attempt, error
                )
                continue
            return Checkpoint(attempt, step, folder)
        return None

    def _complete(self) -> list[tuple[int, int]]:
        """(step, attempt) of every folder with a manifest, newest first."""
        paths = (
            _PATH.fullmatch(name.removesuffix(MANIFEST)) for name in self._store.sizes() if name.endswith(MANIFEST)
        )
        return sorted(((int(m[2]), int(m[1])) for m in paths if m), reverse=True)

    def _prune(self) -> None:
        """Removes all but the newest, and what was never completed: nobody but this process writes here now."""
        kept = {f"{attempt}/step-{step}/" for step, attempt in self._complete()[: self._keep]}
        found = {match[0] for name in self._store.sizes() if (match := _PATH.match(name))}
        for path in sorted(found - kept):
            remove_folder(self._store.at(path.rstrip("/")))
