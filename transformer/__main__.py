"""`python -m transformer`."""

import sys

from environment.stopping import end_at_sigterm

if __name__ == "__main__":
    end_at_sigterm()
    from transformer.program import main

    sys.exit(main())
