"""The SQL surface: signatures and views against a golden file, the size of functions, who moves what where."""

import difflib
import inspect
import os
import pkgutil
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import psycopg

import agentos.store.calls
from agentos.store.grants import SQL
from agentos.store.migrate import engine_sql

GOLDEN = Path(__file__).parents[1] / "sql_surface.txt"
LONGEST = 40
CALLS = tuple(
    import_module(f"agentos.store.calls.{module.name}") for module in pkgutil.iter_modules(agentos.store.calls.__path__)
)

FUNCTIONS = """
    SELECT format('function %s(%s) -> %s', p.proname, pg_get_function_identity_arguments(p.oid),
                  pg_get_function_result(p.oid))
      FROM pg_proc p WHERE p.pronamespace = 'agentos'::regnamespace ORDER BY 1
"""
COLUMNS = """
    SELECT format('%s %s: %s', CASE c.relkind WHEN 'v' THEN 'view' ELSE 'type' END, c.relname,
                  string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum))
      FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
     WHERE c.relnamespace = 'agentos'::regnamespace AND c.relkind IN ('v', 'c') AND a.attnum > 0 AND NOT a.attisdropped
     GROUP BY c.relkind, c.relname ORDER BY 1
"""


def surface(conn: psycopg.Connection[Any]) -> list[str]:
    conn.execute("SET search_path = ''")  # the embedded server's role is called as the schema: names would lack it
    return [row[0] for query in (FUNCTIONS, COLUMNS) for row in conn.execute(query).fetchall()]


def test_the_sql_surface_is_the_one_on_record(conn: psycopg.Connection[Any]) -> None:
    found = surface(conn)
    if os.environ.get("REMAKE_SQL_SURFACE"):
        GOLDEN.write_text("\n".join(found) + "\n")
    recorded = GOLDEN.read_text().splitlines()
    difference = "\n".join(difflib.unified_diff(recorded, found, "on record", "found", n=0, lineterm=""))
    assert found == recorded, (
        f"the SQL surface changed:\n{difference}\nIf that is meant, run REMAKE_SQL_SURFACE=1 pytest {__file__} and"
        f" commit {GOLDEN.name}; running workers of the former version must still find what they call."
    )


def bodies() -> dict[str, str]:
    """Each function's text, from CREATE to its end."""
    found = re.findall(r"^CREATE FUNCTION agentos\.(\w+)(.*?)^(?:END )?\$\$;$", engine_sql(), flags=re.M | re.S)
    return dict(found)


def test_every_function_is_found_once_and_is_short(conn: psycopg.Connection[Any]) -> None:
    rows = conn.execute("SELECT proname FROM pg_proc WHERE pronamespace = 'agentos'::regnamespace").fetchall()
    assert sorted(bodies()) == sorted(row[0] for row in rows), "no name twice, none that is not found"
    lengths = {name: body.count("\n") + 1 for name, body in bodies().items()}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST} == {}


def test_sql_is_static_but_for_the_partitions() -> None:
    dynamic = {name for name, body in bodies().items() if re.search(r"\bEXECUTE\b", body)}
    assert dynamic == {"ensure_partitions", "holds_live", "seal_partition", "drop_partition"}


def test_every_error_of_the_engine_has_a_hint() -> None:
    raised = re.findall(r"RAISE EXCEPTION.*?;", engine_sql(), flags=re.S)
    assert len(raised) >= 12
    assert [text for text in raised if "AG0" not in text or "HINT" not in text] == []


def moves() -> dict[str, dict[str, set[str]]]:
    """Which function deletes from and inserts into which place of an item."""
    places = ("lease_ready", "lease_held", "scheduled", "waiting", "outcomes")
    found: dict[str, dict[str, set[str]]] = {place: {"out": set(), "in": set()} for place in places}
    for name, body in bodies().items():
        code = re.sub(r"--.*", "", body)
        for verb, way in (("DELETE FROM", "out"), ("INSERT INTO", "in")):
            for place in re.findall(rf"{verb} agentos\.(\w+)", code):
                if place in found:
                    found[place][way].add(name)
    return found


def test_each_arrow_of_the_state_machine_has_exactly_these_functions() -> None:
    """nothing -> ready, scheduled, waiting, held; ready -> held; held -> anywhere else; parked -> ready or outcome."""
    assert moves() == {
        "lease_ready": {
            "in": {
                "submit",
                "submit_many",
                "insert_items",
                "add_items",
                "add_alike",
                "place_new",
                "release",
                "unpark",
                "requeue",
                "promote_scheduled",
                "promote_waiting",
                "ready_dependants",
                "repair_some",
                "reopen",
            },
            "out": {"take", "claim_rows_at", "give_up", "take_out"},
        },
        "lease_held": {"in": {"take", "claim_rows_at", "hand_over"}, "out": {"complete", "end_leases", "reclaim"}},
        "scheduled": {
            "in": {"submit", "submit_many", "fail", "put_off"},
            "out": {"promote_scheduled", "end_parked", "give_up", "take_out"},
        },
        "waiting": {
            "in": {"place_new", "park", "reopen"},
            "out": {
                "ready_dependants",
                "skip_dependants",
                "unpark",
                "promote_waiting",
                "repair_some",
                "end_parked",
                "give_up",
                "fail_parked",
                "take_out",
            },
        },
        "outcomes": {
            "in": {
                "complete",
                "fail",
                "quarantine",
                "skip_dependants",
                "end_parked",
                "give_up",
                "fail_parked",
                "fork_items",
            },
            "out": {"retry_task", "take_out"},
        },
    }


def test_leases_are_ended_by_these_only() -> None:
    callers = {name for name, body in bodies().items() if "agentos.end_leases(" in body} - {"end_leases"}
    assert callers == {"fail", "put_off", "release", "park"}


def test_a_place_is_never_updated_but_for_its_counters() -> None:
    updated = {
        (name, table, column)
        for name, body in bodies().items()
        for table, column in re.findall(
            r"UPDATE agentos\.(lease_ready|lease_held|scheduled|waiting|outcomes)\b.*?SET (\w+)", body
        )
    }
    assert updated == {
        ("renew", "lease_held", "expires_at"), ("ready_dependants", "waiting", "pending"),
        ("keep_outcomes", "outcomes", "kept"),
    }  # fmt: skip


def test_every_call_has_a_test() -> None:
    called = " ".join(file.read_text("utf-8") for file in GOLDEN.parent.rglob("*.py"))
    made = [
        name
        for module in CALLS
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    ]
    assert len(made) > 50
    assert [name for name in made if not re.search(rf"\b{name}\(", called)] == []


def test_every_sql_file_is_numbered_and_says_what_it_is() -> None:
    for folder in ("migrations", "functions"):
        for file in (SQL / folder).iterdir():
            assert re.fullmatch(r"\d{3,4}_\w+\.sql", file.name)
            assert file.read_text("utf-8").startswith("-- "), file.name
