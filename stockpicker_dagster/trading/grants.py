"""What each process may do in a PostgreSQL ledger: the script that a database administrator runs once.

Three roles. Dagster's processes plan, propose, and trade on paper. The desk (console and command) takes decisions and
keeps people and accounts. A trader sends for live accounts. Dagster cannot write a decision, nor an intent, an answer
or a fill of a live account, whatever code is run in it: row-level security sees to it in the database itself. On SQLite
there are no roles: whoever can open the file can do everything.
"""

import re

from stockpicker_dagster.errors import InvalidInput

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")

READ_BY_ALL = (
    "accounts",
    "account_changes",
    "alembic_version",
    "broker_orders",
    "cash_movements",
    "corporate_actions",
    "counters",
    "decisions",
    "equity_marks",
    "execution_locks",
    "executions",
    "fills",
    "halts",
    "open_proposals",
    "order_intents",
    "outcomes",
    "paper_accounts",
    "paper_fills",
    "paper_orders",
    "paper_positions",
    "positions",
    "proposals",
    "ticket_fills",
    "ticket_orders",
    "ticket_statements",
    "tickers",
    "traders",
    "trials",
)
"""Everything but secrets: people, tokens, sessions, targets of notices and what is sent to them."""

_BY_ACCOUNT = (
    "broker_orders",
    "cash_movements",
    "corporate_actions",
    "equity_marks",
    "execution_locks",
    "executions",
    "fills",
    "order_intents",
    "positions",
)
"""What Dagster may write for paper accounts only."""

_OF_PAPER = ("paper_accounts", "paper_fills", "paper_orders", "paper_positions")
_ACCOUNT_OF = {
    "broker_orders": "(SELECT i.account FROM order_intents i WHERE i.id = intent)",
    "executions": "(SELECT p.account FROM proposals p WHERE p.id = executions.proposal AND p.digest = "
    "executions.digest)",
}


def grant_script(dagster: str, trader: str, desk: str) -> str:
    """The SQL, for three roles that exist; it can be run again after every migration.

    Raises `InvalidInput` for a name that is not a plain identifier, or is given twice.
    """
    for name in (dagster, trader, desk):
        if not _NAME.fullmatch(name):
            raise InvalidInput(f"{name!r} is no role name; allowed: a-z, 0-9 and _, not starting with a digit")
    if len({dagster, trader, desk}) < 3:
        raise InvalidInput("Dagster, trader and desk are three roles; with one for two of them nothing is kept apart")
    lines = [
        "BEGIN;",
        f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC, {dagster}, {trader}, {desk};",
        f"GRANT USAGE ON SCHEMA public TO {dagster}, {trader}, {desk};",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {dagster}, {trader}, {desk};",
        "-- The desk takes decisions and keeps people and accounts; history is append-only for it, too.",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {desk};",
        *_trader_lines(trader),
        *_dagster_lines(dagster),
        *_row_security(dagster, trader, desk),
        "COMMIT;",
    ]
    return "\n".join(lines)


def _trader_lines(trader: str) -> list[str]:
    written = ", ".join((*_BY_ACCOUNT, "outbox", "ticket_orders", *_OF_PAPER))
    return [
        "-- A trader executes; it cannot decide, and sees no secret of a person.",
        f"GRANT SELECT ON {', '.join(READ_BY_ALL)}, outbox, notice_targets TO {trader};",
        f"GRANT SELECT (name, role, disabled_at, created_at) ON people TO {trader};",
        f"GRANT INSERT, UPDATE ON {written}, traders TO {trader};",
        f"GRANT INSERT ON halts TO {trader};",
        f"GRANT UPDATE (cash, strategy, booked_through) ON accounts TO {trader};",
        f"GRANT UPDATE ON counters TO {trader};",
        f"GRANT INSERT ON outcomes TO {trader};",
        f"GRANT INSERT, DELETE ON open_proposals TO {trader};",
    ]


def _dagster_lines(dagster: str) -> list[str]:
    written = ", ".join((*_BY_ACCOUNT, "outbox", "proposals", "open_proposals", "trials", *_OF_PAPER))
    return [
        "-- Dagster plans, proposes, and trades on paper.",
        f"GRANT SELECT ON {', '.join(READ_BY_ALL)}, outbox, notice_targets TO {dagster};",
        f"GRANT SELECT (name, role, disabled_at, created_at) ON people TO {dagster};",
        f"GRANT INSERT, UPDATE ON {written} TO {dagster};",
        "-- It halts, too; to lift a halt is for people at the desk.",
        f"GRANT INSERT ON accounts, halts, tickers TO {dagster};",
        f"GRANT UPDATE (cash, strategy, booked_through) ON accounts TO {dagster};",
        f"GRANT UPDATE ON counters TO {dagster};",
        f"GRANT INSERT ON outcomes TO {dagster};",
        f"GRANT DELETE ON open_proposals TO {dagster};",
    ]


def _row_security(dagster: str, trader: str, desk: str) -> list[str]:
    lines = ["-- Whatever Dagster writes about an account is about a paper account."]
    for table in (*_BY_ACCOUNT, "accounts", "outcomes"):
        lines += [
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;",
            f"DROP POLICY IF EXISTS everyone_reads ON {table};",
            f"CREATE POLICY everyone_reads ON {table} FOR SELECT USING (true);",
            f"DROP POLICY IF EXISTS desk_and_trader_write ON {table};",
            f"CREATE POLICY desk_and_trader_write ON {table} FOR ALL TO {desk}, {trader} "
            "USING (true) WITH CHECK (true);",
            f"DROP POLICY IF EXISTS dagster_writes_paper ON {table};",
        ]
        condition = _is_paper(table)
        lines.append(
            f"CREATE POLICY dagster_writes_paper ON {table} FOR ALL TO {dagster} "
            f"USING ({condition}) WITH CHECK ({condition});"
        )
    return [*lines, *_account_lines(dagster)]


def _account_lines(dagster: str) -> list[str]:
    """Accounts that Dagster makes are kept in the ledger: where orders go is for the desk to say."""
    return [
        "DROP POLICY IF EXISTS dagster_makes_paper ON accounts;",
        f"CREATE POLICY dagster_makes_paper ON accounts AS RESTRICTIVE FOR INSERT TO {dagster} "
        "WITH CHECK (mode = 'paper' AND broker = 'paper' AND NOT live_enabled);",
    ]


def _is_paper(table: str) -> str:
    if table == "accounts":
        # A live account's row can be locked and its booked session moved on, but nothing that says where orders go:
        # those columns are not granted.
        return "true"
    if table == "outcomes":
        return "outcome <> 'approved'"
    account = _ACCOUNT_OF.get(table, "account")
    return f"EXISTS (SELECT 1 FROM accounts a WHERE a.id = {account} AND a.mode = 'paper')"  # noqa: S608 - names of our own
