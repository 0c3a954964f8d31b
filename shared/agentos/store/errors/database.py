"""The database cannot be used as it is."""

from agentos.store.errors.base import AgentOSError


class DatabaseError(AgentOSError):
    """The database cannot be used as it is."""


class DatabaseBusy(DatabaseError):
    """A lock or a statement took longer than its limit, or a deadlock was broken. Nothing was written."""


class DatabaseTooOld(DatabaseError):
    """The server is older than PostgreSQL 15."""


class DatabaseUnavailable(DatabaseError):
    """The server cannot be reached, or the connection broke and the outcome of the call is not known."""


class EngineReplaced(DatabaseUnavailable):
    """`agentos migrate` replaced the functions of the database while the call ran; it was rolled back. Call again."""


class EmbeddedFailed(DatabaseError):
    """The embedded server could not be created, started or stopped where it is kept (access, space, version)."""


class EmbeddedUnsupported(DatabaseError):
    """The embedded server cannot run on this platform; a DSN is needed."""


class EmbeddedInUse(DatabaseError):
    """The embedded server has living users and was not stopped."""


class MissingPrivilege(DatabaseError):
    """The role may not do what was asked (SQLSTATE 42501)."""


class SchemaIncomplete(DatabaseError):
    """The schema is half migrated, or older than this version of agentos."""


class SchemaMissing(DatabaseError):
    """The database has no agentos schema."""


class SchemaTooNew(DatabaseError):
    """The schema was migrated by a newer agentos than this one."""


class TransportRefused(DatabaseUnavailable):
    """The connection would not be encrypted although it leaves this machine, or the server's certificate is not
    accepted: another host's, expired, or of a CA that is not trusted.
    """
