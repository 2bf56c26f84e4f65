"""`tuningfork operator`: the process that the chart runs."""

import asyncio
import logging
import os
import socket
import sys
from pathlib import Path

import click
import yaml
from pydantic import ValidationError

from tuningfork.api import Settings

LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


@click.command()
@click.option(
    "--settings", "settings_file", required=True, type=click.Path(path_type=Path), help="YAML file of the chart."
)
@click.option("--host", default="0.0.0.0", show_default=True, help="Address to listen on.")  # noqa: S104 - a pod
@click.option("--http-port", default=8080, show_default=True, help="Health and metrics.")
@click.option("--intake-port", default=9443, show_default=True, help="Progress of training pods (HTTPS).")
@click.option(
    "--log-level", default="INFO", show_default=True, envvar="LOG_LEVEL", help="DEBUG shows why nothing was done."
)
def operator(settings_file: Path, host: str, http_port: int, intake_port: int, log_level: str) -> None:
    """Runs the operator: reconciles while it holds the Lease, is a warm standby otherwise.

    Talks to the cluster of KUBECONFIG where that is set, else to the one that its pod runs in.
    """
    logging.basicConfig(level=log_level.upper(), format=LOG_FORMAT, stream=sys.stderr)
    settings = read_settings(settings_file)
    # The runtime pulls in kopf and the Kubernetes client; the other commands must not wait for them.
    from tuningfork.control.registry import build_controllers
    from tuningfork.control.run import Process, run_operator

    process = Process(identity=_identity(), host=host, http_port=http_port, intake_port=intake_port)
    try:
        asyncio.run(run_operator(settings, process, build_controllers))
    except Exception:
        logging.getLogger(__name__).exception("the operator ends")
        sys.exit(1)


def read_settings(path: Path) -> Settings:
    """The file's settings; what is wrong with them is said field by field."""
    try:
        values = yaml.safe_load(path.read_text())
        return Settings.model_validate(values or {})
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}: give a readable file with --settings") from error
    except yaml.YAMLError as error:
        raise click.ClickException(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}, got {e['input']!r}" for e in error.errors()
        ]
        raise click.ClickException(f"{path}: " + "; ".join(problems)) from error


def _identity() -> str:
    """<pod's name>_<pod's address>; a standby forwards progress to that address. Without a pod: this host and process."""
    name = os.environ.get("POD_NAME") or f"{socket.gethostname()}-{os.getpid()}"
    return f"{name}_{os.environ.get('POD_IP') or '127.0.0.1'}"
