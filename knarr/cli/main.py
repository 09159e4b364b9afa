"""The command `knarr`: which commands there are, and the flags of each.

This module imports nothing heavy: each command loads what it needs when it is chosen, so that `knarr up` is at work,
and `knarr status` is done, before a user notices a wait. For the same reason flags are parsed by argparse: importing a
command-line framework takes a tenth of the whole start.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from knarr import __version__
from knarr.cli.exit_codes import FAILED, OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; answers its exit code."""
    # Python's own cache of compiled modules, also where the environment turns it off (as images for Python often do):
    # a checkout would be compiled again at each start, which takes longer than all the rest of it.
    sys.dont_write_bytecode = False
    parsed = _parser(sys.argv[1:] if arguments is None else arguments).parse_args(arguments)
    try:
        return _run(parsed)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output went away
        sys.stderr.close()
        return 141
    except OSError as error:
        from knarr.cli.failures import described

        print(f"knarr: {described(error)}", file=sys.stderr)
        return FAILED


def _run(parsed: argparse.Namespace) -> int:
    command = parsed.command
    if command == "version":
        print(f"knarr {__version__}")
        return OK
    if command == "up":
        from knarr.cli.up import up

        return up(parsed)
    if command == "status":
        from knarr.cli.status import status

        return status(parsed.data_dir, as_json=parsed.output == "json")
    if command == "down":
        from knarr.cli.down import down

        return down(parsed)
    if command == "image":
        from knarr.cli.image import image

        return image(parsed)
    if command == "node":
        from knarr.cli.node import node

        return node(parsed)
    if command == "proxy":
        from knarr.cli.proxy import proxy

        return proxy(parsed)
    if command == "token":
        from knarr.cli.token import token

        return token(parsed)
    from knarr.cli.apply import apply

    return apply(parsed.filename, namespace=parsed.namespace, kubeconfig=parsed.kubeconfig)


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="knarr", description="Kubernetes you can carry.")
    parser.add_argument("--version", action="version", version=f"knarr {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_up(commands.add_parser("up", help="start the cluster on this machine"), filled="up" in arguments)

    _add_node(commands.add_parser("node", help="make this machine a node of a cluster that runs on another"))
    _add_token(commands.add_parser("token", help="tokens by which other machines join the cluster"))

    status = commands.add_parser("status", help="say how the cluster is; exit code 0 when ready, 3 when not running")
    _add_data_dir(status)
    status.add_argument("-o", "--output", choices=["text", "json"], default="text")

    down = commands.add_parser("down", help="stop the cluster and remove its containers, network and kernel rules")
    _add_data_dir(down)
    kept = down.add_mutually_exclusive_group()
    kept.add_argument("--keep", action="store_true", help="stop the cluster but leave its containers running")
    kept.add_argument("--purge", action="store_true", help="also delete the data and the kubeconfig's entries")

    _add_proxy(commands.add_parser("proxy", help="only the service rules of this machine, for a cluster of any make"))

    image = commands.add_parser("image", help="images on this node")
    actions = image.add_subparsers(dest="action", required=True, metavar="ACTION")
    load = actions.add_parser("load", help="take images from a `docker save` or OCI archive")
    load.add_argument("file", nargs="+", metavar="FILE")
    pull = actions.add_parser("pull", help="fetch an image from its registry")
    pull.add_argument("image", metavar="IMAGE")
    actions.add_parser("list", help="images that are here").add_argument("-o", "--output", choices=["text", "json"])
    remove = actions.add_parser("rm", help="remove images")
    remove.add_argument("image", nargs="+", metavar="IMAGE")
    for action in actions.choices.values():
        _add_data_dir(action)

    apply = commands.add_parser("apply", help="create objects from files, or bring them to what the files say")
    apply.add_argument("-f", "--filename", action="append", required=True, metavar="FILE", help="file, folder or -")
    apply.add_argument("-n", "--namespace", default="", help="for objects that name none")
    apply.add_argument("--kubeconfig", default="", metavar="FILE")

    commands.add_parser("version", help="print the version")
    return parser


def _add_up(parser: argparse.ArgumentParser, *, filled: bool) -> None:
    """The flags of `up`, from `knarr.config`, which is imported only when it is `up` that runs."""
    parser.add_argument("--config", metavar="FILE", help="YAML file of settings; flags win over it")
    parser.add_argument("--detach", action="store_true", help="put it in the background once it is ready")
    if not filled:
        return
    from knarr.cli.flags import flags

    for flag in flags():
        parser.add_argument(
            flag.option,
            dest=flag.name,
            type=flag.kind,
            choices=flag.choices or None,
            default=argparse.SUPPRESS,
            metavar=None if flag.choices else ("N" if flag.kind is int else flag.name.rpartition("_")[2].upper()),
            help=flag.description,
        )


def _add_node(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--server", default="", metavar="URL", help="the API server, as `knarr token create` says")
    parser.add_argument("--token", default="", metavar="TOKEN", help="to join by; needed only the first time")
    parser.add_argument(
        "--discovery-token-ca-cert-hash",
        action="append",
        default=[],
        metavar="HASH",
        help="sha256:… of the public key of the cluster's authority: nobody else is trusted",
    )
    parser.add_argument("--kubeconfig", default="", metavar="FILE", help="to join by, in place of a token")
    parser.add_argument("--node-name", metavar="NAME", help="default: the host name")
    parser.add_argument("--node-ip", metavar="ADDRESS", help="at which others reach this node")
    parser.add_argument("--provider-id", metavar="ID", help="this machine's name at its cloud (spec.providerID)")
    parser.add_argument("--proxy-mode", choices=["auto", "nftables", "iptables"], help="interface for service rules")
    parser.add_argument("--bridge-name", metavar="NAME", help="network interface that joins the pods of this machine")
    parser.add_argument("--port", type=int, metavar="N", help="for logs, exec and measurements; default: 10250")
    parser.add_argument("--verbosity", type=int, metavar="N", help="2 says each step, 4 each request")
    parser.add_argument("--detach", action="store_true", help="put it in the background once it is ready")
    _add_data_dir(parser)


def _add_proxy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kubeconfig", default="", metavar="FILE", help="of the cluster; its user reads Services")
    parser.add_argument("--mode", choices=["auto", "nftables", "iptables"], default="auto")
    parser.add_argument("--node-name", default="", metavar="NAME", help="default: the host name")
    parser.add_argument("--cluster-cidr", default="", metavar="CIDRS", help="of pods: they keep their address")
    parser.add_argument("--service-cidr", default="", metavar="CIDRS", help="of cluster IPs: others in it are dropped")
    parser.add_argument("--nodeport-addresses", default="", metavar="CIDRS", help="primary, or ranges")
    parser.add_argument("--healthz-port", type=int, default=10256, metavar="N")
    parser.add_argument("--metrics-port", type=int, default=10249, metavar="N")
    parser.add_argument("--cleanup", action="store_true", help="remove the rules, and end")
    parser.add_argument("--verbosity", type=int, default=0, metavar="N", help="2 says each step, 4 each request")


def _add_token(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", help="make a token, and print the command for the other machine")
    create.add_argument("--ttl", default="24h", metavar="TIME", help="how long machines can join by it; 0: for ever")
    create.add_argument("--description", default="", metavar="TEXT")
    create.add_argument("--only-token", action="store_true", help="print the token alone")
    actions.add_parser("list", help="tokens that are there")
    actions.add_parser("delete", help="remove tokens").add_argument("token", nargs="+", metavar="TOKEN")
    for action in actions.choices.values():
        action.add_argument("--kubeconfig", default="", metavar="FILE")


def _add_data_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", default=None, metavar="DIR", help="of the cluster meant, as given to `knarr up`")


if __name__ == "__main__":
    sys.exit(main())
