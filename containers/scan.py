"""`make images-scan`: known vulnerabilities of what `make sbom` found in the images.

What counts, and what is excepted, is in grype.yaml beside this file. The database is grype's own, which it downloads.
"""

import argparse
import sys
from pathlib import Path

from containers.base_stand_in import BuildError
from containers.build import IMAGES
from containers.supply import SBOMS, call, end, sbom_of

SETTINGS = Path(__file__).with_name("grype.yaml")


def main() -> int:
    """Print what was found in each image; 1 where that is too much."""
    argparse.ArgumentParser(prog="make images-scan", description=__doc__.partition("\n")[0]).parse_args()
    return end(_scan_all)


def _scan_all() -> None:
    found = [(each.name, sbom_of(each.name)) for each in IMAGES if sbom_of(each.name).is_file()]
    if not found:
        raise BuildError(f"{SBOMS}: got no SBOM of an image, expected one for each; next: make sbom")
    failed = []
    for name, path in found:
        print(f"{name}:", flush=True)
        try:
            print(call("grype", f"sbom:{path}", "--config", str(SETTINGS), what=name))
        except BuildError as exc:
            failed.append(name)
            print(exc, file=sys.stderr)
    if failed:
        raise BuildError(f"{', '.join(failed)}: got a vulnerability that has a fix, or no scan; expected neither")


if __name__ == "__main__":
    sys.exit(main())
