"""Certificates and kubeconfig files, made with `openssl` at the first start and never shared."""

import base64
import json
from pathlib import Path

from localcluster.settings import (
    API_PORT,
    CONTEXT,
    HOST_IP,
    KEYS,
    KUBECONFIG,
    KUBERNETES_SERVICE_IP,
    NODES,
    STATE,
    node_ip,
    node_name,
)
from localcluster.shell import run, write

AUTHORITY = KEYS / "ca.crt"
_AUTHORITY_KEY = KEYS / "ca.key"
_DAYS = "3650"


def _certify(name: str, subject: str, extensions: str, *signer: str | Path) -> None:
    """Makes `NAME.key` and `NAME.crt` unless they exist."""
    certificate = KEYS / f"{name}.crt"
    if certificate.exists():
        return
    config = KEYS / f"{name}.cnf"
    write(config, f"[req]\ndistinguished_name=dn\nprompt=no\n[dn]\n[ext]\n{extensions}\n")
    new = KEYS / f"{name}.crt.new"
    request = ["openssl", "req", "-x509", "-config", config, "-extensions", "ext", "-days", _DAYS]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    files = ["-keyout", KEYS / f"{name}.key", "-out", new]
    run([*map(str, request), *key, *map(str, files), "-subj", subject, *signer])
    new.replace(certificate)


def _leaf(name: str, subject: str, names: str) -> None:
    extensions = (
        "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
        f"extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName={names}\n"
        "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid"
    )
    _certify(name, subject, extensions, "-CA", AUTHORITY, "-CAkey", _AUTHORITY_KEY)


def kubeconfig(name: str) -> Path:
    """Returns the path of a component's kubeconfig."""
    return KEYS / f"{name}.kubeconfig"


def _write_kubeconfig(name: str, path: Path) -> None:
    def inline(file: Path) -> str:
        return base64.b64encode(file.read_bytes()).decode()

    cluster = {
        "server": f"https://{HOST_IP}:{API_PORT}",
        "certificate-authority-data": inline(AUTHORITY),
    }
    user = {
        "client-certificate-data": inline(KEYS / f"{name}.crt"),
        "client-key-data": inline(KEYS / f"{name}.key"),
    }
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": CONTEXT, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": name}}],
        "current-context": CONTEXT,
    }
    text = json.dumps(config, indent=1) + "\n"  # JSON is YAML, so every client reads it.
    if not path.exists() or path.read_text() != text:
        write(path, text)


def create() -> None:
    """Makes what is missing: the authority, and a key for each component and each node."""
    STATE.mkdir(mode=0o755, exist_ok=True)
    KEYS.mkdir(mode=0o700, exist_ok=True)
    _certify(
        "ca",
        "/CN=llmtrain-dev",
        "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n"
        "subjectKeyIdentifier=hash",
    )
    if not (KEYS / "accounts.pub").exists():
        private, public = KEYS / "accounts.key", KEYS / "accounts.pub"
        curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
        run(["openssl", "genpkey", *curve, "-out", private])
        run(["openssl", "pkey", "-in", private, "-pubout", "-out", public])
    _leaf(
        "apiserver",
        "/CN=kube-apiserver",
        "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,"
        "DNS:kubernetes.default.svc.cluster.local,DNS:localhost,"
        f"IP:127.0.0.1,IP:{HOST_IP},IP:{KUBERNETES_SERVICE_IP}",
    )
    subjects = {
        "admin": "/O=system:masters/CN=admin",
        "controller-manager": "/CN=system:kube-controller-manager",
        "scheduler": "/CN=system:kube-scheduler",
        "proxy": "/CN=system:kube-proxy",
        "dns": "/CN=system:coredns",
    }
    for name, subject in subjects.items():
        _leaf(name, subject, f"DNS:{name}")
    for index in NODES:
        name = node_name(index)
        _leaf(name, f"/O=system:nodes/CN=system:node:{name}", f"DNS:{name},IP:{node_ip(index)}")
    for name in [*subjects, *map(node_name, NODES)]:
        _write_kubeconfig(name, kubeconfig(name))
    _write_kubeconfig("admin", KUBECONFIG)
