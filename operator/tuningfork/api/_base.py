"""What every API model shares: naming, strictness, and the few scalar types of the API.

The pydantic models in this package are the only source of the API. CRDs, reference docs, the trainer's job file and the CLI
are derived from them, so a field's docstring is also its description in ``kubectl explain``. Fields are snake_case in Python
and camelCase on the wire.
"""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

GROUP: Final = "tuningfork.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = "tuningfork.dev/v1alpha1"


class Rule(NamedTuple):
    """A CEL rule of a CRD; ``message`` tells the user what to do, not only what is wrong."""

    rule: str
    message: str
    field_path: str | None = None


class ApiModel(BaseModel):
    """Base of all API types: unknown fields are refused, values never change after parsing."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )
    cel_rules: ClassVar[tuple[Rule, ...]] = ()

    def dump(self) -> dict[str, Any]:
        """The object as it stands on the wire: camelCase, absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def map_by(*keys: str) -> dict[str, Any]:
    """JSON-schema extra of a list whose entries are named: server-side apply then merges entries by their name."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


SET = {"x-kubernetes-list-type": "set"}
"""JSON-schema extra of a list without repeats."""

ATOMIC = {"x-kubernetes-list-type": "atomic"}
"""JSON-schema extra of a list that one writer replaces as a whole."""

DURATION_PATTERN = r"^([0-9]+(ms|s|m|h))+$"
_DURATION_PART = re.compile(r"([0-9]+)(ms|s|m|h)")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

Duration = Annotated[str, StringConstraints(pattern=DURATION_PATTERN, max_length=32)]
"""A length of time such as ``90s``, ``1h30m`` or ``500ms``."""

DnsLabel = Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=50)]
"""A DNS-1035 label; names of versions and models become parts of Service names and metric labels."""

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$", max_length=71)]

ArtifactUri = Annotated[str, StringConstraints(pattern=r"^(s3|file)://[^\s?#]+$", max_length=1024)]
"""``s3://bucket/prefix``, or ``file:///absolute/path`` for a run of the trainer without a cluster."""

Message = Annotated[str, StringConstraints(max_length=1024)]
"""One line for a person. Longer texts are cut by whoever writes the status."""

Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"}, max_length=40)]
"""RFC 3339, UTC, whole seconds: ``2026-01-31T12:00:00Z``."""


def timestamp(at: datetime) -> str:
    """A `Timestamp`."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    """The moment that a `Timestamp` names."""
    return datetime.fromisoformat(text)


def seconds(duration: str) -> float:
    """The length of a `Duration` in seconds."""
    if not re.match(DURATION_PATTERN, duration):
        raise ValueError(f"{duration!r} is not a duration; write it like 90s, 5m or 1h30m")
    return sum(int(number) * _UNIT_SECONDS[unit] for number, unit in _DURATION_PART.findall(duration))
