"""docs/first-hour.md, typed as it stands by a user in a checkout of their own."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.pages import ROOT, blocks_of
from tests.support.stack import PATIENCE_S, free_ports, wait_until
from tests.support.terminal import Terminal, open_terminal, read_commands

PAGE = ROOT / "docs/first-hour.md"
OWN = "A model of your own"
PUBLISHED = "Publish it"
NEXT = "The next version, and back"


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    return open_terminal(tmp_path_factory.mktemp("hour"), free_ports(), POLL_S="0.5", SETTLE_S="0.5")


@pytest.fixture(scope="module")
def serving(terminal: Terminal) -> Iterator[Path]:
    """The first terminal, in which `nereid serve` runs; before it, what the page does until then."""
    terminal.run(blocks_of(PAGE, OWN)[0])
    terminal.run(blocks_of(PAGE, PUBLISHED)[0])
    (command,) = read_commands(blocks_of(PAGE, PUBLISHED)[1])
    with terminal.leave_running(command.text, until="Ctrl-C") as log:
        yield log


@pytest.mark.usefixtures("serving")
def test_published_model_of_a_user_responds(terminal: Terminal) -> None:
    terminal.run(blocks_of(PAGE, PUBLISHED)[2])


def test_next_version_serves_and_a_rollback_restores_the_previous_one(terminal: Terminal, serving: Path) -> None:
    first, delete = blocks_of(PAGE, NEXT)
    terminal.run(first)
    wait_until(lambda: version_of(terminal) == "2", log=serving, seconds=PATIENCE_S)
    terminal.run(delete)
    wait_until(lambda: version_of(terminal) == "1", log=serving, seconds=PATIENCE_S)


def version_of(terminal: Terminal) -> str:
    """The version that responds."""
    url = f"http://localhost:{terminal.environ['HTTP_PORT']}/v2/models/wine"
    (version,) = httpx.get(url, trust_env=False).raise_for_status().json()["versions"]
    return str(version)
