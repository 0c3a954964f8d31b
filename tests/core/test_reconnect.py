"""A fleet whose server comes back does not do so in one moment."""

from collections.abc import Callable

from tests.coordinator.daemon import until

from agentos.core.presence import Presence
from agentos.store.connect import Database, connect
from agentos.store.embedded import EmbeddedServer
from agentos.store.migrate import migrate
from agentos.store.settings import load_settings

FLEET = 20
BEATS = (
    "SELECT count(*), extract(epoch FROM max(backend_start) - min(backend_start))::float8,"
    " count(DISTINCT floor(extract(epoch FROM backend_start) * 10))"
    " FROM pg_stat_activity WHERE application_name LIKE 'agentos-beat%'"
)


def spread(server: EmbeddedServer, dsn: str, fleet: list[Presence]) -> bool:
    """Whether the beats come back spread after a restart."""
    server.stop(force=True)
    until(lambda: all(each.heartbeat.age_s > 1.5 for each in fleet))  # every one has missed a beat
    server.ensure_running()
    with connect(dsn) as conn:
        until(lambda: (conn.execute(BEATS).fetchone() or (0,))[0] == FLEET)
        count, spread_s, tenths = conn.execute(BEATS).fetchone() or (0, 0, 0)
    print(f"{count} beats came back within {spread_s:.2f} s, in {tenths} different tenths of a second")
    return bool(spread_s > 0.3 and tenths >= 4)


def test_twenty_beats_come_back_spread_over_a_second(own_server: Callable[..., EmbeddedServer]) -> None:
    server = own_server({"fsync": "off"})
    dsn = server.ensure_running()
    with connect(dsn) as conn:
        migrate(conn)
    db = Database(dsn, max_size=4)
    fleet = [
        Presence(db, role="worker", settings=load_settings(dsn=dsn, ttl_s=60, beat_s=1)).start() for _ in range(FLEET)
    ]
    try:
        # All of them are threads of this process: one that stands still for a second when the server is back wakes them
        # all at once, whatever they had drawn. Not three times in a row.
        assert any(spread(server, dsn, fleet) for _ in range(3))
    finally:
        for each in fleet:
            each.heartbeat.stop()
        db.close()
