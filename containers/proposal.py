"""`make propose`: commit what `make deploy` wrote, push that to a branch of its own, and open a pull request if wanted.

The repository is that of the overlay, which may be another than this one. Nothing else that has changed there is
committed, and what was checked out is so again afterwards. A review merges it; nothing here reaches a cluster.
A branch that holds an earlier proposal is overwritten, so that one is open at a time.
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
_MESSAGE = re.compile(r"Images of .* by digest")
# Who commits, where the machine of a pipeline has no name for it.
_NAMELESS = {f"GIT_{who}_{what}": "nereid" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def main() -> int:
    """Commit, push, and open a pull request."""
    parser = argparse.ArgumentParser(prog="make propose", description=__doc__.partition("\n")[0])
    parser.add_argument("--overlay", type=Path, required=True, help="what make deploy changed")
    parser.add_argument("--branch", required=True, help="that is made, or overwritten if it is an earlier proposal")
    parser.add_argument("--remote", default="origin", help="a name or an address (default: %(default)s)")
    parser.add_argument("--options", default="", help="for git push -o, in words")
    parser.add_argument("--pull-request", action="store_true", help="on GitHub, with gh, unless one is open")
    return end(partial(_propose, parser.parse_args()))


def _propose(options: argparse.Namespace) -> None:
    changed = propose(options.overlay, options.branch, options.remote, options.options.split())
    if changed and options.pull_request:
        request_pull(options.overlay, options.branch)


def propose(overlay: Path, branch: str, remote: str = "origin", options: list[str] | None = None) -> bool:
    """Commit and push an overlay.

    Args:
        overlay: what `make deploy` changed.
        branch: that is made from what is checked out, or overwritten. No local branch is made.
        remote: that it is pushed to.
        options: of `git push -o`: GitLab makes a merge request of them.

    Returns:
        Whether anything has changed, and was pushed.

    Raises:
        BuildError: git failed, or the branch is there with something else than a proposal.
    """
    if not _BRANCH.fullmatch(branch):
        raise BuildError(f"BRANCH: got {branch!r}, expected letters, digits and . _ / -")
    git = ["git", "-C", str(overlay)]
    if not check([*git, "status", "--porcelain", "--", KUSTOMIZATION]).strip():
        print(f"{overlay}: nothing has changed")
        return False
    if run([*git, "config", "user.email"]).returncode:
        os.environ.update(_NAMELESS)
    lease = f"--force-with-lease=refs/heads/{branch}:{_overwritten(git, remote, branch)}"
    pushed = [word for option in options or [] for word in ("-o", option)]
    here = run([*git, "symbolic-ref", "--quiet", "--short", "HEAD"]).stdout or run([*git, "rev-parse", "HEAD"]).stdout
    check([*git, "switch", "--quiet", "--detach"])
    try:
        check([*git, "commit", "--quiet", "--message", message_of(overlay), "--", KUSTOMIZATION])
        check([*git, "push", "--quiet", lease, *pushed, remote, f"HEAD:refs/heads/{branch}"], f"{branch}: git push")
    finally:
        check([*git, "checkout", "--quiet", here.strip(), "--"])
    print(f"{branch}: pushed to {_shown(remote)}")
    return True


def message_of(overlay: Path) -> str:
    """The message of a proposal's commit, which is the title of its pull request."""
    return f"Images of {overlay.name} by digest"


def _overwritten(git: list[str], remote: str, branch: str) -> str:
    """The commit that the branch has at the remote, which has to be a proposal; empty if there is none."""
    heads = check(
        [*git, "ls-remote", "--symref", remote, "HEAD", f"refs/heads/{branch}"], f"{_shown(remote)}: git ls-remote"
    )
    if f"ref: refs/heads/{branch}\tHEAD" in heads.splitlines():
        raise BuildError(f"BRANCH: got {branch}, the one that {_shown(remote)} starts from; expected one of its own")
    found = re.search(rf"^([0-9a-f]+)\trefs/heads/{re.escape(branch)}$", heads, re.MULTILINE)
    if found is None:
        return ""
    check([*git, "fetch", "--quiet", "--no-tags", remote, f"refs/heads/{branch}"], f"{branch}: git fetch")
    message = run([*git, "log", "-1", "--format=%s", found[1]]).stdout.strip()
    if not _MESSAGE.fullmatch(message):
        raise BuildError(f"BRANCH: {branch} is there with {message!r}, expected a proposal; next: another BRANCH")
    return found[1]


def _shown(remote: str) -> str:
    """A remote without the user and the password that its address may hold."""
    return re.sub(r"//[^/@]*@", "//", remote)


def request_pull(overlay: Path, branch: str) -> None:
    """Open a pull request on GitHub for a branch that was pushed, unless one is open.

    Raises:
        BuildError: gh is missing, or failed: without the repository's setting a workflow may open none.
    """
    listed = ["gh", "pr", "list", "--head", branch, "--state", "open", "--json", "url", "--jq", ".[].url"]
    if there := check(listed, f"{branch}: gh pr list", folder=overlay).strip():
        print(f"{branch}: {there} is open")
        return
    words = ["--title", message_of(overlay), "--body", "By make propose."]
    print(check(["gh", "pr", "create", "--head", branch, *words], f"{branch}: gh pr create", folder=overlay).strip())


if __name__ == "__main__":
    sys.exit(main())
