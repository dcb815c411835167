"""The variables of make: unknown names and invalid values are reported before anything is done.

make itself accepts any variable, and one that nothing reads changes nothing. The standard library alone, because there
is no environment yet. `stack/checks.py` checks with it which variables the parts read from the shell.
"""

import ast
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

from environment.arguments import nearest

ROOT = Path(__file__).parents[1]
# Each part reads what begins so: a field of its settings, in capitals.
PARTS = {"PREDICTOR_": "predictor/settings.py", "TRANSFORMER_": "transformer/settings.py"}
# Those that export writes, see export/writer/profiles.py; and those of registry/profiles.py.
PROFILES = ("auto", "fp32", "openvino", "fast", "int8", "gpu", "tensorrt")
# Of other programs, which make passes on.
_FOREIGN = re.compile(
    "(AWS|OTEL|SENTRY|PIP|UV|LC|LD|BOTO|OMP|OPENBLAS|MALLOC|GRPC|KUBE|E2E|PYTHON|XDG)[A-Z0-9_]*|(HTTPS?|NO|ALL)_PROXY|"
    "(https?|no|all)_proxy|SSL_CERT_(FILE|DIR)|(REQUESTS|CURL)_CA_BUNDLE|PATH|HOME|SHELL|TMPDIR|LANG|TZ|TERM|COLUMNS|"
    "NO_COLOR|CI|DOCKER_HOST|LOG_FORMAT|NEREID_API_KEY|MAKE[A-Z]*"
)
# Kubernetes sets variables in a pod for each Service: of one called transformer, TRANSFORMER_PORT for example.
_OF_A_SERVICE = re.compile(r"(PORT|SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP).*)")
_NAME = re.compile(r"[A-Z][A-Z0-9_]*[A-Z0-9]")

Judge = Callable[[str], str]


def main(given: Iterable[str]) -> int:
    """Print the first problem of the variables of a command line, each NAME=value; 1 if there is one."""
    known = known_names()
    variables = dict(word.split("=", 1) for word in given)
    for name in sorted(variables):
        if problem := judge_name(name, known) or judge_value(name, variables[name]):
            print(problem)
            return 1
    repository = variables.get("REPOSITORY", "model_repository")
    if "PROFILE" in variables and (problem := judge_profile(variables["PROFILE"], Path(repository))):
        print(problem)
        return 1
    return 0


def known_names() -> set[str]:
    """The names in the Makefile, and the variables that the parts read."""
    names = set(_NAME.findall((ROOT / "Makefile").read_text(encoding="utf-8")))
    return names.union(*(settings_names(prefix) for prefix in PARTS))


def settings_names(prefix: str) -> set[str]:
    """Names of the variables that a part reads, with their prefix."""
    tree = ast.parse((ROOT / PARTS[prefix]).read_text(encoding="utf-8"))
    # A file may have settings of others too: model_config has the prefix.
    classes = (node for node in tree.body if isinstance(node, ast.ClassDef) and repr(prefix) in ast.dump(node))
    fields = (node for each in classes for node in each.body if isinstance(node, ast.AnnAssign))
    return {prefix + field.target.id.upper() for field in fields if isinstance(field.target, ast.Name)}


def judge_name(name: str, known: Collection[str]) -> str:
    """Why a name is unknown; empty if it is known."""
    if name in known or _FOREIGN.fullmatch(name):
        return ""
    return f"{name}: no such variable{nearest(name.upper(), known, otherwise='; next: make help')}"


def find_unknown(environ: Mapping[str, str]) -> Iterator[str]:
    """Unknown names among the variables of the shell that begin with the prefix of a part."""
    for prefix in PARTS:
        known = settings_names(prefix)
        names = (name for name in sorted(environ) if name.startswith(prefix))
        own = (name for name in names if not _OF_A_SERVICE.fullmatch(name.removeprefix(prefix)))
        yield from filter(None, (judge_name(name, known) for name in own))


def judge_profile(profile: str, folder: Path | None) -> str:
    """Why no model has a profile; empty if one may have it: a repository can have profiles of its own.

    Args:
        profile: the name.
        folder: the repository; None, or a folder that does not exist: its profiles are unknown.
    """
    if profile in PROFILES:
        return ""
    known = set(PROFILES)
    if folder is not None and folder.is_dir():
        known |= {path.stem for path in (*folder.glob("*/configs/*.pbtxt"), *folder.glob("*/[0-9]*/*.pbtxt"))} - {
            "config"
        }
    hint = nearest(profile, known)
    if profile in known or not (hint or (folder is not None and folder.is_dir())):
        return ""
    return f"PROFILE: got {profile!r}, expected one of {', '.join(sorted(known))}{hint}"


def judge_value(name: str, value: str) -> str:
    """Why a value is invalid for a variable; empty if it is valid, or the variable takes any."""
    judge = _VALUES.get(name)
    expected = judge(value) if judge and value else ""
    return f"{name}: got {value!r}, expected {expected}" if expected else ""


def _number(least: float = 0, most: float = float("inf"), *, kind: type = float) -> Judge:
    def judge(value: str) -> str:
        try:
            good = least <= kind(value) <= most
        except ValueError:
            good = False
        what = "a whole number" if kind is int else "a number"
        return "" if good else f"{what} from {least} to {most}" if most < float("inf") else f"{what}, {least} or more"

    return judge


def _words(*words: str, several: bool = False) -> Judge:
    def judge(value: str) -> str:
        got = value.split() if several else [value]
        wrong = next((word for word in got if word not in words), "")
        return f"{'some' if several else 'one'} of {', '.join(words)}{nearest(wrong, words)}" if wrong else ""

    return judge


def _tag(value: str) -> str:
    """Of an image; docs/container-images.md."""
    good = re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", value)
    return "" if good else "letters, digits, _ . -, at most 128, none of . - in front"


def _torch_backend(value: str) -> str:
    """Not all that uv has: what is installed needs a hash in requirements/."""
    return "" if value in {"cpu", "auto"} else "cpu or auto: of no other build of torch the hashes are in requirements/"


def _flag(value: str) -> str:
    return "" if value == "1" else "1, or nothing"


_PORT = _number(1, 65535, kind=int)
_COUNT = _number(1, kind=int)
_VALUES: Mapping[str, Judge] = {
    **dict.fromkeys(
        (
            "HTTP_PORT", "GRPC_PORT", "TRITON_HTTP_PORT", "TRITON_GRPC_PORT", "TRITON_METRICS_PORT", "SYNC_PORT",
            "S3_PORT", "LOADTEST_UI_PORT",
        ),
        _PORT,
    ),
    **dict.fromkeys(("KEEP", "WORKERS", "COUNT", "USERS", "CONNECTIONS", "CYCLES", "REPEATS", "VERSION"), _COUNT),
    **dict.fromkeys(
        (
            "TIMEOUT_S", "SETTLE_S", "RATE", "DURATION_S", "WARM_UP_S", "P95_MS", "REQUEST_TIMEOUT_S", "SECONDS",
            "MINUTES", "SILENCE_S", "BURST_S", "UNTIL", "CPU_PRICE", "GPU_PRICE", "GPU_RATE", "RATE_PER_POD",
            "CAMERA_FPS",
        ),
        _number(),
    ),
    **dict.fromkeys(("FORCE", "YES", "ALLOW_UNPICKLING", "PUSH", "NMS_FREE", "PREDICT", "VERBOSE"), _flag),
    "POLL_S": _number(0.1),
    "FAIL_RATIO": _number(0, 1),
    "TAG": _tag,
    "PLATFORM": _words("linux/amd64", "linux/arm64"),
    "ENGINE": _words("docker", "podman", "buildah"),
    "PODS": _COUNT,
    "TORCH_BACKEND": _torch_backend,
    "INTERFACE": _words("fused", "ultralytics"),
    "PRECISION": _words("fp32", "bf16", "int8", several=True),
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
