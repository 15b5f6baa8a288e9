"""Which days a model is trained on, validated on and used for, so that no label reaches into a later part.

The label of day t is known after the close of t + 1 + h (see `labels`). Everything that has to be left out between two
parts follows from that h and from the day of first use; nobody types a gap by hand. Purging and the embargo follow
Lopez de Prado (2018), chapters 7 and 12. Prices, features and models are not seen here: only sessions.
"""

from calendar import monthrange
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Literal, get_args

from stockpicker_dagster.errors import InvalidInput

if TYPE_CHECKING:
    from stockpicker_dagster.market.calendar import TradingCalendar

Retrain = Literal["weekly", "monthly", "quarterly", "yearly"]
Range = tuple[date, date]
"""First and last calendar day, both included."""


class LabelOverlap(InvalidInput):
    """A label of one part of the data is known only inside, or after, a later part."""


class TooLittleHistory(InvalidInput):
    """The prices do not reach back far enough for the look-back, the training and the validation asked for."""


@dataclass(frozen=True)
class ModelPeriod:
    """One period of a walk-forward strategy and the model that serves it.

    `key` is the first calendar day of the period in ISO form, as Dagster names the partition; `serves_from` and
    `serves_until` are its first and last calendar day.
    """

    key: str
    serves_from: date
    serves_until: date


@dataclass(frozen=True)
class Split:
    """The sessions of one model, purged.

    `last_known` is v, the last session before the model is first used, after whose close every label of `train` and
    `validation` is known; labels of `train` are known before the first session of `validation`.
    """

    train: tuple[date, ...]
    validation: tuple[date, ...]
    last_known: date


@dataclass(frozen=True)
class Fold:
    """One fold of a cross-validation: sessions to train on and sessions to test on, purged and embargoed."""

    train: tuple[date, ...]
    test: tuple[date, ...]


def walk_forward_periods(start: date, through: date, retrain: Retrain) -> list[ModelPeriod]:
    """The periods that hold any day from `start` to `through`, oldest first, in whole calendar units.

    Weeks begin on Monday. A period is the same whatever `start` and `through` are. Raises `InvalidInput` for an unknown
    cadence or reversed days.

    >>> walk_forward_periods(date(2024, 2, 10), date(2024, 5, 1), "quarterly")[0].key
    '2024-01-01'
    """
    if retrain not in get_args(Retrain):
        raise InvalidInput(f"retrain {retrain!r} is unknown; known: {', '.join(get_args(Retrain))}")
    _check_order("walk-forward", (start, through))
    periods = []
    begin = _period_start(start, retrain)
    while begin <= through:
        following = _next_period_start(begin, retrain)
        periods.append(ModelPeriod(begin.isoformat(), begin, following - timedelta(days=1)))
        begin = following
    return periods


def period_of(day: date, retrain: Retrain) -> ModelPeriod:
    """The one period that holds `day`."""
    return walk_forward_periods(day, day, retrain)[0]


def earliest_training_day(start: date, lookback: int, calendar: "TradingCalendar") -> date:
    """The first session of a source that starts on `start` at which every feature of this look-back can be full."""
    return calendar.offset(_first_session(start, calendar), lookback - 1)


def earliest_first_use(
    start: date, lookback: int, train_years: float, validation_years: float, calendar: "TradingCalendar"
) -> date:
    """The first day on which a walk-forward period may begin: look-back, training and validation fit before it."""
    first = earliest_training_day(start, lookback, calendar)
    # A training range that begins on a day without trading begins, in effect, with the session that follows.
    return _months_later(
        calendar.previous_session(first) + timedelta(days=1),
        _whole_months(train_years) + _whole_months(validation_years),
    )


def walk_forward_split(
    period: ModelPeriod,
    train_years: float,
    validation_years: float,
    horizon_days: int,
    calendar: "TradingCalendar",
    start: date,
    lookback: int,
    expanding: bool = False,
) -> Split:
    """The sessions of the model that serves `period`: `train_years`, then `validation_years`, up to its eve.

    Both count whole months (0.25 is three). The last session before the period is the last whose labels may be known,
    so that the model can be trained before the period begins. `start` is the first day of the source, `lookback` the
    longest of the features, in sessions. An `expanding` window trains from the first day on which every feature can be
    full, and `train_years` is the least that must lie there. Raises `TooLittleHistory`, naming the earliest day that
    would do.
    """
    if not train_years > 0:
        raise InvalidInput(f"train_years {train_years:g} is not allowed; train on at least one month")
    validation_from = _months_later(period.serves_from, -_whole_months(validation_years))
    train_from = _months_later(validation_from, -_whole_months(train_years))
    earliest = earliest_training_day(start, lookback, calendar)
    if _first_session(train_from, calendar) < earliest:
        raise TooLittleHistory(
            f"the model of {period.key} would train from {train_from}, but with prices from {start} and a look-back of "
            f"{lookback} sessions features begin on {earliest}; the earliest period begins on or after "
            f"{earliest_first_use(start, lookback, train_years, validation_years, calendar)}"
        )
    eve = period.serves_from - timedelta(days=1)
    if expanding:
        train_from = min(train_from, earliest)
    train = (train_from, validation_from - timedelta(days=1))
    validation = (validation_from, eve) if validation_years else None
    return split(train, validation, horizon_days, period.serves_from, calendar)


def fixed_split(
    train: Range,
    validation: Range,
    test: Range,
    horizon_days: int,
    calendar: "TradingCalendar",
    start: date,
    lookback: int,
) -> Split:
    """The sessions of the one model of a strategy with fixed periods, first used on the first session of `test`.

    Raises `InvalidInput` for a reversed range or ranges that overlap or are out of order, and `TooLittleHistory`,
    naming the earliest day that would do, if `train` begins before every feature of this look-back can be full.
    """
    _check_order("test", test)
    earliest = earliest_training_day(start, lookback, calendar)
    if _first_session(train[0], calendar) < earliest:
        raise TooLittleHistory(
            f"training from {train[0]} needs prices {lookback} sessions back, but these start on {start}; "
            f"the earliest possible training day is {earliest}"
        )
    if test[0] <= validation[1]:
        raise InvalidInput(
            f"the test period from {test[0]} overlaps the validation period up to {validation[1]}; begin it later"
        )
    return split(train, validation, horizon_days, test[0], calendar)


def split(
    train: Range, validation: Range | None, horizon_days: int, first_used: date, calendar: "TradingCalendar"
) -> Split:
    """The sessions of two calendar ranges, less those whose label is known too late.

    With v the last session before `first_used`: a session t stays only if t + 1 + h <= v, and one of `train` only if
    t + 1 + h also precedes the first session of `validation` (None: there is no validation). Raises `InvalidInput` for
    a horizon below one, reversed or overlapping ranges, a first use inside them, and ranges of which nothing is left.
    """
    if horizon_days < 1:
        raise InvalidInput(f"label horizon_days {horizon_days} is not allowed; it must be at least 1 session")
    _check_parts(train, validation, first_used)
    last_known = calendar.previous_session(first_used)
    kept_train = calendar.sessions(*train)
    kept_validation = calendar.sessions(*validation) if validation else []
    limit = calendar.index(last_known)
    if kept_validation:
        kept_train = _known_by(kept_train, calendar.index(kept_validation[0]) - 1, horizon_days, calendar)
    kept_train = _known_by(kept_train, limit, horizon_days, calendar)
    kept_validation = _known_by(kept_validation, limit, horizon_days, calendar)
    for name, asked, kept in (("train", train, kept_train), ("validation", validation, kept_validation)):
        if asked and not kept:
            raise InvalidInput(
                f"the {name} period {asked[0]} to {asked[1]} has no session left after purging labels of "
                f"{horizon_days} sessions; make it longer"
            )
    return Split(tuple(kept_train), tuple(kept_validation), last_known)


def assert_purged(
    train_sessions: Sequence[date],
    validation_sessions: Sequence[date],
    horizon_days: int,
    calendar: "TradingCalendar",
    last_known: date | None = None,
) -> None:
    """Raises `LabelOverlap`, naming the days, unless the labels of one part are known before the next part begins.

    Labels of `train_sessions` must be known before the first of `validation_sessions`, and those of both by
    `last_known`, the last session before the model is first used. This is checked on the days themselves, because
    a missing purge hardly shows in a rank IC.
    """
    if validation_sessions:
        first = calendar.previous_session(min(validation_sessions))
        _assert_known("training", train_sessions, first, horizon_days, calendar)
    if last_known is not None:
        _assert_known("training", train_sessions, last_known, horizon_days, calendar)
        _assert_known("validation", validation_sessions, last_known, horizon_days, calendar)


def purged_folds(sessions: Sequence[date], n_folds: int, horizon_days: int, n_test_folds: int = 1) -> list[Fold]:
    """Combinatorial cross-validation over `n_folds` runs of consecutive `sessions`, `n_test_folds` of them for testing.

    Before each tested run h + 1 sessions are purged, whose labels would reach into it; after it h + 1 sessions that its
    own labels reach into, and an embargo of another h. `sessions` are consecutive sessions of a calendar, ascending.
    Raises `InvalidInput` for too few folds or sessions. Lopez de Prado (2018), chapters 7 and 12.
    """
    if horizon_days < 1 or not 2 <= n_folds <= len(sessions) or not 1 <= n_test_folds < n_folds:
        raise InvalidInput(
            f"{n_folds} folds, {n_test_folds} of them tested, of {len(sessions)} sessions with a horizon of "
            f"{horizon_days} are not allowed; give a horizon of at least 1, 2 to {len(sessions)} folds and fewer tested"
        )
    edges = [len(sessions) * fold // n_folds for fold in range(n_folds + 1)]
    folds = []
    for tested in combinations(range(n_folds), n_test_folds):
        runs = [(edges[fold], edges[fold + 1] - 1) for fold in tested]
        test = [session for first, last in runs for session in sessions[first : last + 1]]
        train = [
            session
            for position, session in enumerate(sessions)
            if all(_clear(position, run, horizon_days) for run in runs)
        ]
        if not train:
            raise InvalidInput(
                f"no session is left to train on besides the test from {test[0]} to {test[-1]}; "
                "use more sessions, fewer folds or a shorter horizon"
            )
        folds.append(Fold(tuple(train), tuple(test)))
    return folds


def purged_walk_forward(sessions: Sequence[date], n_folds: int, horizon_days: int) -> list[Fold]:
    """`n_folds` runs of consecutive `sessions`, each tested by what was known before it.

    The sessions fall into `n_folds` + 1 runs; every one but the first is tested on all sessions before it, less the
    h + 1 whose labels would reach into it. Raises `InvalidInput` for too few folds or sessions.
    """
    if horizon_days < 1 or not 1 <= n_folds < len(sessions):
        raise InvalidInput(
            f"{n_folds} walk-forward folds of {len(sessions)} sessions with a horizon of {horizon_days} are not "
            f"allowed; give a horizon of at least 1, and 1 to {max(1, len(sessions) - 1)} folds"
        )
    edges = [len(sessions) * run // (n_folds + 1) for run in range(n_folds + 2)]
    folds = []
    for first, last in pairwise(edges[1:]):
        train, test = sessions[: max(0, first - 1 - horizon_days)], sessions[first:last]
        if not train:
            raise InvalidInput(
                f"no session is left to train on before the test from {test[0]} to {test[-1]}; "
                "use more sessions, fewer folds or a shorter horizon"
            )
        folds.append(Fold(tuple(train), tuple(test)))
    return folds


def _clear(position: int, run: tuple[int, int], horizon_days: int) -> bool:
    first, last = run
    return position + 1 + horizon_days < first or position > last + 1 + 2 * horizon_days


def _known_by(sessions: list[date], limit: int, horizon_days: int, calendar: "TradingCalendar") -> list[date]:
    """The sessions t with index(t) + 1 + h <= limit."""
    return [session for session in sessions if calendar.index(session) + 1 + horizon_days <= limit]


def _assert_known(
    part: str, sessions: Sequence[date], limit: date, horizon_days: int, calendar: "TradingCalendar"
) -> None:
    last = calendar.index(limit)
    late = [session for session in sessions if calendar.index(session) + 1 + horizon_days > last]
    if late:
        raise LabelOverlap(
            f"label overlap: {len(late)} {part} sessions from {min(late)} to {max(late)} have labels of {horizon_days} "
            f"sessions that are known only after {limit}; end that part earlier"
        )


def _check_parts(train: Range, validation: Range | None, first_used: date) -> None:
    _check_order("train", train)
    last = train[1]
    if validation:
        _check_order("validation", validation)
        if validation[0] <= train[1]:
            raise InvalidInput(
                f"the validation period from {validation[0]} overlaps the train period up to {train[1]}; begin it later"
            )
        last = validation[1]
    if first_used <= last:
        raise InvalidInput(
            f"the model is first used on {first_used}, inside its periods up to {last}; end them earlier"
        )


def _check_order(name: str, period: Range) -> None:
    if period[0] > period[1]:
        raise InvalidInput(f"the {name} period {period[0]} to {period[1]} is reversed; give the earlier day first")


def _first_session(day: date, calendar: "TradingCalendar") -> date:
    return calendar.next_session(day - timedelta(days=1))


def _months_later(day: date, months: int) -> date:
    """The same day some months later (earlier if negative), or the last of the month where it has no such day."""
    year, month = divmod(12 * day.year + day.month - 1 + months, 12)
    return date(year, month + 1, min(day.day, monthrange(year, month + 1)[1]))


def _whole_months(years: float) -> int:
    if years < 0 or 12 * years != round(12 * years):
        raise InvalidInput(f"{years:g} years is no whole number of months; 0.25, 0.5 or 1 are")
    return round(12 * years)


def _period_start(day: date, retrain: Retrain) -> date:
    if retrain == "weekly":
        return day - timedelta(days=day.weekday())
    if retrain == "monthly":
        return day.replace(day=1)
    if retrain == "quarterly":
        return day.replace(month=3 * ((day.month - 1) // 3) + 1, day=1)
    return day.replace(month=1, day=1)


def _next_period_start(begin: date, retrain: Retrain) -> date:
    """The next start: the longest unit ahead, which never skips a whole one, and then back to where its unit begins."""
    ahead = {"weekly": 7, "monthly": 31, "quarterly": 92, "yearly": 366}[retrain]
    return _period_start(begin + timedelta(days=ahead), retrain)
