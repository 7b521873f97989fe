"""Certificates that nobody but a test trusts, made when it wants one."""

import subprocess
from pathlib import Path


def new_certificate(folder: Path, place: str) -> tuple[Path, Path]:
    """A certificate for `place`, a name or an IPv4 address, good for two days, and its key, as files in `folder`."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    kind = "IP" if place.replace(".", "").isdigit() else "DNS"
    making = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    named = ("-days", "2", "-subj", f"/CN={place}", "-addext", f"subjectAltName={kind}:{place}")
    subprocess.run((*making, *named, "-keyout", key, "-out", certificate), check=True, capture_output=True)
    return certificate, key
