"""The command line of `devcluster`."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from localcluster import checks, cluster, images, programs, registry
from localcluster.settings import NODES
from localcluster.shell import DevclusterError


def _parser() -> argparse.ArgumentParser:
    """Returns the parser; each command holds what carries it out as `run`."""
    parser = argparse.ArgumentParser(
        prog="devcluster", description="A real Kubernetes cluster of two nodes on one machine."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], object], help_: str) -> Any:
        command = commands.add_parser(name, help=help_)
        command.set_defaults(run=run)
        return command

    check = add("check", _check, "name what the machine lacks, and what mends it")
    check.add_argument("--install", action="store_true", help="install the missing packages")
    add("build", lambda _: programs.build(), "compile the programs, once per machine")
    add("up", _up, "start what does not run")
    add("down", lambda _: cluster.down(), "end the cluster and remove its traces")
    add("status", lambda _: cluster.status(), "tell what runs")
    part = add("images", _images, "build the project's images and push them to the registry")
    part.add_argument("part", nargs="?", choices=["build", "push"], help="only this half")
    kill = add("kill-node", lambda a: cluster.kill_node(a.node), "end a node's processes at once")
    kill.add_argument("node", type=int, choices=NODES)
    start = add("start-node", lambda a: cluster.start_node(a.node), "start a node that was killed")
    start.add_argument("node", type=int, choices=NODES)
    restart = add("restart-apiserver", _restart, "end the API server, start it again")
    restart.add_argument("--signal", choices=["KILL", "TERM"], default="KILL")
    restart.add_argument("--away", type=float, default=0, metavar="SECONDS", help="time between")
    return parser


def _check(args: argparse.Namespace) -> bool:
    return checks.check(install=args.install)


def _up(_: argparse.Namespace) -> None:
    checks.require_essentials()
    cluster.up()


def _images(args: argparse.Namespace) -> None:
    if args.part != "push":
        images.build()
    if args.part != "build":
        registry.push()


def _restart(args: argparse.Namespace) -> None:
    grace = 5 if args.signal == "TERM" else 0
    cluster.restart_apiserver(grace=grace, seconds_away=args.away)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv` and returns the exit status."""
    args = _parser().parse_args(argv)
    os.environ["PATH"] += ":/usr/local/sbin:/usr/sbin:/sbin"  # `su` may leave them out.
    try:
        return 1 if args.run(args) is False else 0
    except DevclusterError as error:
        sys.stderr.write(f"devcluster: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("devcluster: interrupted; the same command goes on from here\n")
        return 130
