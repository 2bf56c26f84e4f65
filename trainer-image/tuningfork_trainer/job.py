"""The job file: read, checked, and every mistake in it named by field, value and fix.

The API server checks CRDs by their schema and CEL rules; a job file on a laptop meets neither, so the rules that the schema
cannot say are stated here once more, in the same words.
"""

import difflib
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tuningfork.api.jobfile import JobFile
from tuningfork_trainer.errors import InvalidSpec

DATA_SUFFIXES = (".jsonl", ".json")


def load_job(path: Path) -> JobFile:
    """The job file; raises `InvalidSpec`."""
    try:
        raw = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise InvalidSpec(
            f"{path} cannot be read: {error.strerror}; give --job an existing FineTuneJob manifest"
        ) from error
    except yaml.YAMLError as error:
        raise InvalidSpec(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise InvalidSpec(f"{path} holds {type(raw).__name__}, not one FineTuneJob manifest")
    try:
        job = JobFile.model_validate(raw)
    except ValidationError as error:
        raise InvalidSpec("; ".join(_sentence(e) for e in error.errors()[:3])) from error
    check_job(job)
    return job


def check_job(job: JobFile) -> None:
    """The rules across fields."""
    split, evaluation = job.spec.data.split, job.spec.evaluation
    total = split.train + split.validation + split.test
    if not 0.999 < total < 1.001:
        raise InvalidSpec(f"spec.data.split: train, validation and test add up to {total:g}; they must add up to 1")
    if evaluation.gates and not evaluation.baseline:
        raise InvalidSpec("spec.evaluation.baseline is false, but a gate compares to Baseline; set it to true")
    if evaluation.gates and not split.test:
        raise InvalidSpec("spec.data.split.test is 0, but spec.evaluation.gates are decided on it; give it a share")
    names = [source.name for source in job.spec.data.sources]
    for index, source in enumerate(job.spec.data.sources):
        if names.index(source.name) != index:
            raise InvalidSpec(f"spec.data.sources[{index}].name: {source.name} is used twice; give each source its own")
        if not source.uri.endswith(DATA_SUFFIXES):
            raise InvalidSpec(
                f"spec.data.sources[{index}].uri: {source.uri} is neither a .jsonl nor a .json file; convert it to one"
            )


def _sentence(error: ErrorDetails) -> str:
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).lstrip(".")
    if error["type"] == "missing":
        return f"{field} is missing; add it"
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(error["loc"][-1]), _fields(error["loc"][:-1]), n=1)
        return f"{field} is no field" + (f"; did you mean {close[0]}?" if close else "; remove it")
    return f"{field}: {error['input']!r} is not accepted: {error['msg'][0].lower()}{error['msg'][1:]}"


def _fields(location: tuple[int | str, ...]) -> list[str]:
    """The field names of the model at a place of the job file."""
    model: Any = JobFile
    for part in location:
        if isinstance(part, int):
            continue
        found = {f.alias or name: f for name, f in model.model_fields.items()}.get(part)
        model = next((t for t in _types(found.annotation) if issubclass(t, BaseModel)), None) if found else None
        if model is None:
            return []
    return [f.alias or name for name, f in model.model_fields.items()]


def _types(annotation: Any) -> list[type]:
    """The classes inside an annotation such as ``list[Annotated[X, ...]] | None``."""
    if isinstance(annotation, type) and not getattr(annotation, "__args__", None):
        return [annotation]
    return [t for argument in getattr(annotation, "__args__", ()) for t in _types(argument)]
