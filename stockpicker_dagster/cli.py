"""The `stockpicker` command: what a person does from a terminal.

Each command is a few lines over the room that does the work. Progress and the state folder go to stderr, results to
stdout; an error of ours is one message and exit code 1, never a traceback.
"""

import getpass
import json
import sys
from collections.abc import Callable
from datetime import date
from functools import wraps
from pathlib import Path
from typing import Any

import click

from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.home import prepare_home

_DEMO = "quickstart"


class _Day(click.ParamType):
    """A day, YYYY-MM-DD."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        if isinstance(value, date):
            return value
        try:
            return date.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no day; write it as YYYY-MM-DD, such as 2024-03-08", param, ctx)


def _plainly(command: Callable[..., None]) -> Callable[..., None]:
    """Ends a command with our own message instead of a traceback."""

    @wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except StockPickerError as error:
            raise click.ClickException(str(error)) from error

    return guarded


def _say(line: str) -> None:
    click.echo(line, err=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """StockPicker: from prices to an approved, executed rebalance."""


@main.command()
@click.option("--source", type=click.Choice(["simulated"]), default="simulated", help="Where prices come from.")
@click.option("--as-of", type=_Day(), help="Last session of the demo; default: the last completed one.")
@click.option("--json", "as_document", is_flag=True, help="Print one JSON document instead of text.")
@_plainly
def demo(source: str, as_of: date | None, as_document: bool) -> None:
    """Run the whole quickstart strategy on a simulated market."""
    from stockpicker_dagster.market.calendar import trading_calendar
    from stockpicker_dagster.runs import find_strategy, last_session
    from stockpicker_dagster.storage.deployment import Deployment
    from stockpicker_dagster.strategy_form import CALENDAR

    prepare_home()
    form, deployment = find_strategy(_DEMO), Deployment()
    calendar = trading_calendar(CALENDAR)
    last = as_of or last_session(form, deployment)
    if not calendar.is_session(last):
        last = calendar.previous_session(last)
        _say(f"{as_of} is no trading session; the last one before it is {last}")
    _run(_DEMO, None, last, as_document)


@main.command()
@click.argument("strategy")
@click.option("--from", "first", type=_Day(), help="First session; default: the first that is not stored yet.")
@click.option("--to", "last", type=_Day(), help="Last session; default: the last completed one.")
@click.option("--json", "as_document", is_flag=True, help="Print one JSON document instead of text.")
@_plainly
def run(strategy: str, first: date | None, last: date | None, as_document: bool) -> None:
    """Run STRATEGY from prices to the proposed rebalance."""
    prepare_home()
    _run(strategy, first, last, as_document)


def _run(strategy: str, first: date | None, last: date | None, as_document: bool) -> None:
    import time

    from stockpicker_dagster.runs import find_strategy, latest_note, run_strategy, span_to_run
    from stockpicker_dagster.storage.deployment import Deployment
    from stockpicker_dagster.summaries import as_json, as_text, summarize_strategy

    began = time.monotonic()
    form, deployment = find_strategy(strategy), Deployment()
    span = span_to_run(strategy, form, deployment, first, last)
    run_strategy(strategy, form, deployment, span, _say)
    note = latest_note(strategy, "rebalance_orders", "proposal_note")
    summary = summarize_strategy(strategy, form, deployment, span.last, note)
    _say(f"done in {time.monotonic() - began:.0f} s, peak memory {_peak_memory() / 2**30:.1f} GiB")
    commands = _next_commands(strategy, summary.proposal.id if summary.proposal else None)
    if as_document:
        click.echo(json.dumps(as_json(summary, commands), indent=2))
        return
    click.echo("\n" + as_text(summary))
    click.echo("\nnext:\n" + "\n".join(f"  {command}" for command in commands))


def _peak_memory() -> float:
    import resource

    scale = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale)


def _next_commands(strategy: str, proposal: str | None) -> list[str]:
    """The commands that a person would type next, as they run from where this one was started."""
    program = _program()
    decide = f"{program} approve {proposal}" if proposal else f"{program} run {strategy}"
    return [decide, f"{program} export predictions {strategy} --format csv", f"{program} up"]


def _program() -> str:
    own = Path(sys.argv[0])
    try:
        return str(own.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(own)


@main.command()
@click.argument("proposal")
@click.option("--reason", default="", help="Why; kept with the decision.")
@click.option("--no-execute", is_flag=True, help="Record the decision and leave the execution to the running daemon.")
@_plainly
def approve(proposal: str, reason: str, no_execute: bool) -> None:
    """Approve PROPOSAL; on a paper account it is then executed. An approved one is only executed, or resumed."""
    decided = _decide(proposal, "approve", reason)
    if decided is None or no_execute:
        return
    from stockpicker_dagster.runs import execute_approved_session

    strategy, session = decided
    execute_approved_session(strategy, session, _say)
    _show_executions(strategy, session)


@main.command()
@click.argument("proposal")
@click.option("--reason", required=True, help="Why; kept with the decision.")
@_plainly
def deny(proposal: str, reason: str) -> None:
    """Deny PROPOSAL; nothing of it will ever be sent."""
    _decide(proposal, "deny", reason)


def _decide(proposal: str, decision: Any, reason: str) -> tuple[str, date] | None:
    """Records a decision; the strategy and session to execute if the proposal is approved by it."""
    from stockpicker_dagster.storage.deployment import Deployment
    from stockpicker_dagster.trading.approval import decide
    from stockpicker_dagster.trading.proposal import load

    prepare_home()
    deployment = Deployment()
    known = load(deployment.database, proposal)
    if decision == "approve" and known.state in ("approved", "executing"):
        click.echo(f"{known.id}: already {known.state}")
        return known.document.strategy, known.document.session
    decided = decide(deployment.database, proposal, f"os:{getpass.getuser()}", decision, reason, deployment.now())
    if decided.outcome is None:
        click.echo(f"{decided.proposal}: {decided.approvals} of {decided.approvals_needed} approvals; more are needed")
        return None
    click.echo(f"{decided.proposal}: {decided.outcome}")
    if decided.outcome != "approved":
        return None
    return known.document.strategy, known.document.session


def _show_executions(strategy: str, session: date) -> None:
    from stockpicker_dagster.runs import find_strategy, latest_note
    from stockpicker_dagster.storage.deployment import Deployment

    orders = Deployment().lake.read(f"{strategy}/executions", [session])
    if caveat := find_strategy(strategy).prices.build().caveat:
        click.echo(f"CAVEAT: {caveat}")
    click.echo(f"{strategy}, {session}: {latest_note(strategy, 'executions', 'outcome')}")
    for row in orders.iter_rows(named=True):
        price = f"at {row['price']}" if row["price"] else ""
        click.echo(
            f"  {row['side']:<6} {row['filled']:>8} of {row['quantity']:>8} {row['symbol']:<8} {row['status']} {price}"
        )


@main.command()
@click.argument("account", required=False)
@click.option("--reason", required=True, help="Why; kept with the halt.")
@_plainly
def halt(account: str | None, reason: str) -> None:
    """Halt ACCOUNT, or every account: nothing more is sent, working orders are cancelled."""
    from stockpicker_dagster.storage.deployment import Deployment
    from stockpicker_dagster.trading import desk

    prepare_home()
    deployment = Deployment()
    cancelled = desk.halt(deployment.database, account, f"os:{getpass.getuser()}", reason, deployment.now())
    click.echo(f"halted {account or 'every account'}; {cancelled} working orders cancelled")


@main.command()
@click.argument("account", required=False)
@_plainly
def resume(account: str | None) -> None:
    """Lift the halts of ACCOUNT, or those on every account; each of the two leaves the other as it is."""
    from stockpicker_dagster.storage.deployment import Deployment
    from stockpicker_dagster.trading import accounts

    prepare_home()
    deployment = Deployment()
    lifted = accounts.resume(deployment.database, account, f"os:{getpass.getuser()}", deployment.now())
    click.echo(f"resumed {account or 'every account that was not halted by itself'}; {lifted} halts lifted")


@main.command()
@click.argument("account", default="paper")
@_plainly
def reconcile(account: str) -> None:
    """Compare the books of ACCOUNT with its broker's; a difference halts it."""
    from stockpicker_dagster.storage.deployment import Deployment
    from stockpicker_dagster.trading import desk

    prepare_home()
    deployment = Deployment()
    found = desk.reconcile_account(deployment.database, account, deployment.now())
    click.echo(f"{account}: " + ("the books agree" if found.agrees else "; ".join(found.differences)))
    if not found.agrees:
        raise SystemExit(1)


@main.command()
@click.argument("table", type=click.Choice(["prices", "features", "datasets", "predictions"]))
@click.argument("strategy", default=_DEMO)
@click.option("--format", "kind", type=click.Choice(["csv", "parquet"]), default="csv", help="File format.")
@click.option("--from", "first", type=_Day(), help="First session; default: all that are stored.")
@click.option("--to", "last", type=_Day(), help="Last session.")
@click.option(
    "--output", type=click.Path(file_okay=False, path_type=Path), help="Folder; default: exports in the state folder."
)
@_plainly
def export(table: Any, strategy: str, kind: Any, first: date | None, last: date | None, output: Path | None) -> None:
    """Write TABLE of STRATEGY as files."""
    from stockpicker_dagster.exports import export as write
    from stockpicker_dagster.runs import find_strategy
    from stockpicker_dagster.storage.deployment import Deployment

    place = prepare_home()
    form = find_strategy(strategy)
    if caveat := form.prices.build().caveat:
        _say(f"CAVEAT: {caveat}")
    for path in write(table, strategy, form, Deployment(), kind, first, last, output or place.root / "exports"):
        click.echo(path)


@main.command()
@_plainly
def doctor() -> None:
    """Check the state folder, the strategies, the stored days and the accounts, and say what to do."""
    from stockpicker_dagster.health import findings

    place = prepare_home()
    problems = 0
    for finding in findings(place):
        click.echo(f"{'ok  ' if finding.healthy else 'FAIL'} {finding.what}: {finding.sentence}")
        problems += not finding.healthy
    if problems:
        raise SystemExit(1)


@main.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Port on this machine; default: a free one.")
@_plainly
def up(port: int | None) -> None:
    """Start Dagster's pages, schedules and sensors on this machine, behind the guard."""
    from stockpicker_dagster.console.server import serve

    serve(prepare_home(), port)


if __name__ == "__main__":
    main()
