"""Reading FineTuneJob manifests for commands."""

from pathlib import Path

import click
import yaml
from pydantic import ValidationError

from tuningfork.api import FineTuneJob


def read_job(path: Path) -> FineTuneJob:
    """The first FineTuneJob of a YAML file; what is wrong with it is said field by field."""
    try:
        documents = [doc for doc in yaml.safe_load_all(path.read_text()) if isinstance(doc, dict)]
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}; give a readable file with -f") from error
    except yaml.YAMLError as error:
        raise click.ClickException(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    manifest = next((doc for doc in documents if doc.get("kind") == "FineTuneJob"), None)
    if manifest is None:
        kinds = ", ".join(str(doc.get("kind")) for doc in documents) or "nothing"
        raise click.ClickException(f"{path} holds {kinds}; give a file with a FineTuneJob")
    try:
        return FineTuneJob.model_validate({**manifest, "status": None})
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}, got {e['input']!r}" for e in error.errors()]
        raise click.ClickException(f"{path}: " + "; ".join(problems)) from error
