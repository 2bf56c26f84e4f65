"""`tuningfork`: what a person does to a job, a version or a rollout; also `kubectl tuningfork`.

A command's module is imported when it is called, so that `estimate` does not wait for a Kubernetes client. A new command is a line in
COMMANDS and a click command of its name in that module.
"""

from importlib import import_module
from typing import Final

import click

COMMANDS: Final = {
    "estimate": "estimate",
    "operator": "operator",
    "status": "rollouts",
    "tree": "rollouts",
    "watch": "rollouts",
    "promote": "rollouts",
    "abort": "rollouts",
    "retry": "rollouts",
}
"""Name of a command, and the module of this package that has it."""


class _OnDemand(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"tuningfork.cli.{COMMANDS[cmd_name]}"), cmd_name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_OnDemand)
def main() -> None:
    """TuningFork's command line."""
