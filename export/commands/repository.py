"""`publish`, `sign`, `fetch`, `versions`, `rollback`, `unpin`, `prune`, `sizing`: a repository on S3 or in a folder."""

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from environment.arguments import count, positive
from environment.project import in_project
from export.commands.running import add_management

if TYPE_CHECKING:
    from rich.console import Console


def add_publish(commands: Any) -> None:
    """Add the parser of `publish`."""
    parser = commands.add_parser(
        "publish", help="upload a version as the next one of a repository that is served, and wait until it serves"
    )
    parser.add_argument("model", help="name in both repositories")
    parser.add_argument(
        "--from", dest="source", type=Path, default=in_project("model_repository"), help="local (default: %(default)s)"
    )
    parser.add_argument("--version", help="of the local repository (default: the newest)")
    parser.add_argument("--wait", metavar="URL", help="of the transformer: wait until it serves the version")
    parser.add_argument("--timeout", type=float, default=120, metavar="S", help="of --wait (default: %(default)s)")
    parser.add_argument(
        "--force",
        action="store_true",
        help="publish again what is there already, or what clients of the model do not expect",
    )
    _add_signer(parser)
    add_management(parser, _publish)


def _publish(args: Namespace, console: "Console") -> None:
    from export.publish.publishing import publish  # noqa: PLC0415 - see the package

    publish(args, console)


def _add_signer(parser: Any, *, required: bool = False) -> None:
    """Add the key that signs."""
    parser.add_argument(
        "--sign",
        type=Path,
        metavar="KEY",
        required=required,
        help="private key to sign with, PEM; its password in the variable SIGN_PASSWORD",
    )
    parser.add_argument(
        "--certificates",
        type=Path,
        metavar="FILE",
        help="certificates of that key, PEM: its own first, then its issuers",
    )


def _add_signed_by(parser: Any, what: str) -> None:
    parser.add_argument("--signed-by", type=Path, metavar="PATH", help=f"public keys or certificates, PEM: {what}")


def add_sign(commands: Any) -> None:
    """Add the parser of `sign`."""
    parser = commands.add_parser("sign", help="sign versions that are published already")
    parser.add_argument("model", nargs="?", help="only this one")
    parser.add_argument("--version", help="only this one")
    _add_signer(parser, required=True)
    _add_signed_by(parser, "sign what one of them has signed")
    add_management(parser, _sign)


def _sign(args: Namespace, console: "Console") -> None:
    from export.publish.resigning import sign  # noqa: PLC0415 - see the package

    sign(args, console)


def add_fetch(commands: Any) -> None:
    """Add the parser of `fetch`."""
    parser = commands.add_parser("fetch", help="copy a version of a repository to a local one")
    parser.add_argument("model", help="name in the repository")
    parser.add_argument("--version", help="number (default: the newest complete one)")
    parser.add_argument("--to", type=Path, required=True, help="local repository; this version there is replaced")
    _add_signed_by(parser, "copy only what one of them has signed")
    add_management(parser, _fetch)


def _fetch(args: Namespace, console: "Console") -> None:
    from export.publish.fetch import fetch  # noqa: PLC0415 - see the package

    fetch(args, console)


def add_versions(commands: Any) -> None:
    """Add the parser of `versions`."""
    parser = commands.add_parser("versions", help="what a repository holds, and what of it serves")
    parser.add_argument("model", nargs="?", help="only this one")
    parser.add_argument("--url", help="of the transformer, to show what serves")
    _add_signed_by(parser, "verify signatures by them")
    add_management(parser, _versions, has_default=True)


def _versions(args: Namespace, console: "Console") -> None:
    from export.publish.version_table import versions  # noqa: PLC0415 - see the package

    versions(args, console)


def add_rollback(commands: Any) -> None:
    """Add the parser of `rollback`."""
    parser = commands.add_parser("rollback", help="pin the version before the one that serves")
    parser.add_argument("model", help="name in the repository")
    parser.add_argument("--url", help="of the transformer, to know what serves (default: what the policy selects)")
    add_management(parser, _rollback)


def _rollback(args: Namespace, console: "Console") -> None:
    from export.publish.pins import rollback  # noqa: PLC0415 - see the package

    rollback(args, console)


def add_unpin(commands: Any) -> None:
    """Add the parser of `unpin`."""
    parser = commands.add_parser("unpin", help="let the newest version serve again")
    parser.add_argument("model", help="name in the repository")
    add_management(parser, _unpin)


def _unpin(args: Namespace, console: "Console") -> None:
    from export.publish.pins import unpin  # noqa: PLC0415 - see the package

    unpin(args, console)


def add_prune(commands: Any) -> None:
    """Add the parser of `prune`."""
    parser = commands.add_parser("prune", help="delete old versions that no policy selects")
    parser.add_argument("model", help="name in the repository")
    parser.add_argument("--keep", type=int, default=3, help="how many of the newest stay (default: %(default)s)")
    parser.add_argument("--url", help="of the transformer, so that no version that serves is deleted")
    parser.add_argument("--yes", action="store_true", help="delete without a prompt")
    add_management(parser, _prune)


def _prune(args: Namespace, console: "Console") -> None:
    from export.publish.pruning import prune  # noqa: PLC0415 - see the package

    prune(args, console)


def add_sizing(commands: Any) -> None:
    """Add the parser of `sizing`."""
    parser = commands.add_parser("sizing", help="memory, disks, quota and S3's requests of the pods that serve it")
    parser.add_argument("--pods", type=count, default=2, help="(default: %(default)s)")
    parser.add_argument("--poll-s", type=positive, default=10.0, help="seconds between listings (default: %(default)s)")
    add_management(parser, _sizing, has_default=True)


def _sizing(args: Namespace, console: "Console") -> None:
    from export.publish.sizing import sizing  # noqa: PLC0415 - see the package

    sizing(args, console)
