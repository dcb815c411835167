"""The variables that each part of the stack gets: those that it reads, without secrets of other parts or the shell."""

import re
import secrets
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

from environment.listening import join, within_reach
from environment.project import from_root
from environment.variables import variable
from predictor.settings import Settings
from stack.settings import StackSettings
from transformer.settings import TransformerSettings

# Variables of the user's terminal, and those that Python, the allocator and gRPC read in every process.
_COMMON = (
    "HOME|USER|PATH|TMPDIR|TZ|TERM|COLORTERM|NO_COLOR|COLUMNS|LANG|LC_[A-Z]+|LD_[A-Z_]+|PYTHON[A-Z]*|MALLOC_[A-Z_]+|"
    "GRPC_[A-Z_]+|LOG_FORMAT"
)
_NETWORK = "(HTTPS?|NO|ALL)_PROXY|(https?|no|all)_proxy|SSL_CERT_(FILE|DIR)|(REQUESTS|CURL)_CA_BUNDLE"
_SEES = {
    "triton": "PREDICTOR_[A-Z_]+|(OMP|KMP|OV|ORT)_[A-Z_]+",
    "synchroniser": f"PREDICTOR_[A-Z_]+|AWS_[A-Z_0-9]+|SENTRY_[A-Z_]+|BOTO_CONFIG|{_NETWORK}",
    "transformer": f"TRANSFORMER_[A-Z_]+|OTEL_[A-Z_]+|SENTRY_[A-Z_]+|(OMP|OPENBLAS)_[A-Z_]+|{_NETWORK}",
    "announce": "CALLER_FOLDER",  # and the stack's own settings
    "watch": "CALLER_FOLDER|STATE_DIR|LOG_[A-Z]+",
}


def compose_environment(settings: StackSettings, state: str) -> dict[str, str]:
    """The variables that stack/supervisord.conf and the parts read.

    Args:
        settings: of the stack.
        state: folder for supervisor's own files.
    """
    setpriv = shutil.which("setpriv")
    # Triton loads models only for callers that have it: made new at each start, for Triton and the synchroniser.
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
        "STOP_TRITON_S": str(settings.stop_triton_s),
        "HTTP_PORT": str(settings.http_port),
        "GRPC_PORT": str(settings.grpc_port),
        "PREDICTOR_HOST": settings.predictor_host,
        "PREDICTOR_REPOSITORY": settings.predictor_repository,
        "PREDICTOR_MIRROR": str(from_root(settings.mirror_folder)),
        **({"PREDICTOR_SIGNED_BY": str(from_root(settings.signed_by))} if settings.signed_by else {}),
        "PREDICTOR_PROFILE": settings.profile,
        "PREDICTOR_POLL_S": str(settings.poll_s),
        "PREDICTOR_SETTLE_S": str(settings.settle_s),
        "PREDICTOR_SYNC_PORT": str(settings.sync_port),
        "PREDICTOR_HTTP_PORT": str(settings.triton_http_port),
        "PREDICTOR_GRPC_PORT": str(settings.triton_grpc_port),
        "PREDICTOR_METRICS_PORT": str(settings.triton_metrics_port),
        "PYTHONUNBUFFERED": "1",
    }


def paths_from_root(environ: Mapping[str, str]) -> dict[str, str]:
    """The paths that the user set for the parts, as the parts must be given them: their folder is the project's."""
    return {
        name: str(from_root(Path(environ[name]))) for name in _iterate_path_variables() if environ.get(name, "").strip()
    }


def _iterate_path_variables() -> Iterator[str]:
    for kind in (Settings, TransformerSettings):
        for name, field in kind.model_fields.items():
            if Path in {field.annotation, *get_args(field.annotation)}:
                yield variable(kind, name)


def visible(part: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that a part gets.

    Args:
        part: triton, synchroniser, transformer, announce or watch.
        environ: that of the shell, and `compose_environment`.
    """
    own = StackSettings.model_fields if part == "announce" else ()
    names = re.compile("|".join([_COMMON, _SEES[part], *map(str.upper, own)]))
    return {name: value for name, value in environ.items() if names.fullmatch(name)}


def hide(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that supervisord.conf unsets for each part, as arguments of env(1): names alone, without values."""
    hiding = {f"HIDE_FROM_{part.upper()}": part for part in _SEES}
    names = environ.keys() | hiding.keys()
    return {
        variable: shlex.join(word for name in sorted(names - visible(part, environ).keys()) for word in ("-u", name))
        for variable, part in hiding.items()
    }
