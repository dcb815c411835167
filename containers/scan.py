"""`make images-scan`: known vulnerabilities of what `make sbom` found in the images.

What counts, and what is excepted, is in grype.yaml beside this file. The database is grype's own, which it downloads.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from containers.base_stand_in import BuildError
from containers.build import IMAGES
from containers.digests import read_digests
from containers.supply import SBOMS, call, check_sbom, end, sbom_of

SETTINGS = Path(__file__).with_name("grype.yaml")


def main() -> int:
    """Print what was found in each image; 1 where that is too much."""
    parser = argparse.ArgumentParser(prog="make images-scan", description=__doc__.partition("\n")[0])
    parser.add_argument("--digests", type=Path, help="the file of make images PUSH=1 (default: every SBOM there is)")
    return end(partial(_scan_all, parser.parse_args().digests))


def find_sboms(digests: Path | None, folder: Path = SBOMS) -> dict[str, Path]:
    """The SBOMs to scan, by the name of the image.

    Args:
        digests: the file of `make images PUSH=1`, each of which needs its own; None for those that are there.
        folder: of `make sbom`.

    Raises:
        BuildError: there is none, or one is missing or of another digest.
    """
    if digests:
        return {name: check_sbom(name, pushed, folder) for name, pushed in read_digests(digests).items()}
    found = {each.name: sbom_of(each.name, folder) for each in IMAGES if sbom_of(each.name, folder).is_file()}
    if not found:
        raise BuildError(f"{folder}: got no SBOM of an image, expected one for each; next: make sbom")
    return found


def _scan_all(digests: Path | None) -> None:
    failed = []
    for name, path in find_sboms(digests).items():
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
