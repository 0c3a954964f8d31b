"""A codec for tests: what it seals cannot be read, and sealing the same twice gives different bytes."""

from cryptography.fernet import Fernet


class Vault:
    """Fernet under a name."""

    def __init__(self, name: str, key: bytes) -> None:
        self.name = name
        self._fernet = Fernet(key)

    def encode(self, content: bytes, /) -> bytes:
        return self._fernet.encrypt(content)

    def decode(self, sealed: bytes, /) -> bytes:
        return self._fernet.decrypt(sealed)


KEY = b"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
OTHER = b"OTg3NjU0MzIxMDk4NzY1NDMyMTA5ODc2NTQzMjEwOTg="
vault = Vault("vault-1", KEY)
