"""The models that a running stack on this machine serves: `nereid status`."""

import sys

import httpx
from rich.console import Console
from rich.markup import escape

from environment import api_key
from environment.arguments import Parser
from environment.listening import join, within_reach
from stack.announce import accepts, describe_models, find_waiting_for, iterate_rejected
from stack.settings import StackSettings


def main() -> int:
    """Print the models; 0 if the stack is ready, 1 if it is not, or does not run."""
    parser = Parser(prog="nereid status", description=(__doc__ or "").partition(":")[0])
    default = StackSettings()
    parser.add_argument("--http-port", type=int, default=default.http_port, help="of the stack (default: %(default)s)")
    settings = default.model_copy(update={"http_port": parser.parse_args().http_port})
    console = Console(highlight=False)
    host = within_reach(settings.transformer_host)
    if not accepts(host, settings.http_port):
        print(f"error: nothing listens on {join(host, settings.http_port)}; next: nereid serve", file=sys.stderr)
        return 1
    with httpx.Client(base_url=settings.url, headers=api_key.headers(), trust_env=False, timeout=30) as transformer:
        try:
            transformer.get("/v2/health/ready").raise_for_status()
            lines, _ = describe_models(settings, transformer, settings.url)
        except httpx.HTTPError:
            lines = [f"not ready, waiting for {escape(find_waiting_for(settings, transformer))}"]
            lines += [f"  [red]{escape(line)}[/]" for line in iterate_rejected(transformer)]
            console.print(*lines, sep="\n", soft_wrap=True)
            return 1
    console.print(*lines, sep="\n", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
