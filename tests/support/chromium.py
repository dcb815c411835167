"""The Chromium of this machine, which tests/browser drives; without any package, so that .ci/run can look first."""

import shutil
import sys

# Debian's and Fedora's name, Ubuntu's, and those of Google's packages.
_PROGRAMS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
MISSING = "Chromium is missing; next: apt-get install --no-install-recommends chromium"


def find_chromium() -> str | None:
    """The path of the program; None where there is none."""
    return next((path for name in _PROGRAMS if (path := shutil.which(name))), None)


if __name__ == "__main__" and not find_chromium():
    sys.exit(f"error: {MISSING}")
