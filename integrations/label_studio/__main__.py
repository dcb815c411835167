"""`python -m integrations.label_studio --model digit-finder`; secrets come from the environment."""

import argparse
import logging
import os

import uvicorn

from integrations.label_studio.backend import Backend, app
from integrations.label_studio.images import Images
from integrations.nereid_client import Nereid, NereidError


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="python -m integrations.label_studio",
        description="An ML backend for Label Studio, whose predictions are those of a model of Nereid. Environment: "
        "NEREID_API_KEY; LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY, for files that Label Studio keeps; BASIC_AUTH_USER "
        "and BASIC_AUTH_PASS, which Label Studio must then send.",
    )
    parser.add_argument("--model", required=True, help="name of the model")
    parser.add_argument("--url", default="", help="of Nereid (NEREID_URL, else http://localhost:8080)")
    parser.add_argument("--confidence", type=float, help="threshold (the server's default)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=9090, help="port to listen on (%(default)s)")
    parser.add_argument(
        "--image-hosts", nargs="*", default=[], help="hosts beside Label Studio that images are fetched from; * for all"
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # its lines have the signatures of addresses
    env = os.environ.get
    images = Images(env("LABEL_STUDIO_URL", ""), env("LABEL_STUDIO_API_KEY", ""), frozenset(options.image_hosts))
    try:
        # Label Studio waits 3 s for /setup and 100 s for /predict.
        nereid = Nereid(options.model, options.url, timeout_s=30.0, patience_s=30.0)
    except NereidError as error:
        parser.error(str(error))
    backend = Backend(nereid, images, options.confidence)
    uvicorn.run(
        app(backend, env("BASIC_AUTH_USER", ""), env("BASIC_AUTH_PASS", "")), host=options.host, port=options.port
    )


if __name__ == "__main__":
    main()
