"""The lake on S3: the bytes and names of a folder, whole files under every fault, and one writer at a time."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.storage.aws.errors import AwsRefusal
from stockpicker_dagster.storage.lake import Bundle, Lake, MissingBundle, MissingDays
from stockpicker_dagster.storage.places import FileChanged, s3_lease
from stockpicker_dagster.storage.places import s3 as s3_file
from stockpicker_dagster.storage.places.s3 import S3Place
from stockpicker_dagster_tests.aws.buckets import make_bucket, objects
from stockpicker_dagster_tests.aws.faulty_proxy import Fault, FaultyProxy
from stockpicker_dagster_tests.aws.fixtures import ACCOUNT
from stockpicker_dagster_tests.storage.test_lake import ALL, SESSIONS, contents, rows, write

BUCKET = "hub"
FRAME = rows(ALL[:1])


@pytest.fixture
def s3(aws: FaultyProxy) -> Any:
    return make_bucket(BUCKET)


@pytest.fixture
def place(s3: Any, tmp_path: Path) -> S3Place:
    return S3Place(s3, BUCKET, "lake", ACCOUNT, tmp_path / "cache")


@pytest.fixture
def lake(place: S3Place) -> Lake:
    return Lake(place)


def stored(lake: Lake) -> dict[str, bytes]:
    assert isinstance(lake.place, S3Place)
    return objects(lake.place.s3, BUCKET, f"{lake.place.prefix}/")


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_names_and_bytes_are_those_of_a_folder_whatever_the_order_of_writing(
    data: st.DataObject, s3: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    days = data.draw(st.lists(st.sampled_from(ALL), unique=True, min_size=1).map(sorted))
    pieces = data.draw(st.permutations(days))
    cut = data.draw(st.integers(0, len(pieces)))
    folder = tmp_path_factory.mktemp("lake")
    on_disk, on_s3 = Lake(folder), Lake(S3Place(s3, BUCKET, folder.name, ACCOUNT, folder / "cache"))
    for lake in (on_disk, on_s3):
        write(lake, sorted(pieces[:cut]))
        for day in pieces[cut:]:
            write(lake, [day])
    assert stored(on_s3) == {name: data for name, data in contents(on_disk).items() if not name.startswith("cache/")}
    assert on_s3.days("t") == days
    assert on_s3.notes("t") == {day: {"by": "n"} for day in days}
    assert on_s3.read("t", days).equals(on_disk.read("t", days))


def test_a_whole_year_is_rewritten_day_by_day_and_missing_days_are_named(lake: Lake) -> None:
    write(lake, ALL)
    again = SESSIONS[2021][1]
    write(lake, [again], scale=-1.0, note="again")
    assert lake.read("t", ALL).equals(pl.concat([rows([day], -1.0 if day == again else 1.0) for day in ALL]))
    assert [day for day, note in lake.notes("t").items() if note == {"by": "again"}] == [again]
    with pytest.raises(MissingDays, match="u was never materialized for 2020-01-03"):
        lake.read("u", ALL[:1])


def test_bundles_have_the_names_of_a_folder_and_are_replaced_as_a_whole(lake: Lake) -> None:
    with pytest.raises(MissingBundle, match="models was never materialized for '2021-01-01'"):
        lake.bundle("models", "2021-01-01")
    lake.write_bundle("models", "2021-01-01", Bundle({"old": b"1", "both": b"2"}))
    before = lake.bundle("models", "2021-01-01")
    lake.write_bundle("models", "2021-01-01", Bundle({"both": b"3", "table.parquet": FRAME}))
    after = lake.bundle("models", "2021-01-01")
    assert sorted(path.name for path in after.iterdir()) == ["both", "table.parquet"]
    assert pl.read_parquet(after / "table.parquet").equals(FRAME)
    assert {path.name: path.read_bytes() for path in before.iterdir()} == {"old": b"1", "both": b"2"}
    assert set(stored(lake)) == {"models/2021-01-01/both", "models/2021-01-01/table.parquet"}
    lake.write_bundle("models", "2021-01-02", Bundle({"a": b""}))
    assert lake.bundles("models") == ["2021-01-01", "2021-01-02"]
    assert (lake.bundle("models", "2021-01-02") / "a").read_bytes() == b""
    lake.keep_bundles("models", ["2021-01-01"])
    assert lake.bundles("models") == ["2021-01-01"]
    assert not [name for name in objects(lake.place.s3, BUCKET, "lake/", hidden=True) if "2021-01-02" in name]


@pytest.mark.parametrize("requests_before", range(14))
def test_a_bundle_is_old_or_new_wherever_its_writer_dies(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, requests_before: int
) -> None:
    lake.write_bundle("m", "k", Bundle({"a": b"old", "b": b"old"}))
    died = _die_after(lake, monkeypatch, requests_before)
    try:
        lake.write_bundle("m", "k", Bundle({"a": b"new", "c": b"new"}))
    except _Died:
        died.undo()
    died.undo()
    found = {path.name: path.read_bytes() for path in Lake(lake.place).bundle("m", "k").iterdir()}
    assert found in ({"a": b"old", "b": b"old"}, {"a": b"new", "c": b"new"})
    monkeypatch.setattr(s3_lease, "_over", lambda _: True)
    lake.write_bundle("m", "k", Bundle({"a": b"last"}))
    assert stored(lake) == {"m/k/a": b"last"}
    assert [name for name in objects(lake.place.s3, BUCKET, "lake/", hidden=True) if name.startswith("m/.k")] == [
        "m/.k.bundle/manifest.json"
    ]


class _Died(BaseException):
    pass


def _die_after(lake: Lake, monkeypatch: pytest.MonkeyPatch, requests: int) -> Any:
    """Lets `requests` further writing requests through, and none after them, not even those that tidy up."""
    place, left = lake.place, [requests]
    assert isinstance(place, S3Place)
    patched = pytest.MonkeyPatch()
    for name in ("put_object", "delete_object", "copy"):
        real: Callable[..., Any] = getattr(place.s3, name)

        def counted(*arguments: Any, real: Callable[..., Any] = real, **named: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise _Died
            return real(*arguments, **named)

        patched.setattr(place.s3, name, counted)
    return patched


S3_FAULTS = {
    "throttled": Fault("", "answer", 3, 503, "SlowDown"),
    "internal error": Fault("", "answer", 3, 500, "InternalError"),
    "reset before": Fault("", "reset", 3),
    "answer lost": Fault("", "lose_answer", 3),
    "cut off": Fault("GET /hub/lake/t/year", "cut_answer", 3),
    "reset in mid-upload": Fault("PUT", "reset", 3),
    "put arrived, answer lost": Fault("PUT", "lose_answer", 1),
}


@pytest.mark.parametrize("name", S3_FAULTS)
def test_passing_faults_are_repeated_and_leave_the_bytes_of_a_quiet_day(
    name: str, lake: Lake, aws: FaultyProxy, tmp_path: Path
) -> None:
    fault = S3_FAULTS[name]
    quiet = Lake(tmp_path / "quiet")
    for days in (SESSIONS[2020][:-1], SESSIONS[2020], SESSIONS[2021][:2]):
        aws.forget()
        aws.fail(Fault(fault.matching, fault.kind, fault.times, fault.status, fault.code))
        write(lake, days)
        write(quiet, days)
        lake.write_bundle("m", "k", Bundle({"a": b"1", "b": str(days).encode()}))
        quiet.write_bundle("m", "k", Bundle({"a": b"1", "b": str(days).encode()}))
        aws.forget()
        aws.fail(Fault(fault.matching, fault.kind, fault.times, fault.status, fault.code))
        assert Lake(lake.place).read("t", days).equals(rows(days))
    aws.forget()
    assert stored(lake) == contents(quiet)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("", "answer", 99, 503, "SlowDown"), "SlowDown.*asked less often.*run again in a few minutes"),
        (Fault("", "answer", 99, 500, "InternalError"), "nothing is half-written: run again"),
        (Fault("", "answer", 99, 403, "ExpiredToken"), "credentials have expired: sign in again"),
        (Fault("", "answer", 99, 403, "AccessDenied"), "attach the policies.*a bucket of another account"),
        (Fault("PUT", "answer", 99, 400, "KMS.DisabledException"), "the KMS key is disabled"),
        (Fault("PUT", "answer", 99, 403, "AccessDenied", "not allowed: kms:GenerateDataKey"), "attach the policies"),
        (Fault("", "reset", 99), "run again"),
    ],
    ids=lambda value: value.code if isinstance(value, Fault) else "",
)
def test_lasting_faults_are_one_sentence_and_nothing_is_half_written(
    fault: Fault, said: str, lake: Lake, aws: FaultyProxy
) -> None:
    write(lake, ALL[:2])
    before = stored(lake)
    aws.fail(fault)
    with pytest.raises(AwsRefusal, match=said):
        write(lake, ALL, scale=7.0)
    with pytest.raises(AwsRefusal, match=said):
        lake.write_bundle("m", "k", Bundle({"a": b"1", "b": b"2"}))
    aws.forget()
    assert stored(lake) == before
    assert lake.bundles("m") == []


def _noting(asked: list[str]) -> Callable[..., None]:
    def note(params: dict[str, Any], **_: Any) -> None:
        asked.append(params.get("ExpectedBucketOwner", "nobody"))

    return note


def test_a_bucket_of_another_account_is_refused(lake: Lake, s3: Any, tmp_path: Path) -> None:
    foreign = Lake(S3Place(s3, BUCKET, "lake", "999999999999", tmp_path / "c"))
    # The emulator does not compare owners, so that what is asked is looked at.
    asked: list[str] = []
    s3.meta.events.register(
        "before-parameter-build.s3", lambda params, **_: asked.append(params["ExpectedBucketOwner"])
    )
    write(foreign, ALL[:2])
    foreign.read("t", ALL[:2])
    foreign.write_bundle("m", "k", Bundle({"a": b"1"}))
    foreign.bundle("m", "k")
    assert len(asked) > 10
    assert set(asked) == {"999999999999"}


def test_a_reader_never_mixes_two_versions_of_a_file(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    write(lake, SESSIONS[2020])
    frame = lake.scan("t", SESSIONS[2020])
    write(lake, SESSIONS[2020], scale=2.0)
    assert frame.collect().equals(rows(SESSIONS[2020]))  # what was looked at is still there, whole
    assert lake.read("t", SESSIONS[2020]).equals(rows(SESSIONS[2020], 2.0))


def test_a_file_that_is_replaced_while_it_is_read_is_looked_for_again(lake: Lake, tmp_path: Path) -> None:
    write(lake, SESSIONS[2020][:2])
    listed = lake.place.listed("t")
    write(lake, SESSIONS[2020], scale=2.0)
    old = {f"t/{name}": version for name, version in listed.items()}
    with pytest.raises(FileChanged, match="was replaced while it was read; read it again"):
        lake.place.local(old)
    looked = []
    real = lake.place.listed

    def stale_once(folder: str) -> dict[str, str]:
        looked.append(folder)
        return listed if len(looked) == 1 else real(folder)

    other = S3Place(lake.place.s3, BUCKET, "lake", ACCOUNT, tmp_path / "fresh")  # type: ignore[attr-defined]
    other.listed = stale_once  # type: ignore[method-assign]
    assert Lake(other).read("t", SESSIONS[2020][:2]).equals(rows(SESSIONS[2020][:2], 2.0))
    assert len(looked) >= 2


def test_writers_of_one_table_do_not_lose_each_others_days(lake: Lake, s3: Any, tmp_path: Path) -> None:
    def every_other(offset: int) -> None:
        own = Lake(S3Place(s3, BUCKET, "lake", ACCOUNT, tmp_path / str(offset)))
        for day in SESSIONS[2020][offset::2]:
            write(own, [day])

    writers = [threading.Thread(target=every_other, args=(offset,)) for offset in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    alone = Lake(tmp_path / "alone")
    write(alone, SESSIONS[2020])
    assert stored(lake) == contents(alone)


def test_a_dead_writers_lock_runs_out_and_a_living_ones_holds(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_lease, "LEASE_S", -10.0)
    place = lake.place
    assert isinstance(place, S3Place)
    place._put("t/.lock", b'{"owner": "dead", "until": %d}' % (time.time() - 60), "")
    monkeypatch.undo()
    write(lake, ALL[:1])
    place._put("t/.lock", b'{"owner": "alive", "until": %d}' % (time.time() + 3600), None)
    monkeypatch.setattr(s3_lease, "_PATIENCE_S", 0.2)
    with pytest.raises(StockPickerError, match=r"another writer has held .*/t/\.lock"):
        write(lake, ALL[1:2])
    assert lake.days("t") == ALL[:1]


def test_a_writer_whose_lease_ran_out_stops_before_it_writes(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    write(lake, ALL[:1])
    monkeypatch.setattr(s3_lease, "LEASE_S", 0.0)
    with pytest.raises(s3_lease.LeaseLost, match="what is stored is whole: run again"):
        write(lake, ALL[1:2])
    assert lake.days("t") == ALL[:1]


def test_large_files_go_and_come_in_parts_and_a_failed_upload_leaves_no_parts(
    place: S3Place, aws: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_file, "_PART", 5 * 2**20)
    content = bytes(range(256)) * (23 * 2**12)
    aws.fail(Fault("PUT .*partNumber=2", "reset", 2))
    place.write({"big.bin": content})
    [path] = place.local({"big.bin": place._every("big.bin")[""]})
    assert path.read_bytes() == content
    aws.fail(Fault("PUT .*partNumber=3", "answer", 99, 500, "InternalError"))
    with pytest.raises(AwsRefusal, match=r"big\.bin was to be written"):
        place.write({"big.bin": content[::-1]})
    aws.forget()
    assert "Uploads" not in place.s3.list_multipart_uploads(Bucket=BUCKET)
    assert place.read("big.bin") == content


def test_a_new_file_is_created_once(lake: Lake, aws: FaultyProxy) -> None:
    aws.fail(Fault("PUT", "lose_answer", 1))
    assert lake.create_file("d/1.json", b"first")
    assert not lake.create_file("d/1.json", b"second")
    assert lake.read_file("d/1.json") == b"first"
    assert lake.read_file("d/2.json") is None
    assert lake.files("d") == ["d/1.json"]
