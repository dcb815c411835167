"""`python -m loadtest.latency run|cold|capacity|ui`: latency tests with Locust against a running server."""

import sys

from gevent import monkey

monkey.patch_all()  # before anything that opens sockets is imported

from loadtest.latency.command import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
