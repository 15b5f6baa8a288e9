"""The price contract: the columns of a stored trading day, what must hold in every row, the adjustment between rows.

A row that breaks the contract is quarantined with a named reason, never dropped and never repaired. Every judgement
looks at the row itself and at the rows before it, so that no later row changes what was stored. Where rows come from is
the matter of `market.sources`; cumulated adjusted series are built from `adjustment` by `research.features`.
"""

from collections.abc import Collection, Iterator, Sequence
from datetime import date, timedelta

import polars as pl

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.corrections import FIGURES, Decision
from stockpicker_dagster.market.identity import REUSED_AFTER
from stockpicker_dagster.market.sources import Basis

PRICES_SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "date": pl.Date(),
    "open": pl.Float64(),
    "high": pl.Float64(),
    "low": pl.Float64(),
    "close": pl.Float64(),
    "volume": pl.Float64(),
    "dividend": pl.Float64(),
    "split_ratio": pl.Float64(),
    "adjustment": pl.Float64(),
    "known_at": pl.Date(),
    "source": pl.String(),
}
"""Open, high, low and close in currency as traded that day; volume in shares; dividend in currency per pre-split share
(0.0 if none); split_ratio new shares per old (1.0 if none); adjustment = split_ratio / (1 - dividend / previous close),
1.0 on the first row; known_at the day on which the row's dividend or split was known, null where there is neither;
source the name of the source that the row came from."""

DELISTINGS_SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "date": pl.Date(),
    "last_session": pl.Date(),
    "reason": pl.String(),
    "return": pl.Float64(),
    "known_at": pl.Date(),
}
"""date = known_at = the session on which the delisting became known (the partition that holds it); last_session the
last one on which the source had a row of it, be it one that was rejected; return is from the last close to what holders
received, as a fraction, null where the source does not know it."""

QUARANTINE_SCHEMA: dict[str, pl.DataType] = {
    "symbol": pl.String(),
    "date": pl.Date(),
    "reason": pl.String(),
    "detail": pl.String(),
    "open": pl.Float64(),
    "high": pl.Float64(),
    "low": pl.Float64(),
    "close": pl.Float64(),
    "volume": pl.Float64(),
    "dividend": pl.Float64(),
    "split_ratio": pl.Float64(),
    "adjustment": pl.Float64(),
    "source": pl.String(),
}
"""One row per rejected input row: what it said (null where it said nothing), why it was rejected and, in `detail`, the
figures that it was judged by, for people."""

CONTRACT = "prices 2"
"""Changes with the schemas above, so that days stored in another shape are made again rather than mixed with these."""

REASONS: dict[str, str] = {
    "wrong_currency": "the price is in another currency than the one that the source is declared in",
    "wrong_exchange": "the vendor quotes the symbol on an exchange of another time zone: it is another security",
    "duplicate_row": "another row has the same symbol and date (of identical rows the first is kept, of others none)",
    "missing_price": "open, high, low or close is null, NaN or infinite",
    "non_positive_price": "open, high, low or close is zero or negative",
    "high_below_low": "the high is below the low",
    "open_or_close_outside_range": "the open or the close lies above the high or below the low",
    "missing_volume": "the volume is null, NaN or infinite",
    "negative_volume": "the volume is negative",
    "bad_split_ratio": "the split ratio is zero, negative, NaN or infinite",
    "negative_dividend": "the dividend is negative, NaN or infinite",
    "not_a_session": "the exchange did not trade on that day",
    "no_trade_for_long": f"no volume for more than {REUSED_AFTER} sessions: the stock has left, the vendor fills up",
    "stale_close": "no volume at an unchanged close for the tenth session in a row, or longer: nobody trades at it",
    "dividend_not_below_previous_close": "the dividend is not below the preceding accepted close",
    "moved_without_volume": "the volume is zero, but the close is not that of the last accepted row that traded",
    "hundredfold_jump": "close and adjustment together moved beyond x100 or /100 against the preceding accepted close",
}
"""Every reason for which a row is quarantined; where several apply, the first in this order is named."""

SNAP_TOLERANCE = 5e-5
"""An inferred adjustment this close to 1 is float noise of the vendor, not an event (real ones exceed 1e-4)."""
RANGE_SLACK = 1e-6
"""Relative rounding slack of open and close against high and low: some vendors store float32."""
JUMP_LIMIT = 100.0
JUMP_MEMORY = timedelta(days=30)
"""An accepted close older than this convicts no row: else one bad first print would lock its symbol out for ever."""

STALE_AFTER = 10
"""Fewer sessions without a trade are common in small stocks. Of the stocks that reach it, nine in ten trade again
within weeks: their prices are rejected, but they have not left. Of those in which nobody trades for half a year hardly
any does, and a vendor that goes on repeating the last price of one would hide for ever that it has left."""
MOVE_TOLERANCE = 1e-3
"""A close without volume may differ so far from the last traded one after its splits: vendors round."""

_MENDABLE = ("open_or_close_outside_range", "no_trade_for_long", "stale_close")
"""Reasons that a row shows by itself and that a person may decide against; no decision makes sense of the others."""
_PRICE_COLUMNS = ("open", "high", "low", "close")
_BATCH_ROWS = 400_000
_MOVED = "moved_without_volume"


def adjustment(split_ratio: pl.Expr, dividend: pl.Expr, previous_close: pl.Expr) -> pl.Expr:
    """What one share held over the event is worth in shares after it: `split_ratio / (1 - dividend / previous close)`.

    `dividend` is per pre-split share, `previous_close` the as-traded close of the preceding row; where that is null the
    row is the first and the answer 1.0. The product of a stretch of adjustments times the ratio of its closes is its
    total return, dividends reinvested at the ex-date's close (the convention of CRSP's cumulative factors).
    """
    return pl.when(previous_close.is_null()).then(1.0).otherwise(split_ratio / (1.0 - dividend / previous_close))


def inferred_adjustment(close: pl.Expr, adj_close: pl.Expr) -> pl.Expr:
    """The adjustment hidden in a vendor's adjusted close: the step of `adj_close / close` from the preceding row.

    For the rows of one symbol in order of date (use `.over("symbol")`). Steps within `SNAP_TOLERANCE` of 1 become
    exactly 1.0, and so does the first row. A row without a positive close or adjusted close has no step of its own; the
    next row's step then spans both.

    >>> frame = pl.DataFrame({"close": [10.0, 5.1, 5.0], "adj_close": [4.9, 4.998, 5.0]})
    >>> frame.select(inferred_adjustment(pl.col("close"), pl.col("adj_close")).round(4)).to_series().to_list()
    [1.0, 2.0, 1.0204]
    """
    usable = close.is_finite() & adj_close.is_finite() & (close > 0) & (adj_close > 0)
    factor = pl.when(usable).then(adj_close / close)
    step = factor / factor.forward_fill().shift(1)
    return pl.when((step - 1.0).abs() < SNAP_TOLERANCE).then(1.0).otherwise(step).fill_null(1.0)


def inferred_split_ratio(adjustment: pl.Expr, basis: Basis) -> pl.Expr:
    """The split that an inferred adjustment contains, 1.0 if none.

    On a `split_adjusted` file there is none. On an `as_traded` one a split and a dividend cannot be told apart for
    certain: an adjustment of at least 1.15 or at most 0.87 that lies within 0.5 % above a simple ratio (n:1, n:2 up to
    10, n:3 and n:4 up to 4, and their reverses) is that split; one below 1 that is not simple is a split of exactly
    that ratio, since no dividend makes it; everything else is a dividend. So a spin-off shows as a dividend of its
    value, and a dividend of a third of the price as a 3:2 split. Either way `adjustment` keeps total return exact.
    """
    if basis == "split_adjusted":
        return pl.lit(1.0)
    forward = adjustment >= 1.0
    size = pl.when(forward).then(adjustment).otherwise(1.0 / adjustment)
    split_ratio = pl.when(forward).then(1.0).otherwise(adjustment)
    for parts, largest in ((4, 4.0), (3, 4.0), (2, 10.0), (1, float("inf"))):
        nearest = (size * parts).round() / parts
        simple = pl.when(forward).then(nearest).otherwise(1.0 / nearest)
        # A dividend paid with the split makes the adjustment larger than the ratio, never smaller.
        dividend_factor = adjustment / simple
        fits = (dividend_factor > 1.0 - SNAP_TOLERANCE) & (dividend_factor < 1.005) & (size <= largest)
        split_ratio = pl.when(fits).then(simple).otherwise(split_ratio)
    return pl.when((adjustment >= 1.15) | (adjustment < 1.0)).then(split_ratio).otherwise(1.0)


def inferred_dividend(adjustment: pl.Expr, split_ratio: pl.Expr, previous_close: pl.Expr) -> pl.Expr:
    """The dividend per pre-split share that an inferred adjustment stands for beside its split; 0.0 on a first row."""
    factor = adjustment / split_ratio
    none = previous_close.is_null() | ((factor - 1.0).abs() < SNAP_TOLERANCE)
    return pl.when(none).then(0.0).otherwise((1.0 - 1.0 / factor) * previous_close)


def validate(
    frame: pl.DataFrame,
    previous_rows: pl.DataFrame | None = None,
    *,
    basis: Basis = "as_traded",
    sessions: Collection[date] | None = None,
    decisions: Sequence[Decision] = (),
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Judges every row of `frame`: (accepted rows in `PRICES_SCHEMA`, rejected ones in `QUARANTINE_SCHEMA`).

    `frame` has the columns of `PRICES_SCHEMA` in any order of rows, with either `dividend` and `split_ratio` (null
    means none) or an already inferred `adjustment`, from which the two are then inferred for `basis`;
    `known_at` may be absent and then is the row's own date where there is an event, `source` may be and then is null.
    `misquoted`, if there, says of rows in another currency than the source's what they are in, and is null elsewhere.
    `previous_rows` holds the accepted row that precedes the frame for each symbol (`symbol`, `date`, `close`); a symbol
    without one starts in the frame. `sessions`, if given, are the exchange's trading days. A stale close shows only
    beside the rows since the last trade: bring those too, or days that are fetched one by one are judged otherwise.
    `decisions` are a person's: the figures decided on take the place of those in the row, which is then not rejected
    for its range, for being stale or for a move; rows after it are judged beside it.

    A row is judged by itself and by the accepted row before it, never by a later one. Every input row comes back in
    exactly one of the two frames, both sorted by date, then symbol. The event of a row rejected for its prices or its
    day is carried to the next accepted row (a wrongly inferred step too: a later one undoes it); that of a row rejected
    for the event itself, or as a duplicate, is not.
    Raises `InvalidInput` if a column is missing, or a symbol or a date null.
    """
    rows = _prepared(frame, sessions, basis, decisions)
    previous = _previous(previous_rows)
    answers = [_judged(batch, previous, basis) for batch in _batches(rows)]
    accepted = pl.concat([answer for answer, _ in answers]).sort("date", "symbol")
    quarantined = pl.concat([answer for _, answer in answers]).sort("date", "symbol", maintain_order=True)
    return accepted, quarantined


_EVENT = {"dividend": 0.0, "split_ratio": 1.0, "adjustment": 1.0}


def _prepared(
    frame: pl.DataFrame, sessions: Collection[date] | None, basis: Basis, decisions: Sequence[Decision]
) -> pl.DataFrame:
    """The rows by symbol and date, with the reason that each shows by itself and the `event_*` that it may carry on."""
    inferred = "adjustment" in frame.columns
    given = ("adjustment",) if inferred else ("dividend", "split_ratio")
    required = ["symbol", "date", *_PRICE_COLUMNS, "volume", *given]
    missing = [column for column in required if column not in frame.columns]
    if missing:
        raise InvalidInput(f"the price rows lack {', '.join(missing)}; found: {', '.join(frame.columns)}")
    nameless = frame.select((pl.col("symbol").is_null() | pl.col("date").is_null()).sum()).item()
    if nameless:
        raise InvalidInput(f"{nameless} price rows have no symbol or no date; fill or remove them")
    rows = frame.select(
        *[pl.col(name).cast(PRICES_SCHEMA[name]) for name in required if name not in given],
        *[pl.col(name).cast(pl.Float64).fill_null(_EVENT[name]) for name in given],
        *[pl.lit(value).alias(name) for name, value in _EVENT.items() if name not in given],
        (pl.col("known_at") if "known_at" in frame.columns else pl.lit(None)).cast(pl.Date).alias("known_at"),
        *[
            (pl.col(name) if name in frame.columns else pl.lit(None)).cast(pl.String).alias(name)
            for name in ("source", "misquoted")
        ],
    )
    rows = _with_decided_figures(rows.sort("symbol", "date", maintain_order=True).with_row_index("id"), decisions)
    rows = rows.with_columns(
        reason=_own_reason(rows, sessions, basis if inferred else None),
        against=pl.lit(None, pl.Float64),
        void=pl.lit(False),
        inferred=pl.lit(inferred),
    )
    return _with_events_to_carry(rows)


def _with_decided_figures(rows: pl.DataFrame, decisions: Sequence[Decision]) -> pl.DataFrame:
    """The rows with the figures that a person decided on, and `decided` where one did."""
    if not decisions:
        return rows.with_columns(decided=pl.lit(False))
    decided = pl.DataFrame(
        [{"symbol": each.symbol, "date": each.day, "decided": True, **dict(each.figures)} for each in decisions],
        schema={"symbol": pl.String, "date": pl.Date, "decided": pl.Boolean, **dict.fromkeys(FIGURES, pl.Float64)},
    )
    beside = rows.join(decided, on=["symbol", "date"], how="left", suffix="_decided", maintain_order="left")
    figures = [pl.coalesce(f"{name}_decided", name).alias(name) for name in FIGURES]
    return (
        beside.select(*rows.columns, "decided", *[f"{name}_decided" for name in FIGURES])
        .with_columns(*figures, pl.col("decided").fill_null(False))
        .select(*rows.columns, "decided")
    )


def _own_reason(rows: pl.DataFrame, sessions: Collection[date] | None, inferred_on: Basis | None) -> pl.Expr:
    """The first reason that a row shows without a look at its predecessor; null if none."""
    prices = [pl.col(name) for name in _PRICE_COLUMNS]
    high, low = pl.col("high") * (1.0 + RANGE_SLACK), pl.col("low") * (1.0 - RANGE_SLACK)
    outside = [(pl.col(name) > high) | (pl.col(name) < low) for name in ("open", "close")]
    bad_ratios = [~pl.col(name).is_finite() | (pl.col(name) <= 0) for name in ("split_ratio", "adjustment")]
    bad_dividend = ~pl.col("dividend").is_finite() | (pl.col("dividend") < 0)
    if inferred_on == "split_adjusted":
        bad_dividend = bad_dividend | (pl.col("adjustment") < 1.0)
    tests = {
        "duplicate_row": _duplicates(rows),
        "missing_price": ~pl.all_horizontal([price.is_finite().fill_null(False) for price in prices]),
        "non_positive_price": pl.any_horizontal([price <= 0 for price in prices]),
        "high_below_low": pl.col("high") < pl.col("low"),
        "open_or_close_outside_range": pl.any_horizontal(outside),
        "missing_volume": ~pl.col("volume").is_finite().fill_null(False),
        "negative_volume": pl.col("volume") < 0,
        "bad_split_ratio": pl.any_horizontal(bad_ratios),
        "negative_dividend": bad_dividend,
    }
    if sessions is not None:
        tests["not_a_session"] = ~pl.col("date").is_in(pl.Series(sorted(sessions), dtype=pl.Date()).implode())
    if (rows["volume"] == 0).any():
        tests["no_trade_for_long"] = pl.col("id").is_in(_idle(rows, at_one_close=False, longest=REUSED_AFTER).implode())
        tests["stale_close"] = pl.col("id").is_in(_idle(rows, at_one_close=True, longest=STALE_AFTER - 1).implode())
    if rows["misquoted"].null_count() < rows.height:
        tests = {"wrong_currency": pl.col("misquoted").is_not_null(), **tests}
    for name in _MENDABLE:
        if name in tests:
            tests[name] = tests[name] & ~pl.col("decided")
    return pl.coalesce(pl.when(test).then(pl.lit(name)) for name, test in tests.items())


def _idle(rows: pl.DataFrame, *, at_one_close: bool, longest: int) -> pl.Series:
    """The ids of rows without volume that have `longest` such rows or more since the last trade, or since the close
    moved."""
    begins = pl.col("symbol") != pl.col("symbol").shift(1)
    if at_one_close:
        begins = begins | (pl.col("close") != pl.col("close").shift(1))
    runs = rows.select("id", "volume", trades=pl.col("volume") != 0, run=begins.fill_null(True).cum_sum())
    # Within a run, what counts is how many rows lie behind the last one that traded.
    idle = runs.with_columns(stretch=pl.col("trades").fill_null(True).cum_sum()).filter(pl.col("volume") == 0)
    counted = idle.with_columns(sessions=pl.int_range(1, pl.len() + 1).over("run", "stretch"))
    return counted.filter(pl.col("sessions") > longest)["id"]


def _duplicates(rows: pl.DataFrame) -> pl.Expr:
    """The rows to reject among those that share symbol and date, which are neighbours in `rows`."""
    key = ("symbol", "date")
    like_last = pl.all_horizontal([pl.col(name) == pl.col(name).shift(1) for name in key]).fill_null(False)
    shared = rows.filter(like_last | like_last.shift(-1, fill_value=False))
    figures = [name for name in PRICES_SCHEMA if name not in (*key, "source")]
    alike = pl.all_horizontal([pl.col(name).eq_missing(pl.col(name).first()).all() for name in figures])
    kept = (alike & (pl.col("id") == pl.col("id").first())).over(key)
    return pl.col("id").is_in(shared.filter(~kept)["id"].implode())


def _with_events_to_carry(rows: pl.DataFrame) -> pl.DataFrame:
    """Adds `event_*`: the row's own dividend, split or inferred step, or none where it must not reach a later row."""
    broken = [~pl.col(name).is_finite() for name in _EVENT]
    broken += [pl.col("dividend") < 0, pl.col("split_ratio") <= 0, pl.col("adjustment") <= 0]
    bad = pl.any_horizontal([*broken, "void", pl.col("reason") == "duplicate_row"]).fill_null(False)
    # Money of another currency goes nowhere; a split is the same in any.
    own = {name: pl.col(name) for name in _EVENT} | {
        "dividend": pl.when(pl.col("misquoted").is_null()).then("dividend").otherwise(_EVENT["dividend"])
    }
    eventful = pl.any_horizontal([own[name] != value for name, value in _EVENT.items()])
    return rows.with_columns(
        *[pl.when(bad).then(value).otherwise(own[name]).alias(f"event_{name}") for name, value in _EVENT.items()],
        event_known_at=pl.when(eventful & ~bad).then(pl.coalesce("known_at", "date")),
    )


def _previous(previous_rows: pl.DataFrame | None) -> pl.DataFrame:
    """The last accepted row of each symbol before the frame: `symbol`, `stored_date`, `stored_close`."""
    if previous_rows is None:
        schema = {"symbol": pl.String(), "stored_date": pl.Date(), "stored_close": pl.Float64()}
        return pl.DataFrame(schema=schema)
    last = previous_rows.sort("symbol", "date").group_by("symbol", maintain_order=True).last()
    return last.select("symbol", stored_date="date", stored_close="close")


def _batches(rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The rows cut between symbols into batches of bounded size: the work columns of a whole market take gigabytes."""
    start = size = 0
    for rows_of_symbol in rows["symbol"].rle().struct.field("len"):
        size += rows_of_symbol
        if size >= _BATCH_ROWS:
            yield rows.slice(start, size)
            start, size = start + size, 0
    yield rows.slice(start, size)


def _judged(rows: pl.DataFrame, previous: pl.DataFrame, basis: Basis) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(accepted, quarantined) of the prepared rows of some symbols."""
    settled: list[pl.DataFrame] = []
    pending = _beside_predecessor(rows, previous, basis)
    # A rejection changes the predecessor of the rows after it: settle the first faults of each symbol, then look again.
    while (faults := pending.filter(pl.col("fault").is_not_null())).height:
        to_convict = _to_convict(faults)
        again = pl.col("symbol").is_in(to_convict["symbol"].implode())
        settled.append(pending.filter(~again))
        convicted = _with_convicted(pending.filter(again), to_convict).select(rows.columns)
        pending = _beside_predecessor(convicted, previous, basis)
    judged = pl.concat([*settled, pending], how="diagonal")
    return _accepted(judged), _quarantined(judged)


def _beside_predecessor(rows: pl.DataFrame, previous: pl.DataFrame, basis: Basis) -> pl.DataFrame:
    """Adds the final `stored_*` event and adjustment of each row not yet rejected, and the `fault` it then shows."""
    accepted = rows.filter(pl.col("reason").is_null())
    rejected = rows.filter(pl.col("reason").is_not_null())
    accepted = _with_carried_events(accepted, rejected).join(previous, on="symbol", how="left", maintain_order="left")
    same_symbol = pl.col("symbol") == pl.col("symbol").shift(1)
    accepted = accepted.with_columns(
        previous_close=pl.when(same_symbol).then(pl.col("close").shift(1)).otherwise("stored_close"),
        previous_date=pl.when(same_symbol).then(pl.col("date").shift(1)).otherwise("stored_date"),
        previous_id=pl.when(same_symbol).then(pl.col("id").shift(1)),
    )
    accepted = _with_final_event(accepted, basis)
    accepted = accepted.with_columns(moved=_moved(accepted)).with_columns(fault=_fault())
    accepted = accepted.drop("stored_close", "stored_date", "moved")
    return pl.concat([accepted, rejected], how="diagonal")


def _with_carried_events(accepted: pl.DataFrame, rejected: pl.DataFrame) -> pl.DataFrame:
    """`accepted` with `event_*` compounded over the rejected rows of the symbol directly before each row.

    A later dividend is per share of that later day: per share at the beginning it is multiplied by the splits between.
    """
    carried = rejected.filter(pl.col("event_known_at").is_not_null())
    if carried.is_empty() or accepted.is_empty():
        return accepted
    targets = accepted.select("symbol", "id", target="id")
    carried = carried.sort("id").join_asof(
        targets.sort("id"), on="id", by="symbol", strategy="forward", check_sortedness=False
    )
    carried = carried.filter(pl.col("target").is_not_null())
    own = accepted.filter(pl.col("id").is_in(carried["target"].implode())).with_columns(target="id")
    splits_before = pl.col("event_split_ratio").cum_prod().shift(1, fill_value=1.0)
    compounded = (
        pl.concat([carried.select(own.columns), own])
        .sort("id")
        .group_by("target", maintain_order=True)
        .agg(
            event_dividend=(pl.col("event_dividend") * splits_before).sum(),
            event_split_ratio=pl.col("event_split_ratio").product(),
            event_adjustment=pl.col("event_adjustment").product(),
            event_known_at=pl.col("event_known_at").max(),
        )
        .rename({"target": "id"})
    )
    return accepted.update(compounded, on="id", how="left")


def _with_final_event(accepted: pl.DataFrame, basis: Basis) -> pl.DataFrame:
    """Adds `stored_dividend`, `stored_split_ratio` and `stored_adjustment`, for which see `validate`."""
    previous_close = pl.col("previous_close")
    if not accepted["inferred"].any():
        return accepted.with_columns(
            stored_dividend="event_dividend",
            stored_split_ratio="event_split_ratio",
            stored_adjustment=adjustment(pl.col("event_split_ratio"), pl.col("event_dividend"), previous_close),
        )
    step = pl.col("event_adjustment")
    noise = previous_close.is_null() | ((step - 1.0).abs() < SNAP_TOLERANCE)
    stored = pl.col("stored_adjustment"), pl.col("stored_split_ratio")
    accepted = accepted.with_columns(stored_adjustment=pl.when(noise).then(1.0).otherwise(step))
    accepted = accepted.with_columns(stored_split_ratio=inferred_split_ratio(stored[0], basis))
    return accepted.with_columns(stored_dividend=inferred_dividend(*stored, previous_close))


def _moved(accepted: pl.DataFrame) -> pl.Expr:
    """Whether a row without volume has another close than the last row before it that traded.

    Rows without volume say nothing about each other: whichever of them are rejected, this stays as it is.
    """
    if not (accepted["volume"] == 0).any():
        return pl.lit(False)
    trades = pl.col("volume") > 0
    splits = pl.col("stored_split_ratio").cum_prod()
    traded_close = (
        pl.when(trades).then("close").forward_fill().shift(1).over("symbol").fill_null(pl.col("stored_close"))
    )
    splits_then = pl.when(trades).then(splits).forward_fill().shift(1).over("symbol").fill_null(1.0)
    after_splits = pl.col("close") * splits.over("symbol") / splits_then / traded_close
    moved = (pl.col("close") != traded_close) & ((after_splits - 1.0).abs() > MOVE_TOLERANCE)
    return (~trades & ~pl.col("decided") & moved).fill_null(False)


def _fault() -> pl.Expr:
    """The reason that a row shows beside the accepted row before it; null if none."""
    previous_close = pl.col("previous_close")
    gross_return = pl.col("close") * pl.col("stored_adjustment") / previous_close
    fresh = pl.col("date") - pl.col("previous_date") <= JUMP_MEMORY
    jump = fresh & ((gross_return > JUMP_LIMIT) | (gross_return < 1.0 / JUMP_LIMIT))
    return (
        pl.when(pl.col("stored_dividend") >= previous_close)
        .then(pl.lit("dividend_not_below_previous_close"))
        .when("moved")
        .then(pl.lit(_MOVED))
        .when(jump & ~pl.col("decided"))
        .then(pl.lit("hundredfold_jump"))
    )


def _to_convict(faults: pl.DataFrame) -> pl.DataFrame:
    """The faults that are certain: each symbol's moves without volume up to its first other fault, else that."""
    others = faults.filter(pl.col("fault") != _MOVED).sort("id").group_by("symbol").first()
    moves = faults.filter(pl.col("fault") == _MOVED).join(others.select("symbol", other="id"), on="symbol", how="left")
    certain = moves.filter(pl.col("other").is_null() | (pl.col("id") < pl.col("other"))).drop("other")
    return pl.concat([certain, others.join(certain, on="symbol", how="anti").select(certain.columns)])


def _with_convicted(judged: pl.DataFrame, faults: pl.DataFrame) -> pl.DataFrame:
    """The rows of some symbols with these faults rejected, and what they may carry on set accordingly."""
    # A dividend that was too large is void, be it the convicted row's own or carried to it from rejected rows before.
    too_large = faults.filter(pl.col("fault") == "dividend_not_below_previous_close")
    too_large = too_large.select("symbol", since_id="previous_id", too_large_id="id")
    rows = judged.sort("id").join(faults.select("id", conviction="fault"), on="id", how="left", maintain_order="left")
    rows = rows.join(too_large, on="symbol", how="left", maintain_order="left")
    convicted = pl.col("conviction").is_not_null()
    carried_to_it = pl.col("id").is_between(pl.col("since_id").fill_null(0), "too_large_id").fill_null(False)
    return _with_events_to_carry(
        rows.with_columns(
            reason=pl.when(convicted).then("conviction").otherwise("reason"),
            against=pl.when(convicted).then("previous_close").otherwise("against"),
            void=pl.col("void") | (carried_to_it & (convicted | pl.col("reason").is_not_null())),
        )
    )


def _accepted(judged: pl.DataFrame) -> pl.DataFrame:
    event = {name: pl.col(f"stored_{name}") for name in _EVENT}
    eventful = pl.any_horizontal([event[name] != value for name, value in _EVENT.items()])
    known_at = pl.when(eventful).then(pl.coalesce("event_known_at", "date"))
    stored = judged.filter(pl.col("reason").is_null()).with_columns(**event, known_at=known_at)
    return stored.select(*PRICES_SCHEMA)


def _quarantined(judged: pl.DataFrame) -> pl.DataFrame:
    figures = [name for name, kind in QUARANTINE_SCHEMA.items() if kind == pl.Float64]
    shown = [pl.format(f"{name}={{}}", pl.col(name).cast(pl.String).fill_null("null")) for name in figures]
    previous_close = pl.format("previous_close={}", pl.col("against").cast(pl.String))
    rejected = judged.filter(pl.col("reason").is_not_null()).sort("id")
    detail = pl.concat_str([pl.col("misquoted"), *shown, previous_close], separator=" ", ignore_nulls=True)
    return rejected.with_columns(detail=detail).select(*QUARANTINE_SCHEMA)
