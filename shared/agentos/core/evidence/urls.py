"""ARTIFACT_EXISTS and FILE_SHA256 of a URL: what another host can check too.

Only below the prefixes that are allowed (by default the artifact store), so that evidence, which a model may have
written, reaches no other place by this host's credentials. A check that could not be made does not hold: going on from
a checkpoint whose files nobody could see would be a guess.
"""

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

from agentos.core.evidence.claim import Evidence
from agentos.core.evidence.files import as_claimed, same_content, wanted_sha256
from agentos.core.evidence.patience import within
from agentos.core.evidence.remote import filesystem
from agentos.core.evidence.verdict import Refuted
from agentos.core.evidence.world import UrlRules, World
from agentos.core.process import monotonic
from agentos.store.redact import redact
from agentos.store.urls import is_beneath, normal_url

T = TypeVar("T")

CHUNK = 4 * 1024 * 1024


def url_exists(evidence: Evidence, world: World) -> str:
    """Why the claim holds. Raises Refuted: if it does not, or nobody could tell."""
    rules = world.url_rules()
    url = _allowed(evidence, rules)
    found = within(rules.timeout_s, url, lambda: _looked(url, lambda: filesystem(url).info(url)))
    return as_claimed(evidence, found["type"], found.get("size") or 0)


def url_sha256(evidence: Evidence, world: World) -> str:
    """Why the claim holds. Raises Refuted: if it does not, or nobody could tell."""
    wanted_sha256(evidence)
    rules = world.url_rules()
    url = _allowed(evidence, rules)
    return same_content(evidence, within(rules.timeout_s, url, lambda: _looked(url, lambda: _sha256(url, rules))))


def _allowed(evidence: Evidence, rules: UrlRules) -> str:
    named = evidence.expected["path"]
    try:
        url = normal_url(named)
    except ValueError as error:
        raise Refuted(f"{redact(named, limit=200)} {error}") from None
    if not any(is_beneath(url, prefix) for prefix in rules.prefixes):
        allowed = ", ".join(rules.prefixes) or "none"
        raise Refuted(f"{url} is below none of the allowed URLs ({allowed}); AGENTOS_EVIDENCE_URLS sets them")
    return url


def _sha256(url: str, rules: UrlRules) -> str:
    digest, until = hashlib.sha256(), monotonic() + rules.timeout_s
    fs = filesystem(url)
    found = fs.info(url)
    if found["type"] != "file":
        raise Refuted(f"{url} is a {found['type']}, expected a file")
    if found["size"] > rules.max_bytes:
        raise Refuted(f"{url} has {found['size']:,} bytes; more than {rules.max_bytes:,} (AGENTOS_EVIDENCE_MAX_MB) "
                      "are not read")  # fmt: skip
    with fs.open(url, "rb", block_size=CHUNK) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            if monotonic() > until:  # nobody waits for the answer any more
                raise Refuted(f"{url} could not be read within {rules.timeout_s:g} s")
    return digest.hexdigest()


def _looked(url: str, look: Callable[[], T]) -> T:
    try:
        return look()
    except (Refuted, MemoryError):
        raise
    except ImportError:
        raise Refuted(f"{url} could not be checked: a package is missing (pip install 'agentos-pool[s3]')") from None
    except FileNotFoundError:
        raise Refuted(f"{url} does not exist") from None
    except PermissionError as error:
        raise Refuted(f"{url} may not be read by this process: {_said(error)}") from None
    except Exception as error:  # of fsspec, of a client below it, of the network: nobody could tell
        raise Refuted(f"{url} could not be checked: {_said(error)}") from None


def _said(error: Exception) -> Any:
    return redact(f"{type(error).__name__}: {error}".splitlines()[0], limit=300)
