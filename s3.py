"""An S3 server for development: moto's, in memory, on loopback, with a bucket that keeps versions.

`make s3` runs it.
"""

import logging
import os
import signal
import socket
import sys

import httpx
from moto.server import ThreadedMotoServer

HOST = "127.0.0.1"
BUCKET = "models"
_VERSIONED = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"


def main() -> int:
    """Serve until Ctrl-C or SIGTERM; 1 when the port is not to be had."""
    try:
        port = int(os.environ.get("S3_PORT") or 9000)
        socket.create_server((HOST, port)).close()
    except (ValueError, OverflowError) as exc:
        print(f"error: S3_PORT: {exc}; expected 1 to 65535", file=sys.stderr)
        return 2
    except OSError as exc:
        print(
            f"error: S3_PORT: port {port} is taken ({os.strerror(exc.errno or 0)}); next: stop what listens there"
            f" (ss -ltnp 'sport = :{port}'), or S3_PORT=<another port>",
            file=sys.stderr,
        )
        return 1
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # in every thread: sigwait() below has them
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else a line for each request, and servers poll
    server = ThreadedMotoServer(HOST, port, verbose=False)
    server.start()
    url = f"http://{HOST}:{port}"
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
        client.put(f"/{BUCKET}").raise_for_status()
        client.put(f"/{BUCKET}", params={"versioning": ""}, content=_VERSIONED).raise_for_status()
    print(f"S3 with a bucket {BUCKET} is there; it lives in memory: its contents are lost at the end (Ctrl-C)")
    print("in another terminal:")
    # moto takes any key.
    print(f"export AWS_ENDPOINT_URL={url} AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local AWS_REGION=us-east-1")
    print(f"make publish MODEL=digits REPOSITORY=s3://{BUCKET}/demo", flush=True)
    signal.sigwait(signals)
    server.stop()
    print("stopped; its contents are gone")
    return 0


if __name__ == "__main__":
    sys.exit(main())
