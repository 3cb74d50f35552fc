"""Certificates for tests, made by OpenSSL's command line."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.validators import require_tool


@dataclass(frozen=True)
class Issued:
    """A certificate and its private key, as PEM files."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates; ``certificate`` is its own."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self.certificate, self._key = folder / f"{name}.pem", folder / f"{name}.key"
        subject = ["-subj", f"/O=Clinic/CN={name}", "-days", "365"]
        _openssl("req", "-x509", *_NEW_KEY, "-keyout", self._key, "-out", self.certificate, *subject)

    def issue(self, name: str, days: int = 365, usage: str = "clientAuth,serverAuth", file: str = "") -> Issued:
        """A certificate for ``O=Clinic, CN=name``, valid for so many days; with fewer than 0 it has expired."""
        stem = self._folder / (file or name)
        issued = Issued(stem.with_suffix(".pem"), stem.with_suffix(".key"))
        request, extensions = stem.with_suffix(".csr"), stem.with_suffix(".ext")
        extensions.write_text(f"subjectAltName=DNS:{name}.clinic.example,IP:127.0.0.1\nextendedKeyUsage={usage}\n")
        _openssl("req", *_NEW_KEY, "-keyout", issued.key, "-out", request, "-subj", f"/O=Clinic/CN={name}")
        signed = ["-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial", "-extfile", extensions]
        _openssl("x509", "-req", "-in", request, *signed, "-days", str(days), "-out", issued.certificate)
        return issued

    def revocations(self, *revoked: Issued, file: str = "revoked") -> Path:
        """Its list of revoked certificates."""
        configuration, target = self._folder / "ca.cnf", self._folder / f"{file}.crl"
        database = self._folder / "index.txt"
        database.write_text("")
        configuration.write_text(
            f"[ca]\ndefault_ca=own\n[own]\ndatabase={database}\ndefault_md=sha256\ndefault_crl_days=30\n"
            f"certificate={self.certificate}\nprivate_key={self._key}\n"
        )
        for one in revoked:
            _openssl("ca", "-config", configuration, "-revoke", one.certificate)
        _openssl("ca", "-config", configuration, "-gencrl", "-out", target)
        return target


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def _openssl(*arguments: str | Path) -> None:
    subprocess.run([require_tool("openssl"), *arguments], check=True, capture_output=True)
