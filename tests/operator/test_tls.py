"""The endpoint's certificate: made, renewed, and read from a folder; handshakes are real."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from llmtrain_operator import tls
from llmtrain_operator.tls import (
    Authority,
    CertificateError,
    Material,
    authority_from_folder,
    authority_in_memory,
)

HOST = "llmtrain.llmtrain-system.svc"
NOW = datetime.now(UTC)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def shake_hands(authority: Authority, ca: str, host: str = HOST) -> x509.Certificate:
    """Returns the certificate that the endpoint shows to a trainer that trusts `ca`."""
    near, far = socket.socketpair()
    trust = ssl.create_default_context(cadata=ca)
    trust.verify_flags |= ssl.VERIFY_X509_STRICT  # The default from Python 3.13 on.

    def serve() -> None:
        try:
            authority.ssl_context().wrap_socket(far, server_side=True).close()
        except OSError:
            far.close()  # The client turned it down, which is what it will say.

    server = threading.Thread(target=serve)
    server.start()
    try:
        with trust.wrap_socket(near, server_hostname=host) as client:
            shown = client.getpeercert(binary_form=True)
    finally:
        near.close()
        server.join()
    assert shown is not None
    return x509.load_der_x509_certificate(shown)


def write_folder(folder: Path, material: Material) -> None:
    (folder / "ca.crt").write_text(material.ca)
    (folder / "tls.crt").write_text(material.certificate)
    (folder / "tls.key").write_text(material.key)


def made_elsewhere() -> Material:
    """Returns a certificate as cert-manager would put it into a Secret."""
    return authority_in_memory([HOST])._material


def test_a_trainer_that_was_given_the_authority_connects() -> None:
    authority = authority_in_memory([HOST, f"{HOST}.cluster.local"])
    for host in (HOST, f"{HOST}.cluster.local"):
        shake_hands(authority, authority.ca_pem, host)


def test_another_name_is_not_trusted() -> None:
    authority = authority_in_memory([HOST])
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(authority, authority.ca_pem, "elsewhere.svc")


def test_a_certificate_of_an_earlier_operator_is_not_trusted() -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
        shake_hands(authority_in_memory([HOST]), authority_in_memory([HOST]).ca_pem)


def test_each_start_makes_an_authority_of_its_own() -> None:
    assert authority_in_memory([HOST]).ca_pem != authority_in_memory([HOST]).ca_pem


def test_a_clock_that_is_half_an_hour_behind_is_no_trouble() -> None:
    certificate = shake_hands(authority := authority_in_memory([HOST]), authority.ca_pem)
    assert certificate.not_valid_before_utc < NOW - timedelta(minutes=30)


def test_a_certificate_is_renewed_before_it_ends_under_the_same_authority() -> None:
    clock = Clock()
    clock.now -= timedelta(days=21)  # Handshakes go by the real time.
    authority = authority_in_memory([HOST], clock)
    ca = authority.ca_pem
    first = shake_hands(authority, ca)
    clock.now += timedelta(days=19)
    assert not authority.refresh()
    assert shake_hands(authority, ca) == first
    clock.now += timedelta(days=2)
    assert not authority.refresh(), "trainers need not be told: the authority is the same"
    second = shake_hands(authority, ca)
    assert second.not_valid_after_utc == first.not_valid_after_utc + timedelta(days=21)


def test_a_folder_is_read_again_when_it_changes(tmp_path: Path) -> None:
    first, second = made_elsewhere(), made_elsewhere()
    write_folder(tmp_path, first)
    authority = authority_from_folder(tmp_path)
    shake_hands(authority, first.ca)
    assert not authority.refresh()
    write_folder(tmp_path, second)
    assert authority.refresh()
    assert authority.ca_pem == second.ca
    shake_hands(authority, second.ca)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        pytest.param("tls.crt", None, "mount a Secret with the keys", id="a file is missing"),
        pytest.param(
            "ca.crt", "", "ca.crt: not a certificate", id="no authority, as ACME has none"
        ),
        pytest.param("tls.crt", "x", "must be PEM and belong together", id="not a certificate"),
        pytest.param("tls.crt", made_elsewhere().certificate, "belong", id="half of a new pair"),
        pytest.param("tls.key", made_elsewhere().key, "belong together", id="another key"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_and_the_old_certificate_stays(
    tmp_path: Path, name: str, text: str | None, message: str
) -> None:
    good = made_elsewhere()
    write_folder(tmp_path, good)
    authority = authority_from_folder(tmp_path)
    (tmp_path / name).unlink() if text is None else (tmp_path / name).write_text(text)
    with pytest.raises(CertificateError, match=message):
        authority.refresh()
    with pytest.raises(CertificateError, match=message):
        authority_from_folder(tmp_path)
    assert authority.ca_pem == good.ca
    shake_hands(authority, good.ca)


async def test_it_looks_for_a_new_certificate_by_itself_and_outlives_a_bad_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tls, "CHECK_EVERY_SECONDS", 0.01)
    write_folder(tmp_path, made_elsewhere())
    authority = authority_from_folder(tmp_path)
    told = asyncio.Event()
    keeping = asyncio.create_task(authority.keep_fresh(told.set))
    (tmp_path / "tls.key").write_text("x")
    await asyncio.sleep(0.05)
    assert "belong together" in caplog.text
    assert not told.is_set()
    write_folder(tmp_path, made_elsewhere())
    await asyncio.wait_for(told.wait(), 2)
    keeping.cancel()


def test_the_key_is_left_nowhere_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    authority_in_memory([HOST])
    assert list(tmp_path.iterdir()) == []
