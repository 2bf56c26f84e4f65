"""What sizing needs of a base model: its config.json and the bytes of its weights, without downloading them."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from tuningfork.planning.storage import ObjectNotFoundError
from tuningfork.providers.s3 import S3

CONFIG = "config.json"
WEIGHTS = ".safetensors"


class ModelFiles(NamedTuple):
    """A checkpoint as sizing sees it."""

    config: dict[str, Any]
    weight_bytes: int
    """Of its safetensors files; 0 when there are none."""


async def read_model(uri: str, s3: S3) -> ModelFiles:
    """Raises StorageError, or ValueError for a config.json that is no JSON object."""
    scheme, _, path = uri.partition("://")
    if scheme == "file":
        return _read_folder(Path(path))
    content = await s3.read(f"{uri.rstrip('/')}/{CONFIG}")
    sizes = await s3.sizes(uri)
    return ModelFiles(_parse(content, uri), sum(size for name, size in sizes.items() if name.endswith(WEIGHTS)))


def _read_folder(folder: Path) -> ModelFiles:
    try:
        content = (folder / CONFIG).read_bytes()
    except OSError as error:
        raise ObjectNotFoundError(f"{folder / CONFIG}: {error.strerror}") from error
    return ModelFiles(_parse(content, str(folder)), sum(f.stat().st_size for f in folder.glob(f"*{WEIGHTS}")))


def _parse(content: bytes, where: str) -> dict[str, Any]:
    try:
        config = json.loads(content)
    except ValueError as error:
        raise ValueError(f"{where}/{CONFIG} is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{where}/{CONFIG} is no JSON object")
    return config
