"""`tuningfork`: what a person does to a job, a version or a rollout; also `kubectl tuningfork`."""

import click


@click.group()
def main() -> None:
    """TuningFork's command line."""
