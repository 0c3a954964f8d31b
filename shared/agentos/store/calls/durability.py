"""Whether what the database acknowledges survives a crash of its server."""

from agentos.store.run import Call


def unsafe_settings() -> Call[dict[str, str]]:
    """Settings of this session that are off and must not be, each with who set it (`database`, `user`, ...)."""
    return Call(
        "SELECT name, source FROM agentos.unsafe_settings()",
        (),
        lambda rows: {row["name"]: row["source"] for row in rows},
    )
