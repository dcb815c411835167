"""`python -m worker`."""

import sys

from environment.stopping import end_at_sigterm

if __name__ == "__main__":
    end_at_sigterm()
    from worker.program import main

    sys.exit(main())
