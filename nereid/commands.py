"""The commands of `nereid`, and the program that each of them is."""

from typing import NamedTuple


class Command(NamedTuple):
    """One command.

    Attributes:
        group: heading in the list of commands.
        summary: line in that list.
        module: the program, as `python -m <module>` runs it.
        words: arguments in front of the user's.
        needs: what it needs beside `.venv/.stack`, as targets of make.
    """

    group: str
    summary: str
    module: str
    words: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


TRITON, MODELS, SIGNING = ".venv-triton/.installed", "models-fp32", ".venv/.signing"
_LOADTEST = (".venv/.loadtest",)

COMMANDS = {
    "serve": Command("serve", "serve a model repository until Ctrl-C", "stack", needs=(TRITON, MODELS)),
    "demo": Command(
        "serve", "serve the shipped models, send each a request, stop", "stack.demo", needs=(TRITON, MODELS)
    ),
    "status": Command("serve", "what a running `nereid serve` serves", "stack.status"),
    "batch": Command("serve", "predictions for a folder, a prefix of a bucket or a table", "worker.batch"),
    "worker": Command("serve", "take messages from SQS, write results to S3", "worker"),
    "key": Command("serve", "make an API key", "transformer.auth"),
    "s3": Command("serve", "an S3 server for development, in memory", "stack.s3", needs=(".venv/.s3",)),
    "export": Command("models", "add a model: .pt .onnx .engine .joblib .pkl .json .ubj", "nereid.exporters"),
    "publish": Command("models", "upload a version to a repository that is served", "export", ("publish",), (SIGNING,)),
    "sign": Command("models", "sign versions that are published already", "export", ("sign",), (SIGNING,)),
    "fetch": Command("models", "copy a version of a repository to a local one", "export", ("fetch",)),
    "versions": Command("models", "list the versions of a repository, and what serves", "export", ("versions",)),
    "rollback": Command("models", "pin the version before the one that serves", "export", ("rollback",)),
    "unpin": Command("models", "let the newest version serve again", "export", ("unpin",)),
    "prune": Command("models", "delete old versions", "export", ("prune",)),
    "sizing": Command("models", "memory, disks and requests of a repository", "export", ("sizing",)),
    "loadtest": Command("measure", "latency under load", "loadtest.latency", ("run",), _LOADTEST),
    "loadtest-cold": Command("measure", "latency after silence", "loadtest.latency", ("cold",), _LOADTEST),
    "loadtest-ui": Command("measure", "Locust's web page", "loadtest.latency", ("ui",), _LOADTEST),
    "capacity": Command("measure", "highest rate within a limit of p95", "loadtest.latency", ("capacity",), _LOADTEST),
    "plan": Command("measure", "pods and price of a rate, what breaks first", "loadtest.growth", ("plan",), _LOADTEST),
    "queueing": Command(
        "measure", "how long requests wait, by utilisation", "loadtest.growth", ("queueing",), _LOADTEST
    ),
    "flood": Command("measure", "2, 5 and 10 times the capacity", "loadtest.flood", needs=_LOADTEST),
    "soak": Command("measure", "half an hour of load, a swap every minute", "loadtest.soak", needs=_LOADTEST),
    "profiles": Command(
        "measure", "which profile is best on this machine", "loadtest.profiles", needs=(TRITON, *_LOADTEST)
    ),
    "swap": Command("measure", "what a swap of a model costs", "loadtest.swap", needs=_LOADTEST),
    "protocols": Command("measure", "what each protocol adds to a request", "loadtest.protocols"),
}
