"""The local stack in the foreground: Triton, synchroniser and transformer under supervisor, until Ctrl-C.

`make serve` runs it. Parts that die are started again with growing pauses; stopping ends the transformer first, then
the rest; stack/supervisord.conf says how.
"""

import ctypes
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from supervisor import childutils
from supervisor.supervisord import main as run_supervisor

from environment import api_key
from environment.listening import Address, join, listen, within_reach
from registry.errors import Misconfigured
from registry.storage.address import read_address
from stack.checks import find_problems
from stack.variables import find_unknown, judge_profile

if TYPE_CHECKING:
    import httpx

ROOT = Path(__file__).parents[1]
PICTURES = Path("loadtest/pictures")
_PATIENCE_S = 10
_ORPHAN_S = 10  # without a Triton its stubs end within one, but for those that wait for a lock that it held
_KILLED_S = 5
_GIVEN_UP = "given-up"
_HIDDEN = "a model (/status says which, to who has an API key; next: NEREID_API_KEY=<one of make key> make serve)"
_KEY_WANTED = {401, 403}
_NOT_LISTED = 501
_LOCAL = {"127.0.0.1", "0.0.0.0", "::"}  # noqa: S104 - what localhost leads to
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # shm_open(3)
_REGION = re.compile(r"triton_\w+_shm_region_[\w-]+")  # an argument of a stub
_RULES = 3  # of what may be mirrored: what others let in is not loaded
_OURS = 0o077  # whatever the parts write is for this user alone
# What each part sees of the environment: what it reads, and so no secret of another one or of the shell.
_COMMON = (
    "HOME|USER|PATH|TMPDIR|TZ|TERM|COLORTERM|NO_COLOR|COLUMNS|LANG|LC_[A-Z]+|LD_[A-Z_]+|PYTHON[A-Z]*|MALLOC_[A-Z_]+|"
    "GRPC_[A-Z_]+|LOG_FORMAT"
)
_NETWORK = "(HTTPS?|NO|ALL)_PROXY|(https?|no|all)_proxy|SSL_CERT_(FILE|DIR)|(REQUESTS|CURL)_CA_BUNDLE"
_SEES = {
    "triton": "PREDICTOR_[A-Z_]+|(OMP|KMP|OV|ORT)_[A-Z_]+",
    "synchroniser": f"PREDICTOR_[A-Z_]+|AWS_[A-Z_0-9]+|BOTO_CONFIG|{_NETWORK}",
    "transformer": f"TRANSFORMER_[A-Z_]+|OTEL_[A-Z_]+|(OMP|OPENBLAS)_[A-Z_]+|{_NETWORK}",
    "announce": "",  # and its own settings
    "watch": "STATE_DIR",
}
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # <linux/prctl.h>


class StackSettings(BaseSettings):
    """The variables of `make serve`."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True)

    repository: str = "model_repository"
    mirror: Path | None = None
    profile: str = Field(default="fp32", pattern="^[a-z][0-9a-z-]*$")
    poll_s: float = Field(default=10, ge=0.1)
    settle_s: float = Field(default=10, ge=0)
    http_port: int = Field(default=8080, ge=1, le=65535)
    grpc_port: int = Field(default=8081, ge=1, le=65535)
    triton_http_port: int = Field(default=8000, ge=1, le=65535)
    triton_grpc_port: int = Field(default=8001, ge=1, le=65535)
    triton_metrics_port: int = Field(default=8002, ge=1, le=65535)
    sync_port: int = Field(default=8003, ge=1, le=65535)
    triton_url: str = ""
    # The parts read them too.
    transformer_host: Address = "127.0.0.1"
    predictor_address: Address = "127.0.0.1"
    predictor_sync_address: Address = "127.0.0.1"
    # Shown where the transformer asks for one (TRANSFORMER_API_KEYS_FILE), to say what serves.
    nereid_api_key: str = Field(default="", pattern="^[!-~]*$")

    @property
    def predictor_host(self) -> str:
        """`host:port` of the gRPC port of the Triton that is used."""
        return self.triton_url.removeprefix("grpc://").rstrip("/") or join(
            within_reach(self.predictor_address), self.triton_grpc_port
        )

    @property
    def url(self) -> str:
        """Where the transformer answers on this machine."""
        return f"http://{join(within_reach(self.transformer_host), self.http_port)}"

    @property
    def ports(self) -> dict[str, tuple[str, int]]:
        """Address and port of all that is listened on, by the variable that moves the port."""
        ports = {"HTTP_PORT": (self.transformer_host, self.http_port)}
        ports["GRPC_PORT"] = (self.transformer_host, self.grpc_port)
        if not self.triton_url:
            ports |= {
                "TRITON_HTTP_PORT": (self.predictor_address, self.triton_http_port),
                "TRITON_GRPC_PORT": (self.predictor_address, self.triton_grpc_port),
                "TRITON_METRICS_PORT": (self.predictor_address, self.triton_metrics_port),
                "SYNC_PORT": (self.predictor_sync_address, self.sync_port),
            }
        return ports

    @property
    def folder(self) -> Path | None:
        """The repository, where it is one of this machine.

        Raises:
            StackError: it is no address.
        """
        try:
            place = read_address(self.repository)
        except Misconfigured as exc:
            raise StackError(str(exc)) from exc
        return place if isinstance(place, Path) else None

    @property
    def mirror_folder(self) -> Path:
        """Where the models of this repository are mirrored to: one for each profile, which it holds composed."""
        name = re.sub(r"[^a-z0-9]+", "-", self.repository.lower()).strip("-")[:40]
        source = f"{self.folder.resolve() if self.folder else self.repository}#{self.profile}#{_RULES}"
        return self.mirror or Path(".cache") / "mirror" / f"{name}-{hashlib.sha256(source.encode()).hexdigest()[:8]}"


class StackError(Exception):
    """The stack cannot start; the message says why and what to do."""


def main() -> int:
    """Run the stack; 0 after a stop that was asked for, 1 when a part could not be kept alive."""
    try:
        if sys.argv[1:] == ["watch"]:
            watch(Path(os.environ["STATE_DIR"]) / _GIVEN_UP)
            return 0
        settings = StackSettings()
        if sys.argv[1:] == ["announce"]:
            announce(settings)
            return 0
        check(settings)
        os.environ |= environment(settings, state="")  # as the parts will read it, but for the state
        if problem := next(find_problems(with_triton=not settings.triton_url), ""):
            raise StackError(problem)
        os.umask(_OURS)
        keep(settings)
    except ValidationError as exc:
        error = exc.errors()[0]
        name = str(error["loc"][0])
        got = "something else (not shown)" if name == "nereid_api_key" else repr(error["input"])
        print(f"error: {name.upper()}: got {got}: {error['msg']}", file=sys.stderr)
        return 2
    except StackError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        # Killing make must not leave the stack behind: the kernel tells us when our parent is gone.
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        # What a part leaves behind becomes our child: a Triton that is stopped while it loads leaves its stubs.
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    with tempfile.TemporaryDirectory(prefix="nereid-") as state:
        os.environ |= environment(settings, state)
        os.environ |= hide(os.environ)
        arguments = ["-c", str(ROOT / "stack/supervisord.conf"), "-d", str(ROOT)]
        # Says once that root is meant; supervisor warns otherwise.
        run_supervisor([*arguments, *(["-u", "root"] if os.geteuid() == 0 else [])])
        sweep(psutil.Process().children(recursive=True), patience_s=0)
        given_up = Path(state) / _GIVEN_UP
        if not given_up.exists():
            return 0
        print(f"error: {given_up.read_text()}; its own words are above", file=sys.stderr)
    return 1


def check(settings: StackSettings) -> None:
    """Find what would fail later, and say it now.

    Raises:
        StackError: a taken port, an empty repository, a Triton URL of another kind, a name that nothing reads.
    """
    if problem := next(find_unknown(os.environ), ""):
        raise StackError(problem)
    if settings.triton_url:
        if settings.triton_url.startswith(("http://", "https://")) or ":" not in settings.predictor_host:
            raise StackError(f"TRITON_URL: got {settings.triton_url}, expected host:port of Triton's gRPC (8001)")
    elif settings.folder is not None and not settings.folder.is_dir():
        raise StackError(
            f"REPOSITORY: {settings.folder} is no folder; expected one, or s3://bucket/prefix; next: make models, "
            "or make export MODEL=... WEIGHTS=... REPOSITORY=..."
        )
    elif problem := judge_profile(settings.profile, settings.folder):
        raise StackError(problem)
    elif is_locked(settings.mirror_folder / "lock"):
        raise StackError(
            f"MIRROR: {settings.mirror_folder} belongs to another stack that runs; next: stop it, or MIRROR=<a folder>"
        )
    for variable, (address, port) in settings.ports.items():
        twins = [other for other, (_, its) in settings.ports.items() if its == port and other != variable]
        if twins:
            raise StackError(f"{variable}: port {port} is also {twins[0]}; expected another one for each")
        try:
            listen(address, port).close()
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise StackError(f"{variable}: {join(address, port)} cannot be listened on: {exc.strerror}") from exc
            raise StackError(
                f"{variable}: port {port} is taken ({exc.strerror}); next: stop what listens there"
                f" (ss -ltnp 'sport = :{port}'), or {variable}=<another port>"
            ) from exc


def keep(settings: StackSettings) -> None:
    """Close our own folder of mirrors to other users, also one that was made before; one of MIRROR is as it is."""
    if settings.mirror is None and not settings.triton_url:
        settings.mirror_folder.mkdir(parents=True, exist_ok=True)
        settings.mirror_folder.chmod(0o700)


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock on a file, which need not exist."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except BlockingIOError:
        return True
    return False


def environment(settings: StackSettings, state: str) -> dict[str, str]:
    """What stack/supervisord.conf and the parts read."""
    setpriv = shutil.which("setpriv")
    # Triton loads models for who shows it: made new at each start, for Triton and the synchroniser alone.
    secret = "" if settings.triton_url else secrets.token_hex(32)
    return {
        "STATE_DIR": state,
        "PYTHON": shlex.quote(sys.executable),
        # So that supervisor killed with -9 leaves no part behind. Only Linux has it.
        "DIE_WITH_PARENT": f"{setpriv} --pdeathsig TERM --" if setpriv else "env",
        "START_TRITON": "false" if settings.triton_url else "true",
        "TRANSFORMER_SYNC_URL": ""
        if settings.triton_url
        else f"http://{join(within_reach(settings.predictor_sync_address), settings.sync_port)}",
        "PREDICTOR_SECRET": secret,
        "HTTP_PORT": str(settings.http_port),
        "GRPC_PORT": str(settings.grpc_port),
        "PREDICTOR_HOST": settings.predictor_host,
        "PREDICTOR_REPOSITORY": settings.repository,
        "PREDICTOR_MIRROR": str(settings.mirror_folder),
        "PREDICTOR_PROFILE": settings.profile,
        "PREDICTOR_POLL_S": str(settings.poll_s),
        "PREDICTOR_SETTLE_S": str(settings.settle_s),
        "PREDICTOR_SYNC_PORT": str(settings.sync_port),
        "PREDICTOR_HTTP_PORT": str(settings.triton_http_port),
        "PREDICTOR_GRPC_PORT": str(settings.triton_grpc_port),
        "PREDICTOR_METRICS_PORT": str(settings.triton_metrics_port),
        "PYTHONUNBUFFERED": "1",
    }


def visible(part: str, environ: Mapping[str, str]) -> dict[str, str]:
    """What a part gets of the environment.

    Args:
        part: triton, synchroniser, transformer, announce or watch.
        environ: that of the shell, and environment().
    """
    own = StackSettings.model_fields if part == "announce" else ()
    names = re.compile("|".join([_COMMON, _SEES[part], *map(str.upper, own)]))
    return {name: value for name, value in environ.items() if names.fullmatch(name)}


def hide(environ: Mapping[str, str]) -> dict[str, str]:
    """What supervisord.conf takes from each part, as arguments of env(1): names alone, which any process may see."""
    hiding = {f"HIDE_FROM_{part.upper()}": part for part in _SEES}
    names = environ.keys() | hiding.keys()
    return {
        variable: shlex.join(word for name in sorted(names - visible(part, environ).keys()) for word in ("-u", name))
        for variable, part in hiding.items()
    }


def watch(given_up: Path) -> None:
    """Stop everything when a part cannot be kept alive, and end what a dead one left; a listener of supervisord.conf.

    Args:
        given_up: file to write to which part it was, and why.
    """
    while True:
        headers, payload = childutils.listener.wait(sys.stdin, sys.stdout)
        event = childutils.get_headers(payload)
        part = event["processname"]
        if headers["eventname"] == "PROCESS_STATE_FATAL":
            given_up.write_text(f"{part} died again and again within seconds of its start")
            os.kill(os.getppid(), signal.SIGTERM)
        elif headers["eventname"] == "PROCESS_STATE_EXITED" and part != "announce" and event["expected"] == "1":
            # Where the machine is busy that may be no quick death, and would be tried again for ever.
            given_up.write_text(f"{part} cannot run as it is set up")
            os.kill(os.getppid(), signal.SIGTERM)
        childutils.listener.ok(sys.stdout)
        sweep(find_orphans(psutil.Process(os.getppid())), patience_s=_ORPHAN_S)


def find_orphans(supervisor: psutil.Process) -> list[psutil.Process]:
    """What dead parts left: the kernel gave it to the supervisor, but it leads no group of its own, as parts do."""
    orphans = []
    for process in supervisor.children():
        with suppress(ProcessLookupError):
            if os.getpgid(process.pid) not in {process.pid, os.getpgid(supervisor.pid)}:
                orphans.append(process)
    return orphans


def sweep(processes: list[psutil.Process], *, patience_s: float) -> None:
    """Wait until processes have ended, and kill what has not; a killed stub of Triton's leaves its shared memory."""
    _, left = psutil.wait_procs(processes, timeout=patience_s)
    regions = []
    for process in left:
        with suppress(psutil.NoSuchProcess):
            regions += [_SHARED_MEMORY / word for word in process.cmdline() if _REGION.fullmatch(word)]
            process.kill()
    psutil.wait_procs(left, timeout=_KILLED_S)  # at the end we are their parent: what nobody waits for stays a zombie
    for region in regions:
        region.unlink(missing_ok=True)


def announce(settings: StackSettings) -> None:
    """Say where the stack answers, once it does; a program of stack/supervisord.conf that ends.

    A process of its own: gRPC's threads do not survive the forks that start the parts.
    """
    started = time.monotonic()
    host = within_reach(settings.transformer_host)
    while not accepts(host, settings.http_port):  # before the imports: they would slow the parts' own start
        time.sleep(0.1)

    import httpx  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415
    from rich.markup import escape  # noqa: PLC0415

    console = Console(highlight=False)
    told = ""
    with httpx.Client(base_url=settings.url, headers=api_key.headers(), trust_env=False, timeout=30) as transformer:
        while True:
            try:
                lines = describe_stack(settings, transformer)
            except httpx.HTTPError:
                # A server that wants a key would log each time that it got none.
                if told != _HIDDEN and time.monotonic() - started > _PATIENCE_S:
                    waiting_for = find_waiting_for(settings, transformer)
                    if waiting_for != told:
                        told = waiting_for
                        console.print(f"not ready yet, waiting for {escape(waiting_for)}", soft_wrap=True)
                        with suppress(httpx.HTTPError):
                            for line in describe_refused(transformer):
                                console.print(f"  [red]{escape(line)}[/]", soft_wrap=True)
                time.sleep(0.2)
            else:
                console.print(*lines, sep="\n", soft_wrap=True)
                return


def accepts(host: str, port: int) -> bool:
    """Whether something listens there."""
    with suppress(OSError), socket.create_connection((host, port)):
        return True
    return False


def find_waiting_for(settings: StackSettings, transformer: "httpx.Client") -> str:
    """What keeps the stack from being ready."""
    import httpx  # noqa: PLC0415 - see announce()

    try:
        reply = transformer.get("/status")
        if reply.status_code in _KEY_WANTED:
            return _HIDDEN
        status = reply.raise_for_status().json()
    except httpx.HTTPError:
        return f"Triton at {settings.predictor_host}" if settings.triton_url else "the parts to start"
    error = status["listing"]["error"]
    return status["waiting_for"] + (f" ({error})" if error else "") if status["waiting_for"] else "Triton"


def describe_stack(settings: StackSettings, transformer: "httpx.Client") -> list[str]:
    """Lines that say where the stack answers, what it serves and what was refused, in rich's markup.

    Raises:
        httpx.HTTPError: it is not ready.
    """
    from rich.markup import escape  # noqa: PLC0415 - see announce()

    name = "localhost" if settings.transformer_host in _LOCAL else settings.transformer_host
    url, grpc = f"http://{join(name, settings.http_port)}", join(name, settings.grpc_port)
    lines = ["", f"[bold green]ready[/]  {escape(url)}/docs  {escape(url)}/metrics  gRPC {escape(grpc)}"]
    example = ""
    transformer.get("/v2/health/ready").raise_for_status()
    listed = transformer.get("/v2/models")
    if listed.status_code in _KEY_WANTED:
        lines.append("  what serves is shown to who has an API key; next: NEREID_API_KEY=<one of make key> make serve")
        return [*lines, f"try:   curl -H 'X-API-Key: <key>' {url}/v2/models", "stop:  Ctrl-C", ""]
    if listed.status_code == _NOT_LISTED:
        lines.append("  what serves is not shown: this Triton lists its models for a secret only")
        return [*lines, f"try:   curl {url}/v2/models/<model>", "stop:  Ctrl-C", ""]
    for model in listed.raise_for_status().json()["models"]:
        reply = transformer.get(f"/v2/models/{model}")
        metadata = reply.json()
        if reply.is_error:
            lines.append(f"  [red]{model}[/] {escape(metadata['error'])}")
            continue
        task = metadata["parameters"]["task"]
        versions = ", ".join(metadata["versions"])
        profile = transformer.get(f"/v2/models/{model}/config").raise_for_status().json()["parameters"].get("profile")
        how = f" ({profile['string_value']})" if profile else ""
        lines.append(f"  [bold]{model}[/] {versions} {task or 'tensors: its config names no task'}{how}")
        if task and not example:
            key = '-H "X-API-Key: $NEREID_API_KEY" ' if settings.nereid_api_key else ""
            example = f"curl {key}{example_body(metadata)} {url}/predict/{model}"
    if not settings.triton_url:
        lines += [f"  [red]{escape(line)}[/]" for line in describe_refused(transformer)]
    return [*lines, f"try:   {escape(example)}" if example else "no model can be asked", "stop:  Ctrl-C", ""]


def describe_refused(transformer: "httpx.Client") -> list[str]:
    """A line for each version or model that should serve and does not."""
    lines = []
    for name, model in transformer.get("/status").raise_for_status().json()["models"].items():
        if model["error"]:
            lines.append(f"{name}: {model['error']}")
        for number, version in model["versions"].items():
            if version["state"] in {"refused", "incomplete"}:
                lines.append(f"{name} {number} {version['state']}: {version['reason']}")
    return lines


def example_body(metadata: dict[str, Any]) -> str:
    """Arguments of a curl line that asks this model something it can answer."""
    task = metadata["parameters"]["task"]
    if task == "tabular":
        columns = max(metadata["inputs"][0]["shape"][-1], 1)
        return f"-H 'Content-Type: application/json' -d '{[1.0] * columns}'"
    return f"-F image=@{PICTURES / ('seven.png' if task == 'classify' else 'digits.jpg')}"


if __name__ == "__main__":
    sys.exit(main())
