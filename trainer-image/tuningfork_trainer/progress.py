"""Progress: posted to the intake from a thread, and printed as a line a step for whoever watches.

The thread keeps only the latest report and posts at most one a second with a short timeout. Nothing here can slow training down
or make it fail: an intake that is dead, slow or refuses costs a log line, once.
"""

import json
import logging
import math
import ssl
import threading
import urllib.request
from pathlib import Path

from tuningfork.api.jobfile import Intake, ProgressReport

log = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between two posts."""
TIMEOUT = 2.0


class Progress:
    """The run's progress so far. Without an intake it only remembers."""

    def __init__(self, namespace: str, job: str, attempt: int, intake: Intake | None):
        self._report = ProgressReport(namespace=namespace, job=job, attempt=attempt, stage="fetch")
        self._poster = _Poster(intake) if intake else None

    @property
    def stage(self) -> str:
        return self._report.stage

    def enter(self, stage: str) -> None:
        """A new stage; its steps are unknown yet, those of training stay."""
        log.info("stage: %s", stage)
        self.update(stage=stage)

    def update(self, **changes: object) -> None:
        """Changes some fields; numbers that are not finite are left out, as JSON has none."""
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in changes.items()}
        self._report = self._report.model_copy(update=finite)
        if self._poster:
            self._poster.offer(self._report)

    def close(self) -> None:
        """Posts what is left, within the timeout."""
        if self._poster:
            self._poster.close()


class _Poster:
    """The thread."""

    def __init__(self, intake: Intake):
        self._intake = intake
        self._latest: ProgressReport | None = None
        self._wake = threading.Condition()
        self._closing = False
        self._complained = False
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()

    def offer(self, report: ProgressReport) -> None:
        with self._wake:
            self._latest = report
            self._wake.notify()

    def close(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(timeout=2 * TIMEOUT)

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._latest is not None or self._closing)
                report, self._latest = self._latest, None
            if report is None:
                return
            self._post(report)
            with self._wake:
                self._wake.wait_for(lambda: self._closing, timeout=INTERVAL)

    def _post(self, report: ProgressReport) -> None:
        try:
            self._send(report)
        except Exception as error:  # noqa: BLE001 - progress must never end a run
            if not self._complained:
                log.warning("progress: %s does not accept reports (%s); training goes on", self._intake.url, error)
                self._complained = True
        else:
            self._complained = False

    def _send(self, report: ProgressReport) -> None:
        """One post. Token and authority are read anew: the kubelet replaces both while the pod runs."""
        headers = {"Content-Type": "application/json"}
        if self._intake.token_file:
            headers["Authorization"] = f"Bearer {Path(self._intake.token_file).read_text().strip()}"
        context = ssl.create_default_context(cafile=self._intake.ca_file)
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),  # the intake is inside the cluster, a proxy is not
            urllib.request.HTTPSHandler(context=context),
        )
        body = json.dumps(report.dump()).encode()
        request = urllib.request.Request(self._intake.url, body, headers, method="POST")  # noqa: S310 - https by the job file
        with opener.open(request, timeout=TIMEOUT) as answer:
            answer.read()


class Speed:
    """Tokens a second and time left, measured over the last steps so that a slow start is forgotten."""

    def __init__(self, window: int = 20):
        self._window = window
        self._marks: list[tuple[float, int, int]] = []

    def mark(self, step: int, tokens: int, now: float) -> None:
        """``tokens`` so far, ``now`` by any clock that never goes back."""
        self._marks.append((now, step, tokens))
        del self._marks[: -self._window]

    def measure(self, total_steps: int) -> tuple[float | None, int | None]:
        """(tokens a second, seconds left); None before two marks."""
        if len(self._marks) < 2:
            return None, None
        (start, first, before), (end, last, after) = self._marks[0], self._marks[-1]
        if end <= start or last <= first:
            return None, None
        return (after - before) / (end - start), round((total_steps - last) * (end - start) / (last - first))
