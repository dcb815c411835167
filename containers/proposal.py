"""`make propose`: commit what `make deploy` wrote to a branch of its own, and push that.

The repository is that of the overlay, which may be another than this one. Nothing else that has changed there is
committed, and what was checked out is so again afterwards. A review merges it; nothing here reaches a cluster.
"""

import argparse
import os
import re
import sys
from functools import partial
from pathlib import Path

from containers.base_stand_in import BuildError, check, run
from containers.overlay import KUSTOMIZATION
from containers.supply import end

_BRANCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,200}")
# Who commits, where the machine of a pipeline has no name for it.
_NAMELESS = {f"GIT_{who}_{what}": "nereid" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def main() -> int:
    """Commit and push."""
    parser = argparse.ArgumentParser(prog="make propose", description=__doc__.partition("\n")[0])
    parser.add_argument("--overlay", type=Path, required=True, help="what make deploy changed")
    parser.add_argument("--branch", required=True, help="that is made")
    parser.add_argument("--remote", default="origin", help="a name or an address (default: %(default)s)")
    parser.add_argument("--options", default="", help="for git push -o, in words")
    options = parser.parse_args()
    return end(partial(propose, options.overlay, options.branch, options.remote, options.options.split()))


def propose(overlay: Path, branch: str, remote: str = "origin", options: list[str] | None = None) -> None:
    """Commit and push an overlay.

    Args:
        overlay: what `make deploy` changed.
        branch: that is made, from what is checked out.
        remote: that it is pushed to.
        options: of `git push -o`: GitLab makes a merge request of them.

    Raises:
        BuildError: git failed, or the branch is there with something else.
    """
    if not _BRANCH.fullmatch(branch):
        raise BuildError(f"BRANCH: got {branch!r}, expected letters, digits and . _ / -")
    git = ["git", "-C", str(overlay)]
    if not check([*git, "status", "--porcelain", "--", KUSTOMIZATION]).strip():
        print(f"{overlay}: nothing has changed")
        return
    if run([*git, "config", "user.email"]).returncode:
        os.environ.update(_NAMELESS)
    check([*git, "switch", "--quiet", "--create", branch])
    try:
        check([*git, "commit", "--quiet", "--message", f"Images of {overlay.name} by digest", "--", KUSTOMIZATION])
        pushed = [word for option in options or [] for word in ("-o", option)]
        check([*git, "push", "--quiet", *pushed, remote, branch], f"{branch}: git push")
    finally:
        check([*git, "checkout", "--quiet", "-"])
    print(f"{branch}: pushed to {remote}")


if __name__ == "__main__":
    sys.exit(main())
