"""URLs of files and folders that other hosts reach too: which there may be, and how one is written."""

SCHEMES = ("s3", "memory")
"""What an object store is spoken to by. `memory` is this process alone: for tests. A `file://` URL is a local path."""


def is_remote(text: str) -> bool:
    """Whether `text` is a URL, other than one of a local file. What is no URL is a path."""
    return "://" in text and not text.lower().startswith("file://")


def local_path(text: str) -> str:
    """The path that a `file:///...` URL names; a path as it is. Raises ValueError: if the URL names a host."""
    if not text.lower().startswith("file://"):
        return text
    path = text[len("file://") :]
    if not path.startswith("/"):
        raise ValueError("is no file:/// URL with an absolute path")
    return path


def normal_url(text: str) -> str:
    """`text` with its scheme in small letters and no slash at its end.

    Raises ValueError: if the scheme is not one of `SCHEMES`, or the URL has no bucket, credentials, empty parts, `.` or
    `..`, or chains filesystems.
    """
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    if scheme not in SCHEMES:
        known = ", ".join(f"{each}://" for each in (*SCHEMES, "file"))
        raise ValueError(f"begins with {scheme[:40]}://, which is refused; known are {known}")
    parts = (rest.lstrip("/") if scheme == "memory" else rest).rstrip("/").split("/")
    if not parts[0]:
        raise ValueError(f"names no {'folder' if scheme == 'memory' else 'bucket'}")
    if "@" in parts[0]:
        raise ValueError("has credentials in it; they belong into the environment (AWS_ACCESS_KEY_ID, ...)")
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError("has an empty part, '.' or '..' in its path")
    return f"{scheme}://{'/'.join(parts)}"


def is_beneath(url: str, prefix: str) -> bool:
    """Whether `url` is `prefix` or below it; both are normal."""
    return url == prefix or url.startswith(f"{prefix}/")
