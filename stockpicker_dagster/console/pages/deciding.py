"""The pages on which a person decides: proposals, and halting and resuming.

A decision is taken in a POST of its own that carries the form's token; in live mode it carries a password or code as
well, because Dagster's pages share the origin. What follows from it is `trading`'s matter.
"""

from typing import cast

from starlette.responses import Response

from stockpicker_dagster.console.door.checks import Refused
from stockpicker_dagster.console.views import proposals
from stockpicker_dagster.console.views.today import account_names
from stockpicker_dagster.console.web import Asked, Page, live, page, to
from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.trading import accounts, desk
from stockpicker_dagster.trading.approval import Decision, decide
from stockpicker_dagster.trading.people.sign_in import Proof, prove_again


def show_proposals(asked: Asked) -> Response:
    """What waits for a decision, and what was decided."""
    waiting = proposals.waiting(asked.desk)
    held = {line.id for line in waiting}
    ended = [line for line in proposals.proposals(asked.desk) if line.id not in held]
    return page(asked, "proposals.html", "Proposals", here="/proposals", waiting=waiting, ended=ended)


def show_proposal(asked: Asked) -> Response:
    """One proposal with everything a decision rests on."""
    found = proposals.proposal(asked.desk, asked.path["proposal"])
    status = live(asked, "state", over=not found.on_its_way)
    template = "proposal_state.html" if status else "proposal.html"
    return page(asked, template, f"Proposal {found.id}", here="/proposals", status=status or 200, found=found)


def do_decide(asked: Asked) -> Response:
    """Records this person's decision."""
    take_decision(asked, asked.path["proposal"])
    return to(f"/proposals/{asked.path['proposal']}")


def take_decision(asked: Asked, reference: str) -> str:
    """Records the visitor's decision on a proposal; what followed, in a word. Raises what `decide` raises."""
    wanted = asked.fields.get("decision", "")
    if wanted not in ("approve", "deny"):
        raise InvalidInput(f"the decision {wanted[:40]!r} is none; allowed: approve, deny")
    engine, now = asked.desk.database, asked.desk.now()
    found = proposals.proposal(asked.desk, reference)
    live = found.document.mode == "live"
    decided = decide(
        engine,
        found.id,
        asked.who.person.name,
        cast(Decision, wanted),
        asked.fields.get("reason", ""),
        now,
        proof=_proof(asked, live=live),
        signer=asked.services.signer() if live else None,
    )
    return decided.outcome or f"{decided.approvals} of {decided.approvals_needed} approvals"


def _proof(asked: Asked, *, live: bool) -> Proof | None:
    """In live mode a secret of this very request; a script's token can never give one."""
    if not live:
        return None
    if asked.who.session is None:
        raise Refused(403, "a personal token decides nothing in live mode; sign in and decide there")
    secret = asked.fields.get("secret", "")
    if not secret:
        raise InvalidInput("a live proposal is decided with your password or a code; give one")
    return prove_again(asked.desk.database, asked.who.person.name, secret, asked.origin, asked.desk.now())


def show_halt(asked: Asked) -> Response:
    """What is halted, and the forms to halt and to resume."""
    return page(asked, "halt.html", "Halt", here="/halt", accounts=account_names(asked.desk))


def do_halt(asked: Asked) -> Response:
    """Stops sending at once and cancels what is working; anybody who may research may pull this cord."""
    halt(asked)
    return to("/halt")


def halt(asked: Asked) -> int:
    """Halts one account, or all; how many working orders were cancelled."""
    account = asked.fields.get("account", "").strip() or None
    reason = asked.fields.get("reason", "")
    return desk.halt(asked.desk.database, account, asked.who.person.name, reason, asked.desk.now())


def do_resume(asked: Asked) -> Response:
    """Lifts halts."""
    resume(asked)
    return to("/halt")


def resume(asked: Asked) -> int:
    """Lifts the halts of one account, or those of all; how many."""
    account = asked.fields.get("account", "").strip() or None
    return accounts.resume(asked.desk.database, account, asked.who.person.name, asked.desk.now())


PAGES = (
    Page("/proposals", show_proposals),
    Page("/proposals/{proposal}", show_proposal),
    Page("/proposals/{proposal}/decide", do_decide, role="approver", method="POST"),
    Page("/halt", show_halt),
    Page("/halt", do_halt, role="researcher", method="POST"),
    Page("/resume", do_resume, role="approver", method="POST"),
)
