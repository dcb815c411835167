"""The transformer on a kernel that takes no filter: `python -m tests.support.unconfinable`, with its arguments."""

import os
import sys

from transformer.__main__ import main
from transformer.confinement import _ALLOW, _EQUAL, _MACHINES, _NO_SUCH_CALL, _RETURN, _install, _instruction

if __name__ == "__main__":
    number = _MACHINES[os.uname().machine][2]
    _install(lambda _: [_instruction(_EQUAL, number, otherwise=1), _instruction(_RETURN, _NO_SUCH_CALL)], _ALLOW)
    sys.exit(main())
