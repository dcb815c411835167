"""`make images-sign`, `make images-verify`: signatures of pushed images and of their SBOMs, by cosign.

With a key the signature is beside the image alone. Without one (`keyless`) the certificate is Sigstore's for the OIDC
identity of the pipeline, and the signature is entered in its public log.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

from containers.base_stand_in import BuildError
from containers.digests import read_digests
from containers.supply import call, check_sbom, end

KEYLESS = "keyless"
_SBOM = ["--type", "cyclonedx"]
# Without the public log and without what Sigstore's servers say about themselves: a key needs neither.
_OF_A_KEY = ["--use-signing-config=false", "--tlog-upload=false"]


def main() -> int:
    """Sign what DIGESTS names, or verify it."""
    parser = argparse.ArgumentParser(prog="make images-sign", description=__doc__.partition("\n")[0])
    parser.add_argument("step", choices=["sign", "verify"])
    parser.add_argument("--digests", type=Path, required=True, help="the file of make images PUSH=1")
    parser.add_argument("--sign", default="", help=f"sign: a private key of cosign, or {KEYLESS}")
    parser.add_argument("--signed-by", default="", help="verify: a public key, or <identity>@@<issuer>")
    options = parser.parse_args()
    if not (options.sign if options.step == "sign" else options.signed_by):
        parser.error("SIGN, COSIGNED_BY: missing; see docs/pipelines.md")
    if options.step == "sign":
        return end(partial(_sign_all, options.digests, options.sign))
    return end(partial(_verify_all, options.digests, options.signed_by))


def _sign_all(digests: Path, sign: str) -> None:
    key = [] if sign == KEYLESS else ["--key", sign, *_OF_A_KEY]
    if key and not Path(sign).is_file():
        raise BuildError(
            f"SIGN: got {sign}, expected a private key of cosign, or {KEYLESS}; next: cosign generate-key-pair"
        )
    for name, pushed in read_digests(digests).items():
        sbom = check_sbom(name, pushed)
        call("cosign", "sign", "--yes", *key, pushed, what=pushed)
        call("cosign", "attest", "--yes", *_SBOM, "--predicate", str(sbom), *key, pushed, what=pushed)
        print(f"signed: {pushed}", flush=True)


def _verify_all(digests: Path, signed_by: str) -> None:
    for pushed in read_digests(digests).values():
        by = _by(signed_by)
        call("cosign", "verify", *by, pushed, what=pushed)
        call("cosign", "verify-attestation", *_SBOM, *by, pushed, what=pushed)
        print(f"verified: {pushed}", flush=True)


def _by(signed_by: str) -> list[str]:
    identity, separator, issuer = signed_by.partition("@@")
    if separator:
        return ["--certificate-identity", identity, "--certificate-oidc-issuer", issuer]
    return ["--key", signed_by, "--insecure-ignore-tlog=true"]


if __name__ == "__main__":
    sys.exit(main())
