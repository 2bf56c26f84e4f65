"""Prometheus' HTTP API: one instant query. Every way to get no answer is a `ProviderError`, never an empty answer.

A value that is not a number (a quantile of nothing) is left out: no data is what it means. Warnings are kept and logged, because
Prometheus answers partly when a remote part of it is away.
"""

import json
import logging
from collections.abc import Mapping
from datetime import datetime
from math import isfinite
from typing import Any, Final

import aiohttp

from tuningfork.api.settings import PrometheusSettings
from tuningfork.delivery.queries import Sample
from tuningfork.providers import errors

logger = logging.getLogger(__name__)

QUERY_PATH: Final = "/api/v1/query"


class Prometheus:
    """One server, as the administrator configured it."""

    def __init__(self, settings: PrometheusSettings) -> None:
        self._url = settings.url
        self._seconds = settings.timeout_seconds

    async def query(self, expression: str, at: datetime) -> list[Sample]:
        """The instant vector of the expression; a scalar is a vector of one series without labels."""
        if not self._url:
            raise errors.PermanentError("no Prometheus is configured: set prometheus.url in the chart's values")
        timeout = aiohttp.ClientTimeout(total=self._seconds)
        form = {"query": expression, "time": f"{at.timestamp():.3f}", "timeout": f"{self._seconds:g}s"}
        try:
            async with (
                aiohttp.ClientSession(trust_env=False, timeout=timeout) as session,
                session.post(self._url.rstrip("/") + QUERY_PATH, data=form) as response,
            ):
                return parse_answer(response.status, await response.text())
        except TimeoutError as error:
            raise errors.TransientError(f"Prometheus: no answer within {self._seconds:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            text = errors.cut(str(error)) or type(error).__name__
            raise errors.TransientError(f"Prometheus does not answer: {text}") from error


def parse_answer(status: int, body: str) -> list[Sample]:
    """The samples of an answer; an error says what Prometheus said."""
    try:
        answer: Mapping[str, Any] = json.loads(body)
    except ValueError as error:
        raise errors.TransientError(f"Prometheus answers {status} and no JSON: {errors.cut(body)}") from error
    for warning in answer.get("warnings", ()):
        logger.warning("Prometheus warns: %s", errors.cut(str(warning)))
    if answer.get("status") != "success":
        said = f"{status} {answer.get('errorType', '')}: {errors.cut(str(answer.get('error', '')))}"
        kind = errors.InvalidError if answer.get("errorType") == "bad_data" else errors.TransientError
        raise kind(f"Prometheus refuses the query: {said}")
    data = answer["data"]
    match data["resultType"]:
        case "vector":
            samples = [Sample(item["metric"], float(item["value"][1])) for item in data["result"]]
        case "scalar":
            samples = [Sample({}, float(data["result"][1]))]
        case other:
            raise errors.InvalidError(f"the query gives a {other}; an instant vector or a scalar is needed")
    return [sample for sample in samples if isfinite(sample.value)]
