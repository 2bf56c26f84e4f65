"""How an object and what belongs to it look on a terminal; lines from objects, nothing is read here."""

from collections.abc import Iterable, Sequence

from tuningfork.planning.plan import Manifest


def headline(obj: Manifest) -> str:
    """The object, where it stands, and why, in one line."""
    status, meta = obj.get("status") or {}, obj["metadata"]
    stands = status.get("phase") or status.get("stage") or "Unknown"
    return f"{obj['kind']} {meta['namespace']}/{meta['name']}: {stands}: {status.get('message') or 'not seen by the operator yet'}"


def details(obj: Manifest) -> list[str]:
    """What else a person asks first."""
    status = obj.get("status") or {}
    lines = [f"  {c['type']:<14} {c['status']:<8} {c['reason']}" for c in status.get("conditions", ())]
    if obj["kind"] == "Rollout" and status.get("weights"):
        step = f", step {status['step']}" if status.get("step") else ""
        lines.append(f"  weights        {status['weights']}{step}")
        lines += [f"  {line}" for line in _metrics(status.get("metrics", ()))]
    if obj["kind"] == "FineTuneJob" and (progress := status.get("progress")):
        lines.append("  progress       " + ", ".join(f"{key} {value}" for key, value in progress.items()))
    return lines


def rollout_tree(obj: Manifest, deployments: Sequence[Manifest], pods: Sequence[Manifest]) -> list[str]:
    """Versions by track with their metrics, then what serves them."""
    status = obj.get("status") or {}
    branches: list[tuple[str, list[str]]] = []
    for track in status.get("tracks", ()):
        title = f"{track['name']}: {track['version']} {track['weight']} % ({track['slice']}, {track['state']})"
        own = [m for m in status.get("metrics", ()) if m["subject"] == track["version"]]
        branches.append((title, _metrics(own, subject=False)))
    for failed in status.get("failed", ()):
        took = failed.get("secondsToZero")
        back = f", back on stable after {took:g} s" if took is not None else ""
        branches.append((f"failed: {failed['version']} {failed['reason']}{back}", [failed["message"]]))
    for deployment in deployments:
        labels = deployment["spec"]["selector"]["matchLabels"].items()
        own_pods = [p for p in pods if labels <= p["metadata"].get("labels", {}).items()]
        ready, wanted = deployment.get("status", {}).get("readyReplicas", 0), deployment["spec"].get("replicas", 1)
        title = f"Deployment {deployment['metadata']['name']}: {ready}/{wanted} ready"
        branches.append((title, [_pod(p) for p in own_pods]))
    return [headline(obj), *_branches(branches)]


def job_tree(obj: Manifest, pods: Sequence[Manifest]) -> list[str]:
    """Attempts with their pods, then the version that came of it."""
    status = obj.get("status") or {}
    branches: list[tuple[str, list[str]]] = []
    for attempt in status.get("runs", ()):
        title = f"{attempt['stage']} {attempt['jobName']}: {attempt['outcome']} {attempt.get('message', '')}".rstrip()
        own = [p for p in pods if p["metadata"].get("labels", {}).get("job-name") == attempt["jobName"]]
        branches.append((title, [_pod(p) for p in own]))
    if status.get("modelVersion"):
        branches.append((f"ModelVersion {status['modelVersion']}", []))
    return [headline(obj), *_branches(branches)]


def version_tree(obj: Manifest) -> list[str]:
    """Where it comes from and who uses it."""
    spec, status = obj["spec"], obj.get("status") or {}
    job = spec.get("lineage", {}).get("job")
    branches: list[tuple[str, list[str]]] = [
        (f"artifact {spec['artifact']['uri']}", [spec["artifact"]["digest"]]),
        (f"base {spec['base']['uri']}", []),
        *([(f"FineTuneJob {job['name']}", [])] if job else []),
        *((f"Rollout {name}", []) for name in status.get("usedBy", ())),
    ]
    return [headline(obj), *_branches(branches)]


def _metrics(metrics: Iterable[Manifest], *, subject: bool = True) -> list[str]:
    return [f"{m['subject'] + ' ' if subject else ''}{m['verdict']}: {m.get('message') or m['name']}" for m in metrics]


def _pod(pod: Manifest) -> str:
    status = pod.get("status", {})
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ()))
    waiting = [c["state"]["waiting"]["reason"] for c in status.get("containerStatuses", ()) if "waiting" in c["state"]]
    stands = "ready" if ready else (waiting[0] if waiting else status.get("phase", "Unknown"))
    return f"Pod {pod['metadata']['name']}: {stands}"


def _branches(branches: Sequence[tuple[str, list[str]]]) -> Iterable[str]:
    for index, (title, leaves) in enumerate(branches):
        last = index + 1 == len(branches)
        yield f"{'└' if last else '├'}── {title}"
        trunk = "    " if last else "│   "
        for position, leaf in enumerate(leaves):
            yield f"{trunk}{'└' if position + 1 == len(leaves) else '├'}── {leaf}"
