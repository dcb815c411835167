"""The certificates and kubeconfigs of the cluster, as https://kubernetes.io/docs/setup/best-practices/certificates."""

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cluster.layout import API_PORT, API_SERVICE, CONTROL, DOMAIN, KUBECONFIG, NODES, STATE

FOLDER = STATE / "certificates"
_LIFETIME = datetime.timedelta(days=365)


class Authority(NamedTuple):
    """A certificate authority.

    Attributes:
        name: its files are `<name>.crt` and `<name>.key`.
    """

    name: str
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make_all() -> None:
    """Write the certificates and kubeconfigs of the cluster into FOLDER, unless they exist."""
    if KUBECONFIG.exists():
        return
    FOLDER.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority = make_authority("ca")
    sign(authority, "apiserver", names=api_names())
    sign(authority, "apiserver-to-kubelet", organization="system:masters")
    sign(make_authority("front-proxy-ca"), "front-proxy")
    _write_key("service-account", ec.generate_private_key(ec.SECP256R1()))
    for name, user, organization in (
        ("controller-manager", "system:kube-controller-manager", ""),
        ("scheduler", "system:kube-scheduler", ""),
        ("proxy", "system:kube-proxy", ""),
        ("router", "kube-router", ""),
        *((node.name, f"system:node:{node.name}", "system:nodes") for node in NODES),
    ):
        _write_kubeconfig(authority, name, user, organization, FOLDER / f"{name}.kubeconfig")
    for node in NODES:
        sign(authority, f"{node.name}-serving", names=[node.name, str(node.address)])
    _write_kubeconfig(authority, "admin", "admin", "system:masters", KUBECONFIG)


def api_names() -> list[str]:
    """Names and addresses by which clients reach the API server."""
    service = "kubernetes.default"
    names = ["kubernetes", service, f"{service}.svc", f"{service}.svc.{DOMAIN}", CONTROL.name]
    return [*names, str(API_SERVICE), str(CONTROL.address), "127.0.0.1"]


def make_authority(name: str) -> Authority:
    """Make a certificate authority that is valid for a year."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"nereid-cluster {name}")])
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        _builder(subject, subject, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    _write_key(name, key)
    _write_certificate(name, certificate)
    return Authority(name, certificate, key)


def sign(authority: Authority, name: str, *, user: str = "", organization: str = "", names: Sequence[str] = ()) -> None:
    """Write `<name>.crt` and `<name>.key` for a client and, where it has names, a server.

    Args:
        authority: signs the certificate.
        name: of the files.
        user: of the client; by default `name`.
        organization: the client's group.
        names: host names and addresses of a server.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, user or name)]
    if organization:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    builder = (
        _builder(x509.Name(attributes), authority.certificate.subject, key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([_name(each) for each in names]), critical=False)
    _write_key(name, key)
    _write_certificate(name, builder.sign(authority.key, hashes.SHA256()))


def load_authority(name: str) -> Authority:
    """Read an authority that exists."""
    key = serialization.load_pem_private_key((FOLDER / f"{name}.key").read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{name}.key: got {type(key).__name__}, expected a key of an elliptic curve")
    return Authority(name, x509.load_pem_x509_certificate((FOLDER / f"{name}.crt").read_bytes()), key)


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + _LIFETIME)
    )


def _write_key(name: str, key: ec.EllipticCurvePrivateKey) -> None:
    path = FOLDER / f"{name}.key"
    path.touch(mode=0o600)
    form = serialization.PrivateFormat.TraditionalOpenSSL  # Kubernetes reads keys of service accounts in this form
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))


def _write_certificate(name: str, certificate: x509.Certificate) -> None:
    (FOLDER / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _write_kubeconfig(authority: Authority, name: str, user: str, organization: str, path: Path) -> None:
    sign(authority, name, user=user, organization=organization)
    cluster = {
        "server": f"https://{CONTROL.address}:{API_PORT}",
        "certificate-authority": str(FOLDER / f"{authority.name}.crt"),
    }
    files = {"client-certificate": str(FOLDER / f"{name}.crt"), "client-key": str(FOLDER / f"{name}.key")}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "nereid", "cluster": cluster}],
        "users": [{"name": user, "user": files}],
        "contexts": [{"name": "nereid", "context": {"cluster": "nereid", "user": user}}],
        "current-context": "nereid",
    }
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config))
