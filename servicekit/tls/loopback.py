"""TLS as a health check on the server's own machine speaks it: with the standard library, which is loaded at once."""

import ssl
from pathlib import Path


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return how to ask a gRPC server of this machine, also one that wants to see a client's certificate.

    certificate, key: the server's own files, which its machine has; shown to it in turn.
    What the server shows is not looked at: it is asked on the loopback address and is told nothing that is secret.
    Raises OSError when the files cannot be read or do not fit.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(certificate, key)
    return context
