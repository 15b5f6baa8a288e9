"""A proposal is its bytes: they read back, name themselves, and stand alone on their account."""

import hashlib
import json
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.approval import decide
from stockpicker_dagster.trading.proposal import (
    DigestMismatch,
    ProposalRefused,
    UnknownProposal,
    from_bytes,
    load,
    open_proposals,
    register,
)

PRICES = {"AAA": 50.0, "BBB": 20.0, "CCC": 10.0}
TARGETS = {"AAA": 0.5, "BBB": -0.5}
OTHER = {"AAA": 0.4, "CCC": -0.4}


def test_the_stored_bytes_hash_to_the_digest_and_read_back(trading_desk: Any) -> None:
    outcome = trading_desk.propose(TARGETS, PRICES)
    with trading_desk.engine.connect() as connection:
        row = connection.execute(select(ledger.proposals)).one()
    assert row.digest == hashlib.sha256(row.document).hexdigest()
    assert outcome.id == row.id == row.digest[:12]
    assert from_bytes(row.document) == outcome.document
    assert load(trading_desk.engine, row.id).document.to_bytes() == row.document


def test_the_document_says_all_that_is_decided_on(trading_desk: Any) -> None:
    document = json.loads(trading_desk.propose(TARGETS, PRICES).document.to_bytes())
    assert document["orders"][0] == {
        "symbol": "AAA",
        "side": "buy",
        "quantity": "980",
        "phase": "openings",
        "reference_price": "50",
        "order_type": "market",
        "time_in_force": "opg",
        "collar_low": "40",
        "collar_high": "60",
    }
    said = {
        "account": "paper",
        "mode": "paper",
        "strategy": "momentum",
        "author": "os:author",
        "session": "2024-03-04",
        "trade_session": "2024-03-05",
        "model_id": "model-1",
        "code_version": "code-1",
        "venue_name": "set",
        "venue_simulated": True,
        "equity": "100000",
        "expires_at": "2024-03-05T10:00:00.000000Z",
    }
    assert said.items() <= document.items()
    assert {"limits", "policy", "holdings", "prices", "targets", "base_url", "cash", "created_at"} <= set(document)


def test_bytes_that_are_not_canonical_are_no_proposal(trading_desk: Any) -> None:
    stored = trading_desk.propose(TARGETS, PRICES).document.to_bytes()
    for wrong in (stored.replace(b",", b", ", 1), stored[:-1], b"{}", stored.replace(b'"980"', b'"980.0"')):
        with pytest.raises(DigestMismatch):
            from_bytes(wrong)


def test_a_newer_plan_supersedes_an_undecided_one(trading_desk: Any) -> None:
    first = trading_desk.proposed(TARGETS, PRICES)
    second = trading_desk.proposed(OTHER, PRICES)
    assert load(trading_desk.engine, first).state == "superseded"
    assert [proposal.id for proposal in open_proposals(trading_desk.engine)] == [second]


def test_a_newer_plan_never_touches_a_decided_one(trading_desk: Any) -> None:
    first = trading_desk.proposed(TARGETS, PRICES)
    trading_desk.approve(first)
    refused = trading_desk.propose(OTHER, PRICES)
    assert refused.id is None
    assert f"proposal {first} on account 'paper' is approved" in refused.reason
    assert load(trading_desk.engine, first).state == "approved"


def test_registering_the_same_plan_again_is_the_same_proposal(trading_desk: Any) -> None:
    first = trading_desk.propose(TARGETS, PRICES)
    assert register(trading_desk.engine, first.document) == first.id
    later = trading_desk.propose(TARGETS, PRICES, now=trading_desk.now + timedelta(hours=1))
    assert later.id == first.id
    with trading_desk.engine.connect() as connection:
        assert len(connection.execute(select(ledger.proposals)).all()) == 1


def test_a_denied_plan_is_not_proposed_again_but_another_is(trading_desk: Any) -> None:
    first = trading_desk.proposed(TARGETS, PRICES)
    decide(trading_desk.engine, first, "os:me", "deny", "earnings", trading_desk.now)
    assert "denied as" in trading_desk.propose(TARGETS, PRICES, now=trading_desk.now + timedelta(minutes=1)).reason
    assert trading_desk.propose(OTHER, PRICES).id is not None


def test_a_session_is_executed_once(trading_desk: Any) -> None:
    first = trading_desk.proposed(TARGETS, PRICES)
    trading_desk.approve(first)
    trading_desk.execute(first)
    refused = trading_desk.propose(OTHER, PRICES, now=trading_desk.now + timedelta(minutes=1))
    assert f"was executed as proposal {first}" in refused.reason
    with pytest.raises(ProposalRefused):
        register(trading_desk.engine, load(trading_desk.engine, first).document)


def test_an_approved_proposal_that_lapsed_frees_its_account(trading_desk: Any) -> None:
    first = trading_desk.proposed(TARGETS, PRICES)
    trading_desk.approve(first)
    trading_desk.next_session()
    assert trading_desk.propose(OTHER, PRICES).id is not None
    assert load(trading_desk.engine, first).state == "lapsed"


@pytest.mark.parametrize("reference", ["nothex", "abc", "0" * 12, "", "%%%%%%"])
def test_an_unknown_id_is_answered_with_the_open_ones(trading_desk: Any, reference: str) -> None:
    proposal = trading_desk.proposed(TARGETS, PRICES)
    with pytest.raises(UnknownProposal, match=f"Open proposals: {proposal}"):
        load(trading_desk.engine, reference)


def test_a_prefix_of_six_digits_is_enough(trading_desk: Any) -> None:
    proposal = trading_desk.proposed(TARGETS, PRICES)
    assert load(trading_desk.engine, proposal[:6].upper()).id == proposal


def test_a_proposal_that_is_void_when_made_is_refused(trading_desk: Any) -> None:
    trading_desk.market.hours = 3
    assert "closed at" in trading_desk.propose(TARGETS, PRICES).reason
    trading_desk.market.trade_session = lambda session: session
    trading_desk.market.hours = 12
    with pytest.raises(InvalidInput, match="cannot trade on"):
        trading_desk.propose(TARGETS, PRICES)
