"""The commands of hack/cluster. Each is a few lines: choose the provider, call it, say what happened."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from devcluster import gobuild, info, providers, simulated, tools
from devcluster.console import ClusterError, say
from devcluster.daemons import Daemons

CHECKOUT = Path(__file__).resolve().parent.parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        status: int = options.command(options)
    except ClusterError as error:
        say(f"hack/cluster: {error}")
        return 1
    except KeyboardInterrupt:
        say("hack/cluster: interrupted; run the same command again")
        return 130
    return status


def up(_: argparse.Namespace) -> int:
    provider = providers.select()
    say(f"development cluster ({provider.name})")
    cluster = provider.up()
    simulated.revive(cluster, Daemons(provider.state))
    written = info.write(cluster, CHECKOUT)
    info.warn_unreadable(cluster, CHECKOUT)
    say(f"  ready: export KUBECONFIG={written['kubeconfig']}")
    return 0


def down(_: argparse.Namespace) -> int:
    providers.select().down()
    for name in ("kubeconfig", "info.json"):
        (CHECKOUT / ".cluster" / name).unlink(missing_ok=True)
    return 0


def show_info(_: argparse.Namespace) -> int:
    print(json.dumps(info.write(providers.select().find(), CHECKOUT), indent=2))
    return 0


def status(_: argparse.Namespace) -> int:
    provider = providers.select()
    if not provider.exists():
        print("no cluster runs on this machine; `hack/cluster up` starts one")
        return 1
    checks = provider.checks()
    width = max(len(check.name) for check in checks)
    for check in checks:
        print(f"{'ok  ' if check.healthy else 'BAD '} {check.name:<{width}}  {check.detail}".rstrip())
    print(f"provider {provider.name}; logs in {provider.state / 'logs'}")
    return 0 if all(check.healthy for check in checks) else 1


def build(options: argparse.Namespace) -> int:
    chosen = [tools.BY_NAME[name] for name in options.tools] or tools.ALL
    for tool in chosen:
        place = gobuild.ensure(tool)
        for name in tool.binaries:
            print(place / name)
    return 0


def nodes(options: argparse.Namespace) -> int:
    request = simulated.Request.parse(options.gpu) if options.gpu else None
    provider = providers.select()
    cluster = provider.find()
    if options.real:
        simulated.set_real_capacity(cluster, None if options.number == 0 else request)
        return 0
    daemons = Daemons(provider.state)
    if options.number == 0 and request is None:
        simulated.remove_all(cluster, daemons)
        return 0
    if options.number is None or request is None:
        raise ClusterError("Say how many and with which GPUs: `hack/cluster nodes 3 --gpu nvidia-a100-80gb:8`.")
    simulated.set_nodes(cluster, daemons, options.number, request)
    return 0


def load_image(options: argparse.Namespace) -> int:
    if not options.archive.is_file():
        raise ClusterError(f"{options.archive} is not a file. Make one with `docker save` or `buildah push`.")
    providers.select().load_image(options.archive)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hack/cluster", description="The development cluster.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    for name, function, text in (
        ("up", up, "start the cluster, or attach to the one that runs; writes .cluster/"),
        ("down", down, "end the cluster and remove all that it made"),
        ("status", status, "what is well and what is not; exit status 1 when something is not"),
        ("info", show_info, "addresses, credentials and the thin pod fragment as JSON; writes .cluster/ again"),
    ):
        commands.add_parser(name, help=text, description=text).set_defaults(command=function)

    text = "build programs from Go modules without starting anything; prints their paths"
    builder = commands.add_parser("build", help=text, description=text)
    builder.add_argument(
        "tools", nargs="*", metavar="TOOL", choices=[*tools.BY_NAME, []], help=", ".join(tools.BY_NAME)
    )
    builder.set_defaults(command=build)

    text = "make exactly NUMBER simulated nodes with such GPUs; 0 without --gpu removes all of them"
    adder = commands.add_parser("nodes", help=text, description=simulated.__doc__)
    adder.add_argument("number", nargs="?", type=int, metavar="NUMBER")
    adder.add_argument("--gpu", metavar="NAME:COUNT", help="for instance nvidia-a100-80gb:8")
    adder.add_argument(
        "--real", action="store_true", help="give the real node simulated GPUs instead; 0 takes them away"
    )
    adder.set_defaults(command=nodes)

    text = "make the images of a docker archive known to the node"
    loader = commands.add_parser("load-image", help=text, description=text)
    loader.add_argument("archive", type=Path, metavar="FILE.tar")
    loader.set_defaults(command=load_image)
    return parser
