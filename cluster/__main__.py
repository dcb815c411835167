"""`python -m cluster`: see `commands`."""

import signal
import sys

if __name__ == "__main__":
    # Ctrl-C during the imports ends without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from cluster.commands import main

    sys.exit(main())
