"""`make sbom`: what is in the images and in .venv, as CycloneDX, a file for each.

Of images that were pushed, where DIGESTS names them: read from the registry. Otherwise of those on this machine.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from containers.base_stand_in import BuildError, check
from containers.build import ENGINES, IMAGES, ROOT, find_engine, native_platform, version
from containers.digests import read_digests
from containers.supply import SBOMS, call, end, sbom_of

ENVIRONMENT = "environment"  # .venv, beside the images
# The packages alone, not the libraries of others that are compiled into some of them, which take most of the time.
_INSTALLED = ("--override-default-catalogers", "python-installed-package-cataloger")


def main() -> int:
    """Write the files, and print a table."""
    parser = argparse.ArgumentParser(prog="make sbom", description=__doc__.partition("\n")[0])
    parser.add_argument("--digests", type=Path, help="the file of make images PUSH=1 (default: images of this machine)")
    parser.add_argument("--engine", choices=ENGINES, help="(default: the first of these that works)")
    parser.add_argument("--registry", default="nereid", help="in front of the images' names (default: %(default)s)")
    parser.add_argument("--tag", default=version(), help="(default: the version in pyproject.toml, %(default)s)")
    parser.add_argument("--only", choices=[image.name for image in IMAGES], default="", help="(default: all)")
    return end(partial(_write_all, parser.parse_args()))


def _write_all(options: argparse.Namespace) -> None:
    table = Table("of", "packages", "by kind", "s", title=f"SBOMs in {SBOMS.relative_to(ROOT)}")
    SBOMS.mkdir(parents=True, exist_ok=True)
    named_all = _named(options)
    # What another run has left is of other images.
    for stale in SBOMS.glob("*.cdx.json") if ENVIRONMENT in named_all else []:
        stale.unlink()
    for name, named in named_all.items():
        began = time.monotonic()
        target = sbom_of(name)
        if name == ENVIRONMENT:
            write_sbom(f"dir:{ROOT / '.venv'}", target, name, named, *_INSTALLED)
        elif options.digests:
            write_sbom(f"registry:{named}", target, name, named)
        else:
            _write_local(options.engine or find_engine(), named, target, name)
        kinds = count_packages(target)
        if not kinds:
            raise BuildError(f"{target}: got no package, expected those of {named}")
        shown = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
        table.add_row(named, str(sum(kinds.values())), shown, f"{time.monotonic() - began:.0f}")
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)


def _named(options: argparse.Namespace) -> dict[str, str]:
    """What is described: the names of files, and of images."""
    if options.digests:
        return {**read_digests(options.digests), ENVIRONMENT: f".venv of {version()}"}
    wanted = [each.name for each in IMAGES if options.only in {"", each.name} and native_platform() in each.platforms]
    named = {name: f"{options.registry.rstrip('/')}/{name}:{options.tag}" for name in wanted}
    return named if options.only else {**named, ENVIRONMENT: f".venv of {version()}"}


def _write_local(engine: str, named: str, target: Path, name: str) -> None:
    # A file, since engines differ in their sockets, and buildah has none.
    with tempfile.TemporaryDirectory() as folder:
        archive = f"{folder}/image.tar"
        saved = ["push", named, f"docker-archive:{archive}"] if engine == "buildah" else ["save", "-o", archive, named]
        check([engine, *saved], f"{named}: {engine} {saved[0]}", hint="\nnext: make images")
        write_sbom(f"docker-archive:{archive}", target, name, named)


def write_sbom(source: str, target: Path, name: str, of_version: str, *options: str) -> None:
    """Describe an image or a folder.

    Args:
        source: as syft takes it: `registry:`, `docker-archive:` or `dir:`.
        target: the file that is written.
        name: of what is described, without `nereid/`.
        of_version: its name with tag or digest.
        options: of syft.

    Raises:
        BuildError: syft is missing, or failed.
    """
    named = ["--source-name", f"nereid/{name}", "--source-version", of_version]
    call("syft", "scan", source, *named, *options, "--quiet", "--output", f"cyclonedx-json={target}", what=of_version)


def count_packages(path: Path) -> dict[str, int]:
    """Packages of an SBOM by kind (deb, pypi, ...)."""
    components = json.loads(path.read_text(encoding="utf-8")).get("components", [])
    urls = [str(each["purl"]) for each in components if "purl" in each]
    return dict(Counter(url.removeprefix("pkg:").partition("/")[0] for url in urls))


if __name__ == "__main__":
    sys.exit(main())
