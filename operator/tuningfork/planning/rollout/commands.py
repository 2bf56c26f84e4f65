"""Commands of a person: annotations ``tuningfork.dev/<verb>: <candidate>/<step>/<nonce>``.

They are never deleted, because Git may own the metadata; the value handled last stands in status instead. A command that fits nothing
when it is first seen is handled too, so that it can never act later on a walk that its author did not see.
"""

from typing import NamedTuple

from tuningfork.api._meta import ANNOTATION_COMMANDS
from tuningfork.planning.rollout.draft import Draft
from tuningfork.planning.rollout.observed import RolloutObserved

_ORDER = ("abort", "retry", "promote-full", "promote")
"""Abort beats promote."""


class Command(NamedTuple):
    """A command that was not handled yet."""

    verb: str
    version: str
    step: int


def take_commands(observed: RolloutObserved, draft: Draft) -> list[Command]:
    """The new commands, the most careful first; all of them count as handled."""
    annotations = observed.rollout.metadata.annotations
    taken = []
    for verb in _ORDER:
        value = annotations.get(ANNOTATION_COMMANDS[verb])
        if not value or draft.handled.get(verb) == value:
            continue
        draft.handled[verb] = value
        version, _, rest = value.partition("/")
        step, _, nonce = rest.partition("/")
        if version and step.isdigit() and nonce:
            taken.append(Command(verb, version, int(step)))
        else:
            draft.warning(
                "CommandIgnored",
                f"annotation {ANNOTATION_COMMANDS[verb]}: {value!r} is not <candidate>/<step>/<nonce>;"
                f" use: tuningfork {verb} tro/{observed.name}",
            )
    return taken


def ignored(draft: Draft, command: Command, why: str = "nothing there to act on") -> None:
    """Tells the author that nothing happened."""
    draft.warning("CommandIgnored", f"{command.verb} of {command.version} at step {command.step + 1}: {why}")
