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

from stockpicker_dagster.commands.accounts import account
from stockpicker_dagster.commands.audit import audit, shortfall
from stockpicker_dagster.commands.brokers import broker
from stockpicker_dagster.commands.notices import notices
from stockpicker_dagster.commands.people import AS, decider, user
from stockpicker_dagster.commands.reap import reap
from stockpicker_dagster.commands.trading import flatten, reconcile, trader
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


main.add_command(account)
main.add_command(audit)
main.add_command(broker)
main.add_command(notices)
main.add_command(reap)
main.add_command(reconcile)
main.add_command(flatten)
main.add_command(trader)
main.add_command(shortfall)
main.add_command(user)


@main.command()
@click.option(
    "--source",
    type=click.Choice(["simulated", "yahoo"]),
    default="simulated",
    help="Where prices come from: an invented market, or Yahoo for today's S&P 100.",
)
@click.option("--as-of", type=_Day(), help="Last session of the demo; default: the last completed one.")
@click.option("--json", "as_document", is_flag=True, help="Print one JSON document instead of text.")
@_plainly
def demo(source: str, as_of: date | None, as_document: bool) -> None:
    """Run the whole quickstart strategy, on a simulated market or on Yahoo's prices."""
    from stockpicker_dagster.demo import demo_strategy
    from stockpicker_dagster.runs import find_strategy, last_session
    from stockpicker_dagster.storage.deployment import Deployment

    strategy = demo_strategy(source)
    prepare_home()
    form, deployment = find_strategy(strategy), Deployment()
    calendar = form.calendar
    last = as_of or last_session(form, deployment)
    if not calendar.is_session(last):
        last = calendar.previous_session(last)
        _say(f"{as_of} is no trading session; the last one before it is {last}")
    _run(strategy, None, last, as_document)


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
    if own.suffix == ".py":
        # Started as a module, as the console does: the command itself stands beside the interpreter.
        own = Path(sys.executable).with_name("stockpicker")
    try:
        return str(own.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(own)


@main.command()
@click.argument("proposal")
@click.option("--reason", default="", help="Why; kept with the decision.")
@click.option("--no-execute", is_flag=True, help="Record the decision and leave the execution to the running daemon.")
@AS
@_plainly
def approve(proposal: str, reason: str, no_execute: bool, login: str | None) -> None:
    """Approve PROPOSAL; on a paper account it is then executed. An approved one is only executed, or resumed."""
    decided = _decide(proposal, "approve", reason, login)
    if decided is None or no_execute:
        return
    from stockpicker_dagster.runs import execute_approved_session

    identity, strategy, session = decided
    execute_approved_session(strategy, session, _say)
    _show_executions(identity, strategy, session)


@main.command()
@click.argument("proposal")
@click.option("--reason", required=True, help="Why; kept with the decision.")
@AS
@_plainly
def deny(proposal: str, reason: str, login: str | None) -> None:
    """Deny PROPOSAL; nothing of it will ever be sent."""
    _decide(proposal, "deny", reason, login)


def _decide(proposal: str, decision: Any, reason: str, login: str | None) -> tuple[str, str, date] | None:
    """Records a decision; proposal, strategy and session to execute here if a paper one is approved by it."""
    from stockpicker_dagster.storage.deployment import Deployment
    from stockpicker_dagster.trading.approval import decide
    from stockpicker_dagster.trading.proposal import load

    prepare_home()
    deployment = Deployment()
    known = load(deployment.database, proposal)
    if decision == "approve" and known.state in ("approved", "executing"):
        click.echo(f"{known.id}: already {known.state}")
        if not _executed_here(known.document):
            return None
        return known.id, known.document.strategy, known.document.session
    decided = decide(
        deployment.database,
        known.id,
        **decider(deployment, login, live=known.document.mode != "paper"),
        decision=decision,
        reason=reason,
        now=deployment.now(),
    )
    if decided.outcome is None:
        click.echo(f"{decided.proposal}: {decided.approvals} of {decided.approvals_needed} approvals; more are needed")
        return None
    click.echo(f"{decided.proposal}: {decided.outcome}")
    if decided.outcome != "approved" or not _executed_here(known.document):
        return None
    return known.id, known.document.strategy, known.document.session


def _executed_here(document: Any) -> bool:
    """Whether the strategy's `executions` asset may execute it; else its trader does."""
    from stockpicker_dagster.trading.flatten import UNBOUND

    if document.mode == "paper" and document.strategy != UNBOUND:
        return True
    _say(f"the trader of account {document.account} executes it")
    return False


def _show_executions(proposal: str, strategy: str, session: date) -> None:
    from stockpicker_dagster.runs import find_strategy, latest_note
    from stockpicker_dagster.storage.deployment import Deployment

    orders = Deployment().lake.read(f"{strategy}/executions", [session])
    orders = orders.filter(orders["proposal"] == proposal)
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
@AS
@_plainly
def resume(account: str | None, login: str | None) -> None:
    """Lift the halts of ACCOUNT, or those on every account; each of the two leaves the other as it is."""
    from stockpicker_dagster.commands.trading import approver
    from stockpicker_dagster.storage.deployment import Deployment
    from stockpicker_dagster.trading import accounts

    prepare_home()
    deployment = Deployment()
    lifted = accounts.resume(deployment.database, account, approver(deployment, login), deployment.now())
    click.echo(f"resumed {account or 'every account that was not halted by itself'}; {lifted} halts lifted")


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
@click.argument("strategies", nargs=-1, required=True, metavar="STRATEGY STRATEGY...")
@click.option("--from", "first", type=_Day(), help="First session; default: the first that all of them have.")
@click.option("--to", "last", type=_Day(), help="Last session; default: the last that all of them have.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the comparison as a page, too.")
@_plainly
def compare(strategies: tuple[str, ...], first: date | None, last: date | None, html: Path | None) -> None:
    """Put strategies side by side, from stored days; every one of them counts as a trial."""
    from stockpicker_dagster.evaluation import comparison
    from stockpicker_dagster.runs import find_strategy
    from stockpicker_dagster.storage.deployment import Deployment

    prepare_home()
    found = comparison.compare({name: find_strategy(name) for name in strategies}, Deployment(), first, last)
    click.echo(comparison.as_text(found))
    if html is not None:
        _write_text(html, comparison.as_html(found))


@main.command("tearsheet")
@click.argument("strategy", default=_DEMO)
@click.option("--from", "first", type=_Day(), help="First session; default: the first that has a back-test.")
@click.option("--to", "last", type=_Day(), help="Last session; default: the last that has one.")
@click.option(
    "--html", type=click.Path(dir_okay=False, path_type=Path), help="The file; default: in exports in the state folder."
)
@_plainly
def write_tear_sheet(strategy: str, first: date | None, last: date | None, html: Path | None) -> None:
    """Write everything about STRATEGY's back-test as one page, from stored days; it counts as a trial."""
    from stockpicker_dagster.runs import find_strategy
    from stockpicker_dagster.storage.deployment import Deployment
    from stockpicker_dagster.tear_sheet.page import as_html
    from stockpicker_dagster.tear_sheet.sheet import tear_sheet

    place = prepare_home()
    sheet = tear_sheet(strategy, find_strategy(strategy), Deployment(), first, last)
    if html is None:
        html = place.root / "exports" / f"{strategy}_tearsheet.html"
        html.parent.mkdir(parents=True, exist_ok=True)
    _write_text(html, as_html(sheet))
    judged = sheet.judgement
    click.echo(f"{strategy}: {judged.verdict.words if judged.verdict else 'no verdict'}")
    click.echo(judged.verdict.reason if judged.verdict else judged.no_verdict)


@main.command("trials")
@_plainly
def list_trials() -> None:
    """List every back-test that was looked at: verdicts count those on the same universe and sessions."""
    from stockpicker_dagster.evaluation.trials import logged_trials
    from stockpicker_dagster.storage.deployment import Deployment

    prepare_home()
    found = logged_trials(Deployment().database)
    for trial in found:
        click.echo(
            f"{trial.strategy_digest} {trial.strategy:<20} {trial.universe:<28} {trial.first_session} to "
            f"{trial.last_session} Sharpe {trial.annual_sharpe:.2f}"
        )
    _say(f"{len(found)} trials")


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


@main.command("cold-start")
@click.option("--plan", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--own-key", is_flag=True, help="Encrypt with a KMS key of the deployment's own, and create it.")
@click.option("--train", is_flag=True, help="Then run every strategy whose files are there, first models included.")
@click.option("--policies", is_flag=True, help="Print the IAM policies that the account needs, and do nothing else.")
@_plainly
def make_deployment(plan: bool, own_key: bool, train: bool, policies: bool) -> None:
    """Make buckets, keys, database and lists where they are lacking; nothing is ever taken away."""
    from stockpicker_dagster.cold_start import cold_start, iam_policies
    from stockpicker_dagster.storage.deployment import Deployment

    if policies:
        click.echo(json.dumps(iam_policies(own_key), indent=2))
        return
    prepare_home()
    deployment = Deployment()
    for outcome in cold_start(deployment, plan=plan, own_key=own_key):
        click.echo(str(outcome))
    if own_key and not plan:
        _say("set STOCKPICKER_AWS_KMS_KEY to the alias above, so that every process uses the key")
    if train and not plan:
        from stockpicker_dagster.runs import run_strategy, span_to_run, strategies

        for name, form in strategies().items():
            if form.missing_files():
                _say(f"{name} waits for files that are yours to bring")
                continue
            run_strategy(name, form, deployment, span_to_run(name, form, deployment, None, None), _say)


@main.group()
def data() -> None:
    """Look at prices, and decide about rows that are wrong or were rejected."""


@data.command("report")
@click.argument("source")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the report as a page, too.")
@click.option("--from", "first", type=_Day(), help="First session; default: all that are stored.")
@click.option("--to", "last", type=_Day(), help="Last session.")
@_plainly
def report_data(source: str, html: Path | None, first: date | None, last: date | None) -> None:
    """Report on what is stored of SOURCE: rows, rejections, coverage, likely mistakes."""
    from stockpicker_dagster.price_desk import report_stored
    from stockpicker_dagster.storage.deployment import Deployment

    prepare_home()
    _show_report(report_stored(source, Deployment().lake, first, last), html)


@data.command("check")
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--basis",
    type=click.Choice(["as_traded", "split_adjusted"]),
    required=True,
    help="Whether prices are as traded on their day, or restated for later splits.",
)
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the report as a page, too.")
@click.option(
    "--quarantine", type=click.Path(dir_okay=False, path_type=Path), help="Write the rejected rows as a CSV file."
)
@click.option(
    "--against", type=click.Path(exists=True, path_type=Path), help="A second file to compare adjusted returns with."
)
@click.option(
    "--against-basis",
    type=click.Choice(["as_traded", "split_adjusted"]),
    help="The second file's basis; default: that of the first.",
)
@click.option("--calendar", default="XNYS", help="The exchange, by its market identifier code; default: XNYS.")
@click.option("--currency", default="USD", help="What a column currency must say; default: USD.")
@click.option(
    "--symbol-changes",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A CSV file of changed tickers: old, new, date.",
)
@_plainly
def check_data(
    file: Path,
    basis: Any,
    html: Path | None,
    quarantine: Path | None,
    against: Path | None,
    against_basis: Any,
    calendar: str,
    currency: str,
    symbol_changes: Path | None,
) -> None:
    """Check the prices in FILE, or in a folder of files, without a strategy; nothing is stored in the lake."""
    from stockpicker_dagster.price_desk import check_file

    report, rejected = check_file(
        file, basis, against, against_basis, exchange=calendar, currency=currency, symbol_changes=symbol_changes
    )
    _show_report(report, html)
    if quarantine is not None:
        _write_text(quarantine, rejected.write_csv())


def _show_report(report: Any, html: Path | None) -> None:
    from stockpicker_dagster.market.data_report import as_html, as_text

    click.echo(as_text(report))
    if html is not None:
        _write_text(html, as_html(report))


def _write_text(path: Path, content: str) -> None:
    try:
        path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise StockPickerError(f"{path} cannot be written ({error.strerror}); name another file") from error
    _say(f"wrote {path}")


@data.command("quarantine")
@click.argument("source")
@click.option("--symbol", help="Only rows of this symbol.")
@click.option("--day", type=_Day(), help="Only rows of this session.")
@click.option("--reason", help="Only rows rejected for this reason.")
@_plainly
def list_quarantine(source: str, symbol: str | None, day: date | None, reason: str | None) -> None:
    """List the rejected rows of SOURCE: symbol, session, reason and what the row said."""
    from stockpicker_dagster.price_desk import rejected_rows
    from stockpicker_dagster.storage.deployment import Deployment

    prepare_home()
    rows = rejected_rows(source, Deployment().lake, symbol, day, reason)
    for row in rows.iter_rows(named=True):
        click.echo(f"{row['symbol']:<8} {row['date']} {row['reason']:<28} {row['detail']}")
    _say(f"{rows.height} rows")


@data.command("accept")
@click.argument("source")
@click.argument("symbol")
@click.argument("day", type=_Day())
@click.option("--reason", required=True, help="Why; kept with the decision.")
@_plainly
def accept_data(source: str, symbol: str, day: date, reason: str) -> None:
    """Take the rejected row of SYMBOL on DAY as it is, or what SOURCE says now about a stored row."""
    from stockpicker_dagster.price_desk import accept_row
    from stockpicker_dagster.storage.deployment import Deployment

    prepare_home()
    _show_decided(accept_row(source, Deployment(), symbol, day, reason))


@data.command("correct")
@click.argument("source")
@click.argument("symbol")
@click.argument("day", type=_Day())
@click.argument("figures", nargs=-1, required=True, metavar="FIGURE=VALUE...")
@click.option("--reason", required=True, help="Why; kept with the decision.")
@_plainly
def correct_data(source: str, symbol: str, day: date, figures: tuple[str, ...], reason: str) -> None:
    """Replace figures of the row of SYMBOL on DAY, such as close=12.3 volume=5000."""
    from stockpicker_dagster.market.corrections import parsed_figures
    from stockpicker_dagster.price_desk import correct_row
    from stockpicker_dagster.storage.deployment import Deployment

    prepare_home()
    _show_decided(correct_row(source, Deployment(), symbol, day, parsed_figures(figures), reason))


@data.command("accept-day")
@click.argument("source")
@click.argument("days", type=_Day(), nargs=-1, required=True)
@click.option("--reason", required=True, help="Why; kept with the decision.")
@_plainly
def accept_data_days(source: str, days: tuple[date, ...], reason: str) -> None:
    """Let sessions of SOURCE through that were refused as a whole."""
    from stockpicker_dagster.price_desk import accept_days
    from stockpicker_dagster.storage.deployment import Deployment

    prepare_home()
    for decided in accept_days(source, Deployment(), days, reason):
        _show_decided(decided)


@data.command("take-back")
@click.argument("source")
@click.argument("decision", type=int)
@click.option("--reason", required=True, help="Why; kept with the decision.")
@_plainly
def take_back_data(source: str, decision: int, reason: str) -> None:
    """Take DECISION about SOURCE back; `data corrections` lists their numbers."""
    from stockpicker_dagster.price_desk import take_back
    from stockpicker_dagster.storage.deployment import Deployment

    prepare_home()
    _show_decided(take_back(source, Deployment(), decision, reason))


@data.command("corrections")
@click.argument("source")
@_plainly
def list_corrections(source: str) -> None:
    """List every decision about SOURCE: who, when, what and why."""
    from stockpicker_dagster.market.decision_records import load_decisions
    from stockpicker_dagster.price_desk import find_source
    from stockpicker_dagster.storage.deployment import Deployment

    prepare_home()
    find_source(source)
    decisions = load_decisions(Deployment().lake, source)
    holding = {record.number for record in decisions.in_force}
    for record in decisions.records:
        state = "in force" if record.number in holding else "recorded" if record.takes_back else "no longer in force"
        click.echo(f"{record.number:>4} {record.sentence()} ({state})")
    _say(f"{len(decisions.records)} decisions, {len(holding)} in force")


def _show_decided(decided: Any) -> None:
    from stockpicker_dagster.storage.lake import describe_days

    click.echo(f"decision {decided.record.number}: {decided.record.sentence()}")
    if decided.days_to_make_again:
        click.echo(
            f"{describe_days(decided.days_to_make_again)} stored before it still show what was; nothing is built on "
            "them until they are made again:"
        )
        click.echo("\n".join(f"  {command}" for command in decided.commands))


@data.command("universe")
@click.argument("name", type=click.Choice(["sp100", "sp500", "russell3000"]))
@click.option("--file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Take the list from FILE.")
@click.option("--accept", is_flag=True, help="Take a list that looks wrong: the one put aside, or else the newest.")
@click.option("--reason", help="Why it is accepted; kept with the list, as is who accepted it.")
@click.option(
    "--history", is_flag=True, help="Show the stored lists instead: since when, from where, accepted by whom."
)
@_plainly
def universe_data(name: Any, file: Path | None, accept: bool, reason: str | None, history: bool) -> None:
    """Compare the stored list of the universe NAME with the public one, and show what changes."""
    from stockpicker_dagster.market.universes.refresh import list_from, refresh, refresh_from
    from stockpicker_dagster.price_desk import acceptance, list_history
    from stockpicker_dagster.storage.deployment import Deployment

    prepare_home()
    deployment = Deployment()
    if history:
        for line in list_history(deployment.lake, name):
            click.echo(line)
        return
    accepted = acceptance(reason) if accept else None
    if file is None:
        refreshed = refresh(deployment.lake, name, deployment.now(), accepted)
    else:
        brought = list_from(name, file.read_bytes(), file.name)
        refreshed = refresh_from(deployment.lake, name, brought, deployment.now(), accepted)
    click.echo(refreshed.sentence)
    for line in refreshed.changes.lines():
        click.echo(f"  {line}")
    if not refreshed.fine:
        raise SystemExit(1)


@main.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Port on this machine; default: a free one.")
@click.option("--listen", default="127.0.0.1", help="Where to listen; another than 127.0.0.1 only in a container.")
@click.option("--daemon/--no-daemon", default=True, help="Start Dagster's daemon, or leave it to another container.")
@click.option(
    "--workspace", type=click.Path(path_type=Path), help="Where Dagster's definitions are, by Dagster's file."
)
@_plainly
def up(port: int | None, listen: str, daemon: bool, workspace: Path | None) -> None:
    """Start Dagster's pages, schedules and sensors on this machine, behind the guard."""
    from stockpicker_dagster.console.server import WORKSPACE, serve

    serve(prepare_home(), port, workspace=workspace or WORKSPACE, listen=listen, with_daemon=daemon)


if __name__ == "__main__":
    main()
