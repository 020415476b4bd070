"""The certificate of the progress endpoint, and the authority that trainers check it by.

By default both are made in memory when the operator starts: no cert-manager, no Secret, nothing
that GitOps could see drift. The authority's certificate is public; it reaches trainers in the
ConfigMap of their attempt, which they read again when a handshake fails. Its key never leaves this
process.

Where a platform has certificates of its own, a folder with `tls.crt`, `tls.key` and `ca.crt` (a
mounted Secret, as cert-manager writes it) takes their place and is read again when it changes.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

log = logging.getLogger(__name__)

AUTHORITY_LIFETIME = timedelta(days=3650)
"""Longer than any operator process lives; the next process makes an authority of its own."""
CERTIFICATE_LIFETIME = timedelta(days=30)
RENEW_BEFORE = timedelta(days=10)
CLOCK_SKEW = timedelta(hours=1)
"""How far a trainer's clock may be behind the operator's."""
CHECK_EVERY_SECONDS = 60.0

Clock = Callable[[], datetime]


class CertificateError(Exception):
    """The certificate cannot be used; the message says which file and what to do."""


@dataclass(frozen=True)
class Material:
    """A server certificate with its key, and the authority that vouches for it; all as PEM."""

    ca: str
    certificate: str
    key: str


class Authority:
    """Holds the TLS context of the endpoint and keeps its certificate fresh.

    `load` returns the certificate of the moment: the same `Material` until there is a newer one.

    Raises:
        CertificateError: The first certificate cannot be used.
    """

    def __init__(self, load: Callable[[], Material]) -> None:
        self._load = load
        self._material = load()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3  # Both ends are ours.
        _put_into(self._context, self._material)

    @property
    def ca_pem(self) -> str:
        """Certificates by which trainers check the endpoint, as PEM."""
        return self._material.ca

    def ssl_context(self) -> ssl.SSLContext:
        """Returns the context to listen with; it stays the same when the certificate changes."""
        return self._context

    def refresh(self) -> bool:
        """Takes up a newer certificate, if there is one, for all handshakes from now on.

        Returns:
            Whether `ca_pem` changed, so that trainers have to be told.

        Raises:
            CertificateError: The newer certificate cannot be used; the old one stays in use.
        """
        material = self._load()
        if material == self._material:
            return False
        _put_into(self._context, material)
        told, self._material = self._material.ca, material
        log.info("the progress endpoint has a new certificate")
        return told != material.ca

    async def keep_fresh(self, on_new_ca: Callable[[], None]) -> None:
        """Looks for a newer certificate every minute, until cancelled.

        A certificate that cannot be used is logged every minute and the old one stays: trainers may
        still trust it, and the endpoint must not take the operator down with it.
        """
        while True:
            await asyncio.sleep(CHECK_EVERY_SECONDS)
            try:
                if self.refresh():
                    on_new_ca()
            except CertificateError as error:
                log.error("%s", error)


def authority_in_memory(
    dns_names: Sequence[str], now: Clock = lambda: datetime.now(UTC)
) -> Authority:
    """Returns an authority made on the spot, with a certificate for `dns_names`.

    The certificate is good for 30 days and is renewed under the same authority 10 days before.
    """
    return Authority(_SelfMade(dns_names, now))


def authority_from_folder(folder: Path) -> Authority:
    """Returns the authority that a mounted Secret holds: `tls.crt`, `tls.key` and `ca.crt`.

    Raises:
        CertificateError: A file is missing, or they do not belong together.
    """
    return Authority(lambda: _read_folder(folder))


class _SelfMade:
    """Makes an authority once, and certificates under it as they run out."""

    def __init__(self, dns_names: Sequence[str], now: Clock) -> None:
        self._names = list(dns_names)
        self._now = now
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = _sign_authority(self._key, now())
        self._renew_at = now()
        self._material: Material | None = None

    def __call__(self) -> Material:
        now = self._now()
        if self._material is None or now >= self._renew_at:
            self._material = self._issue(now)
            self._renew_at = now + CERTIFICATE_LIFETIME - RENEW_BEFORE
        return self._material

    def _issue(self, now: datetime) -> Material:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _sign_server(key, self._names, self._key, self._certificate, now)
        return Material(
            ca=_pem(self._certificate),
            certificate=_pem(certificate),
            key=key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ).decode(),
        )


def _sign_authority(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "llmtrain operator")])
    return (
        _start(name, name, key.public_key(), now, AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def _sign_server(
    key: ec.EllipticCurvePrivateKey,
    names: Sequence[str],
    ca_key: ec.EllipticCurvePrivateKey,
    ca: x509.Certificate,
    now: datetime,
) -> x509.Certificate:
    # The names are in the alternative names; a common name holds 64 letters at most.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "llmtrain progress")])
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    return (
        _start(subject, ca.subject, key.public_key(), now, CERTIFICATE_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
        )
        .add_extension(authority, critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def _start(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    lifetime: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _read_folder(folder: Path) -> Material:
    try:
        ca, certificate, key = (
            (folder / name).read_text(encoding="ascii") for name in ("ca.crt", "tls.crt", "tls.key")
        )
    except (OSError, UnicodeDecodeError) as error:
        raise CertificateError(
            f"{folder}: cannot read the certificate of the progress endpoint: {error}: mount a"
            " Secret with the keys tls.crt, tls.key and ca.crt"
        ) from error
    try:
        x509.load_pem_x509_certificates(ca.encode())
    except ValueError as error:
        raise CertificateError(
            f"{folder}/ca.crt: not a certificate: {error}: trainers check the endpoint by it, put"
            " the PEM of the authority that signed tls.crt there"
        ) from error
    return Material(ca=ca, certificate=certificate, key=key)


def _put_into(context: ssl.SSLContext, material: Material) -> None:
    """Loads the certificate into `context`, or leaves the context as it was and raises."""
    with tempfile.TemporaryDirectory() as folder:  # Python's ssl reads files only.
        certificate, key = Path(folder, "tls.crt"), Path(folder, "tls.key")
        certificate.write_text(material.certificate, encoding="ascii")
        key.touch(mode=0o600)
        key.write_text(material.key, encoding="ascii")
        try:
            # A first try in a context of its own: a failed load leaves half of a pair behind.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
            context.load_cert_chain(certificate, key)
        except ssl.SSLError as error:
            raise CertificateError(
                f"the certificate of the progress endpoint cannot be used: {error}: tls.crt and"
                " tls.key must be PEM and belong together"
            ) from error
