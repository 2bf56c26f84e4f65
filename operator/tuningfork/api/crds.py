"""CRDs from the pydantic models: structural schemas, defaults, CEL rules, printer columns.

pydantic writes JSON Schema with references, titles and ``anyOf: [X, null]``; Kubernetes wants one inline type a field. The
translation is small and refuses what it does not know, so that a model which has no structural schema fails in a unit test and
not at ``kubectl apply``.
"""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel

from tuningfork.api._base import GROUP, VERSION, ApiModel, Rule
from tuningfork.api.finetunejob import FineTuneJob, FineTuneJobSpec
from tuningfork.api.modelversion import ModelVersion
from tuningfork.api.rollout import Rollout


class Column(NamedTuple):
    """A printer column of `kubectl get`."""

    name: str
    json_path: str
    type: str = "string"
    wide: bool = False


class Kind(NamedTuple):
    """What a CRD says beside its schema."""

    model: type[ApiModel]
    plural: str
    short_names: tuple[str, ...]
    name_limit: int
    columns: tuple[Column, ...]
    rules: tuple[Rule, ...] = ()


AGE = Column("Age", ".metadata.creationTimestamp", "date")


def _ready(path: str = "Ready") -> str:
    return f'.status.conditions[?(@.type=="{path}")].status'


def _name_rule(limit: int) -> Rule:
    return Rule(
        f"self.metadata.name.size() <= {limit} && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        f"metadata.name: at most {limit} characters of a-z, 0-9 and -, beginning with a letter (it becomes part of Service names)",
    )


_ALWAYS_MUTABLE = ("suspend", "retries")


def _job_immutability() -> Rule:
    """While a job is on its way its spec is fixed; a root rule, because a rule on an optional field is passed by removing it."""
    fields = [
        info.alias or name
        for name, info in FineTuneJobSpec.model_fields.items()
        if (info.alias or name) not in _ALWAYS_MUTABLE
    ]
    same = " && ".join(f"self.spec.{f} == oldSelf.spec.{f}" for f in fields)
    open_phases = "['Pending', 'Failed', 'Rejected', 'Suspended']"
    return Rule(
        f"!has(oldSelf.status) || !has(oldSelf.status.phase) || oldSelf.status.phase in {open_phases} || ({same})",
        "spec is immutable while the job runs and after it succeeded: set spec.suspend to true first, or create another job",
    )


KINDS: tuple[Kind, ...] = (
    Kind(
        FineTuneJob,
        "finetunejobs",
        ("ftj",),
        40,
        (
            Column("Phase", ".status.phase"),
            Column("Progress", ".status.progress.percent", "integer"),
            Column("Loss", ".status.progress.loss", "number"),
            Column("Version", ".status.modelVersion"),
            Column("Accelerator", ".status.sizing.accelerator", wide=True),
            Column("Message", ".status.message", wide=True),
            AGE,
        ),
        (
            _job_immutability(),
            Rule(
                "!self.spec.model.uri.startsWith('file:') && !self.spec.output.uri.startsWith('file:')"
                " && !self.spec.data.sources.exists(s, s.uri.startsWith('file:'))",
                "spec: a cluster reads s3:// only; file:// URIs are for tuningfork-trainer run",
            ),
        ),
    ),
    Kind(
        ModelVersion,
        "modelversions",
        ("mv",),
        50,
        (
            Column("Model", ".spec.model"),
            Column("Stage", ".status.stage"),
            Column("Verified", _ready("Verified")),
            Column("Digest", ".spec.artifact.digest", wide=True),
            Column("Message", ".status.message", wide=True),
            AGE,
        ),
    ),
    Kind(
        Rollout,
        "rollouts",
        ("tro",),
        40,
        (
            Column("Model", ".spec.model"),
            Column("Phase", ".status.phase"),
            Column("Stable", ".status.stable.version"),
            Column("Candidate", ".status.candidate.version"),
            Column("Step", ".status.step"),
            Column("Weights", ".status.weights"),
            Column("Ready", _ready()),
            Column("Message", ".status.message", wide=True),
            AGE,
        ),
    ),
)

_KEPT = ("description", "enum", "pattern", "format", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems",
         "maxProperties")  # fmt: skip


def _described(text: str) -> str:
    return " ".join(inspect.cleandoc(text).split())


def _without_none(value: Any) -> Any:
    """A default as it stands on the wire: absent, not null."""
    if isinstance(value, Mapping):
        return {key: _without_none(sub) for key, sub in value.items() if sub is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value


class _Translator:
    """Translates one model's JSON Schema; ``classes`` finds the CEL rules of referenced models."""

    def __init__(self, model: type[BaseModel]) -> None:
        self.schema = model.model_json_schema(by_alias=True, mode="validation")
        self.classes = {c.__name__: c for c in _reachable(model)}

    def node(self, node: Mapping[str, Any], path: str) -> dict[str, Any]:
        node, rules = self._resolved(node)
        out: dict[str, Any] = {key: node[key] for key in _KEPT if key in node}
        if "description" in out:
            out["description"] = _described(out["description"])
        for bound in ("exclusiveMinimum", "exclusiveMaximum"):
            if bound in node:
                out[bound.replace("exclusiveM", "m")] = node[bound]
                out[bound] = True
        out.update({key: value for key, value in node.items() if key.startswith("x-kubernetes-")})
        if node.get("default") is not None:
            out["default"] = _without_none(node["default"])
        kind = node.get("type")
        if kind == "object":
            self._object(node, out, path)
        elif kind == "array":
            out["type"] = "array"
            out["items"] = self.node(node["items"], path + "[]")
        elif kind in ("string", "boolean", "number", "integer"):
            out["type"] = kind
            if kind == "integer":
                out["format"] = "int64"
        elif "const" in node:
            out["type"] = "string"
            out["enum"] = [node["const"]]
        else:
            raise TypeError(f"{path}: {node} has no structural schema")
        if rules:
            out["x-kubernetes-validations"] = [rule_yaml(rule) for rule in rules]
        return out

    def _object(self, node: Mapping[str, Any], out: dict[str, Any], path: str) -> None:
        out["type"] = "object"
        if "properties" in node:
            out["properties"] = {name: self.node(sub, f"{path}.{name}") for name, sub in node["properties"].items()}
            if node.get("required"):
                out["required"] = list(node["required"])
            return
        extra = node.get("additionalProperties")
        if isinstance(extra, Mapping) and extra:
            out["additionalProperties"] = self.node(extra, path + ".*")
        else:
            out["x-kubernetes-preserve-unknown-fields"] = True

    def _resolved(self, node: Mapping[str, Any]) -> tuple[dict[str, Any], Iterable[Rule]]:
        """Follows $ref and optional; what stands beside the reference (description, default) wins."""
        node = dict(node)
        for key in ("anyOf", "allOf"):
            if key in node:
                choices = [c for c in node.pop(key) if c.get("type") != "null"]
                if len(choices) != 1:
                    raise TypeError(f"{choices} is more than one type")
                node = {**choices[0], **node}
        rules: Iterable[Rule] = ()
        if "$ref" in node:
            name = str(node.pop("$ref")).rsplit("/", 1)[1]
            target, _ = self._resolved(self.schema["$defs"][name])
            node = {**target, **node}
            cls = self.classes.get(name)
            rules = cls.cel_rules if cls else ()
        return node, rules


def _reachable(model: type[BaseModel]) -> set[type[ApiModel]]:
    """All API models that the model's fields mention."""
    found: set[type[ApiModel]] = set()
    todo: list[Any] = [model]
    while todo:
        item = todo.pop()
        todo.extend(get_args(item))
        if isinstance(item, type) and issubclass(item, ApiModel) and item not in found:
            found.add(item)
            todo.extend(info.annotation for info in item.model_fields.values())
    return found


def structural_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The inline structural schema of a model."""
    translator = _Translator(model)
    return translator.node(translator.schema, model.__name__)


def rule_yaml(rule: Rule) -> dict[str, Any]:
    """The rule as it stands in a CRD."""
    out = {"rule": rule.rule, "message": rule.message}
    if rule.field_path:
        out["fieldPath"] = rule.field_path
    return out


def build_crd(kind: Kind) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind."""
    name = kind.model.__name__
    translator = _Translator(kind.model)
    properties = translator.schema["properties"]
    root = {
        "type": "object",
        "description": _described(kind.model.__doc__ or ""),
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": translator.node(properties["spec"], "spec"),
            "status": translator.node(properties["status"], "status"),
        },
        "x-kubernetes-validations": [rule_yaml(r) for r in (_name_rule(kind.name_limit), *kind.rules)],
    }
    columns = [
        {"name": c.name, "type": c.type, "jsonPath": c.json_path} | ({"priority": 1} if c.wide else {})
        for c in kind.columns
    ]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": name,
                "listKind": f"{name}List",
                "plural": kind.plural,
                "singular": name.lower(),
                "shortNames": list(kind.short_names),
                "categories": ["tuningfork"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns,
                    "schema": {"openAPIV3Schema": root},
                }
            ],
        },
    }
