"""docs/reference.md from the models: what `kubectl explain` says, on one page, with limits, rules and reasons.

It reads the CRDs' own schemas and not the models behind them, so the page shows what the API server enforces.
"""

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any

from tuningfork.api._base import GROUP, VERSION
from tuningfork.api._meta import ANNOTATION_COMMANDS, CommonReason, Reason
from tuningfork.api.crds import KINDS, Kind, build_crd, structural_schema
from tuningfork.api.finetunejob import JobCondition, JobReason
from tuningfork.api.jobfile import EXIT_REASONS, PERMANENT, ExitCode
from tuningfork.api.modelversion import VersionCondition, VersionReason
from tuningfork.api.rollout import RolloutCondition, RolloutReason
from tuningfork.api.settings import Settings

Schema = Mapping[str, Any]

CONDITIONS: dict[str, tuple[type[StrEnum], type[Reason]]] = {
    "FineTuneJob": (JobCondition, JobReason),
    "ModelVersion": (VersionCondition, VersionReason),
    "Rollout": (RolloutCondition, RolloutReason),
}


def build_reference() -> str:
    """The whole page."""
    parts = [
        "# API reference",
        "<!-- Generated from operator/tuningfork/api by `make generate`; edit the models instead. -->",
        f"Group `{GROUP}`, version `{VERSION}`. Unknown fields are refused by `kubectl apply --validate=strict` and dropped"
        " otherwise. Limits are in base units (seconds, bytes, ratios).",
        *(part for kind in KINDS for part in _kind(kind)),
        *_commands(),
        *_exit_codes(),
        "## Settings",
        "The operator's settings file; the chart writes it from `settings` in its values, and adds `namespace`.",
        _fields(structural_schema(Settings)),
    ]
    return "\n\n".join(parts) + "\n"


def _kind(kind: Kind) -> Iterator[str]:
    name = kind.model.__name__
    crd = build_crd(kind)
    root = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    names = crd["spec"]["names"]
    yield f"## {name}"
    yield f"{root['description']} `kubectl get {names['shortNames'][0]}`, or `{crd['metadata']['name']}` in full."
    yield "### Spec"
    yield _fields(root["properties"]["spec"])
    yield "### Rules"
    yield "\n".join(f"- {message}" for message in _messages(root))
    yield "### Status"
    yield _fields(root["properties"]["status"])
    conditions, reasons = CONDITIONS[name]
    yield "### Conditions"
    yield f"Types: {', '.join(str(c) for c in conditions)}."
    yield _table(("Reason", "Means"), ((f"`{reason.name}`", reason.value) for reason in (*reasons, *CommonReason)))


def _commands() -> Iterator[str]:
    yield "## Commands"
    yield (
        "Annotations of a Rollout whose value is `<candidate>/<step>/<nonce>`. The value that was handled last stands in"
        " `status.handled`; an annotation is never removed, and never acts twice."
    )
    yield "\n".join(f"- `{annotation}`" for annotation in ANNOTATION_COMMANDS.values())


def _exit_codes() -> Iterator[str]:
    yield "## Exit status of the trainer"
    rows = (
        (str(code.value), f"`{EXIT_REASONS[code]}`" if code in EXIT_REASONS else "", _retry(code)) for code in ExitCode
    )
    yield _table(("Status", "Reason", "Then"), rows)


def _retry(code: ExitCode) -> str:
    if code is ExitCode.OK:
        return "done"
    if code in PERMANENT:
        return "never retried"
    return "retried, not counted" if code is ExitCode.INTERRUPTED else "retried, counted"


def _messages(node: Schema) -> Iterator[str]:
    """The messages of all rules below a node, outermost first."""
    yield from (rule["message"] for rule in node.get("x-kubernetes-validations", ()))
    for child in (*node.get("properties", {}).values(), node.get("items"), node.get("additionalProperties")):
        if isinstance(child, Mapping):
            yield from _messages(child)


def _fields(root: Schema) -> str:
    return _table(("Field", "Type", "Default", "Limits", "Description"), _rows(root, ""))


def _rows(node: Schema, prefix: str) -> Iterator[tuple[str, ...]]:
    required = node.get("required", ())
    for name, child in node["properties"].items():
        path = f"{prefix}{name}"
        default = "required" if name in required else _default(child)
        yield f"`{path}`", _type(child), default, _limits(child), child.get("description", "").replace("<", "\\<")
        inner = child.get("items", child.get("additionalProperties", child))
        if isinstance(inner, Mapping) and "properties" in inner:
            yield from _rows(inner, path + {"array": "[].", "object": "."}[child["type"]])


def _type(node: Schema) -> str:
    if node["type"] == "array":
        return f"list of {_type(node['items'])}"
    if isinstance(node.get("additionalProperties"), Mapping):
        return f"map of {_type(node['additionalProperties'])}"
    return str(node["type"])


def _default(node: Schema) -> str:
    """Objects are left out: the defaults of their fields follow in rows of their own."""
    default = node.get("default")
    if default is None or isinstance(default, Mapping) or default == [] or default == "":
        return ""
    return f"`{default}`" if isinstance(default, str) else f"`{_yaml(default)}`"


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {_yaml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_yaml(v) for v in value) + "]"
    return str(value)


def _limits(node: Schema) -> str:
    node = node["items"] | {k: v for k, v in node.items() if k != "items"} if node["type"] == "array" else node
    found = []
    if "enum" in node:
        found.append(", ".join(f"`{value}`" for value in node["enum"]))
    for bound, open_sign, closed_sign in (("minimum", ">", ">="), ("maximum", "<", "<=")):
        if bound in node:
            exclusive = node.get("exclusive" + bound.capitalize())
            found.append(f"{open_sign if exclusive else closed_sign} {node[bound]}")
    if "pattern" in node:
        found.append(f"`{node['pattern']}`")
    for key, text in (("maxLength", "characters"), ("maxItems", "entries"), ("maxProperties", "entries")):
        if key in node:
            found.append(f"at most {node[key]} {text}")
    return "; ".join(found)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
