"""The demo's end: what is proven, as checks and as tables."""

import json
import urllib.parse
import urllib.request
from typing import Any

from rich.table import Table

from demo.environment import Environment, Manifest
from demo.scenario import JOBS, NAMESPACE, NotShown, Shown
from demo.story import Story
from tuningfork.api import parse_time


def check_users(story: Story, shown: Shown) -> None:
    """No request of the whole demo failed."""
    assert shown.traffic is not None
    tally = shown.traffic.tally
    if tally.failed:
        raise NotShown(f"{len(tally.failed)} client requests failed, the first: {tally.failed[0]}")
    story.say(
        f"{tally.answered} requests, none failed; median {sorted(tally.latencies)[len(tally.latencies) // 2]:.2f} s"
    )


def check_dashboard(story: Story, env: Environment) -> None:
    """Every panel of the Grafana dashboard has data."""
    from dashboard import DASHBOARD, panel_queries

    panels = panel_queries(json.loads(DASHBOARD.read_text()))
    silent = [panel for panel, expr in panels if not query(env, expr)]
    if silent:
        raise NotShown(f"panels without data: {', '.join(silent)}")
    story.say(f"Grafana: all {len(panels)} queries of the dashboard have data")


def query(env: Environment, expr: str) -> list[Any]:
    """The result of an instant query."""
    url = f"{env.info['prometheus']['url']}/api/v1/query?{urllib.parse.urlencode({'query': expr})}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the cluster is not on the internet
    with opener.open(url, timeout=10) as reply:
        result: list[Any] = json.load(reply)["data"]["result"]
    return result


def check_argo(story: Story, shown: Shown, versions: list[Manifest]) -> None:
    """The health that Argo CD derives from the statuses of this demo."""
    from argocd import health as argo_health

    last = list(shown.rollouts)[-1]
    expected = [("FineTuneJob", shown.jobs[name], "Healthy") for name in JOBS]
    expected += [("ModelVersion", version, "Healthy") for version in versions]
    expected += [
        ("Rollout", rollout, "Degraded" if name == last else "Healthy") for name, rollout in shown.rollouts.items()
    ]
    for kind, obj, health in expected:
        got = argo_health(obj)
        if got["status"] != health:
            raise NotShown(
                f"Argo CD would call {kind} {obj['metadata']['name']} {got['status']}, not {health}: {got.get('message')}"
            )
    story.say(
        f"Argo CD: health of {len(expected)} recorded objects is as it should be (the stopped rollout is Degraded)"
    )


def print_tables(story: Story, env: Environment, shown: Shown) -> None:
    """Losses, sizing, weights over time, and where to look next."""
    jobs = Table(title="Jobs", title_justify="left")
    for column in ("job", "rows kept", "loss", "perplexity", "predicted memory", "version"):
        jobs.add_column(column, no_wrap=True)
    for name, job in shown.jobs.items():
        status = job["status"]
        evaluation, sizing = status["evaluation"], status["sizing"]
        jobs.add_row(
            name,
            f"{status['data']['kept']}/{status['data']['read']}",
            f"{status['progress']['loss']:.2f}",
            f"{evaluation['baseline']['perplexity']:.1f} > {evaluation['tuned']['perplexity']:.1f}",
            f"{sizing['perGpuBytes'] / 2**30:.1f} GiB, {sizing['accelerator']}",
            status["modelVersion"],
        )
    story.console.print(jobs)
    rollout = list(shown.rollouts.values())[-1]["status"]
    weights = Table(title="Weights over time", title_justify="left")
    for column in ("at", "split", "why"):
        weights.add_column(column)
    for entry in rollout["history"]:
        weights.add_row(
            entry["at"][11:19], " / ".join(f"{k} {v}" for k, v in entry["weights"].items()), entry.get("why", "")
        )
    story.console.print(weights)
    print_rollback(story, shown, rollout)
    story.console.print(
        "\nWhere to look next: kubectl get tuningfork -n ml; tuningfork status tro/support -n ml; "
        f"Prometheus {env.info['prometheus']['url']}; the dashboard charts/tuningfork/files/dashboard.json; docs/how-it-works.md",
        soft_wrap=True,
    )


def print_rollback(story: Story, shown: Shown, status: Manifest) -> None:
    """How long the bad version had users."""
    assert shown.traffic is not None
    tally, bad = shown.traffic.tally, status["failed"][-1]
    version = bad["version"]
    ratings = Table(title="What users said", title_justify="left")
    for column in ("version", "good answers", "bad answers"):
        ratings.add_column(column)
    for name in sorted({v for v, _ in tally.rated}):
        ratings.add_row(name, str(tally.rated[name, "up"]), str(tally.rated[name, "down"]))
    story.console.print(ratings)
    if version not in tally.first_down:
        raise NotShown(f"no user saw a bad answer of {version}; what stopped it?")
    zero = parse_time(bad.get("firstFailureAt") or bad["at"]).timestamp() + bad["secondsToZero"]
    story.console.print(
        f"[bold]From the first bad answer of {version} to weight 0 on every router: {zero - tally.first_down[version]:.0f} s[/bold]; "
        f"{bad['secondsToZero']:.1f} s of them after the first failed measurement. "
        f"Its last answer came {tally.last_seen[version] - tally.first_down[version]:.0f} s after its first bad one.",
        soft_wrap=True,
    )


def model_versions(env: Environment) -> list[Manifest]:
    """All versions of the demo."""
    return env.items("modelversions.tuningfork.dev", NAMESPACE)
