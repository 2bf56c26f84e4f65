"""The chart's lint finds what it is for."""

from chart import Manifest, render
from lint_chart import problems, schema_problems


def deployment() -> Manifest:
    return next(o for o in render() if o["kind"] == "Deployment")


def test_the_chart_is_clean() -> None:
    assert list(problems()) == []


def test_a_misspelt_field_is_found_with_its_place() -> None:
    manifest = deployment()
    manifest["spec"]["template"]["spec"]["containers"][0]["livenessProb"] = {}
    (problem,) = schema_problems(manifest)
    assert problem.startswith("Deployment tuningfork: spec.template.spec.containers.0: ")
    assert "'livenessProb' was unexpected" in problem


def test_a_wrong_type_is_found_with_its_place() -> None:
    manifest = deployment()
    manifest["spec"]["replicas"] = "two"
    (problem,) = schema_problems(manifest)
    assert problem.startswith("Deployment tuningfork: spec.replicas: 'two' is not of type")


def test_a_kind_that_kubernetes_does_not_have_is_found() -> None:
    (problem,) = schema_problems({"apiVersion": "apps/v2", "kind": "Deployment", "metadata": {"name": "x"}})
    assert problem.startswith("Deployment x: ")
