"""How a connection travels: encrypted, unless both ends are on this machine or somebody said that it need not be.

A DSN to another host that does not say `sslmode` gets `require`, and so does one that only prefers it: where the server
has TLS nothing changes, where it has none the connection is refused instead of sending all of it in plain text. Told
is `sslmode=disable`, or `AGENTOS_ALLOW_PLAINTEXT=true`. No name is looked up: only `localhost` is this machine.
"""

import ipaddress
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import asyncpg
import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from agentos.store.errors import TransportRefused
from agentos.store.settings import load_settings

LOOSE = (None, "allow", "prefer")
"""What libpq makes of a DSN that says nothing, and what amounts to it: encrypted if it so happens."""
LIBPQ_ONLY = frozenset({
    "channel_binding", "client_encoding", "connect_timeout", "gssdelegation", "gssencmode", "keepalives",
    "keepalives_count", "keepalives_idle", "keepalives_interval", "load_balance_hosts", "max_protocol_version",
    "min_protocol_version", "require_auth", "requirepeer", "requiressl", "sslcertmode", "sslcompression", "sslcrldir",
    "sslsni", "tcp_user_timeout",
})  # fmt: skip
"""Parameters of a DSN that asyncpg would send to the server, which refuses the connection then."""
NO_TLS = (
    "turn TLS on at the server; or say that plain text is meant: sslmode=disable in the DSN, or "
    "AGENTOS_ALLOW_PLAINTEXT=true"
)
NOT_TRUSTED = (
    "check that the DSN names the host that the certificate is for, that it has not expired, and that sslrootcert= "
    "names the CA that signed it (sslrootcert=system: those of this machine)"
)
_PLAIN = ("does not support SSL", "rejected SSL upgrade")
_UNTRUSTED = (
    "certificate verify failed",
    "does not match host name",
    "root certificate file",
    "root.crt",
    "CERTIFICATE",
)


def endpoints(dsn: str) -> tuple[tuple[str, str], ...]:
    """Host and port of each server that the DSN names; a host of "" is a Unix socket at its default place.

    Raises psycopg.ProgrammingError: if it cannot be read.
    """
    said = _parameters(dsn)
    hosts = (said.get("host") or said.get("hostaddr") or "").split(",")
    ports = (said.get("port") or "5432").split(",")
    return tuple((host, ports[n] if len(ports) > n else ports[-1]) for n, host in enumerate(hosts))


def is_here(host: str) -> bool:
    """Whether a connection to it never leaves this machine."""
    if not host or host[0] in "/@" or host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def must_encrypt(dsn: str) -> bool:
    """Whether TLS is required that the DSN itself does not require."""
    said = _parameters(dsn)
    if said.get("sslmode") not in LOOSE or load_settings().allow_plaintext:
        return False
    addresses = said.get("hostaddr") or said.get("host") or ""
    elsewhere = said.get("service") and not addresses  # the service file says where
    return bool(elsewhere) or not all(is_here(host) for host in addresses.split(","))


def for_psycopg(dsn: str) -> dict[str, Any]:
    """What to pass to psycopg beside the DSN. Raises psycopg.ProgrammingError: if it cannot be read."""
    return {"sslmode": "require"} if must_encrypt(dsn) else {}


def for_asyncpg(dsn: str) -> dict[str, Any]:
    """What to pass to asyncpg, the DSN included: without what only libpq knows.

    Raises TransportRefused: if the file that sslrootcert names is not there.
    """
    parts = urlsplit(dsn)
    query = parse_qsl(parts.query, keep_blank_values=True)
    kept = [(name, value) for name, value in query if name not in LIBPQ_ONLY]
    options: dict[str, Any] = {"ssl": "require"} if must_encrypt(dsn) else {}
    root = dict(kept).get("sslrootcert", "system")
    if root != "system" and not Path(root).exists():  # asyncpg does not say which file
        raise TransportRefused(f'root certificate file "{root}" does not exist', hint=NOT_TRUSTED)
    if ("sslrootcert", "system") in kept:  # libpq's word for the CAs of this machine, and it implies verify-full
        kept = [pair for pair in kept if pair[0] not in ("sslrootcert", "sslmode")]
        options = {"ssl": ssl.create_default_context()}
    return {"dsn": urlunsplit(parts._replace(query=urlencode(kept))) if kept != query else dsn, **options}


def refusal(exc: BaseException) -> tuple[str, str] | None:
    """What happened and the fix, if it was the transport that one end refused; neither driver has a code for that."""
    if isinstance(exc, asyncpg.ClientConfigurationError | OSError | psycopg.OperationalError):
        text = str(exc)
        if any(part in text for part in _PLAIN):
            return "the server offers no TLS, and plain text to another host is refused", NO_TLS
        if isinstance(exc, ssl.SSLCertVerificationError) or any(part in text for part in _UNTRUSTED):
            return f"the server's certificate is not accepted: {_reason(text)}", NOT_TRUSTED
    return None


def _reason(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[0].removeprefix("connection failed: ")


def _parameters(dsn: str) -> dict[str, str | None]:
    """What the environment says (PGHOST, PGSSLMODE, …), and over it the DSN."""
    environment = {
        option.keyword.decode(): option.val.decode() for option in pq.Conninfo.get_defaults() if option.val is not None
    }
    built_in = {"sslmode": "prefer", "port": "5432"}
    said = {name: value for name, value in environment.items() if built_in.get(name) != value}
    return {**said, **{name: str(value) for name, value in conninfo_to_dict(dsn).items() if value is not None}}
