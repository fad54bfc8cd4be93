"""Reading a trace: bad rows are counted by reason, bad files are refused with the reason."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from followme.analysis import trace as module
from followme.analysis.cells import read_cells
from followme.analysis.trace import (
    BEYOND,
    FIELDS,
    NO_NUMBER,
    NO_USER,
    OFF_EARTH,
    REASONS,
    REPEATED,
    TraceError,
    read_trace,
)

HEADER = "taxi,t_s,lat,lon,occ\n"
GOOD = "7,10,37.7,-122.4,0\n7,70,37.8,-122.5,1\n9,5,37.6,-122.3,0\n"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    return path


def test_a_good_trace(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path, HEADER + GOOD))
    assert trace.users == ("7", "9")
    assert trace.user.tolist() == [0, 0, 1]
    assert trace.t_s.tolist() == [10.0, 70.0, 5.0]
    assert trace.lat.tolist() == [37.7, 37.8, 37.6]
    assert trace.lon.tolist() == [-122.4, -122.5, -122.3]
    assert (trace.rows, trace.turned_back, dict(trace.dropped)) == (3, 0, dict.fromkeys(REASONS, 0))


def test_columns_go_by_name_and_users_may_be_text(tmp_path: Path) -> None:
    text = "\ufefflon, lat ,note,user,t_s\r\n-122.4,37.7,x,ann,1\r\n-122.5,37.8,,bob,2"
    trace = read_trace(written(tmp_path, text))
    assert (trace.users, trace.lon.tolist(), trace.t_s.tolist()) == (("ann", "bob"), [-122.4, -122.5], [1.0, 2.0])


def test_a_gzip_file_is_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "no-suffix"
    path.write_bytes(gzip.compress((HEADER + GOOD).encode()))
    assert read_trace(path).rows == 3


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("7,80,37.7", FIELDS),
        ("7,80,37.7,-122.4,0,0", FIELDS),
        (" ,80,37.7,-122.4,0", NO_USER),
        ("7,soon,37.7,-122.4,0", NO_NUMBER),
        ("7,80,nan,-122.4,0", NO_NUMBER),
        ("7,inf,37.7,-122.4,0", NO_NUMBER),
        ("7,80,37.7,,0", NO_NUMBER),
        ("7,80,90.1,-122.4,0", OFF_EARTH),
        ("7,80,37.7,-180.5,0", OFF_EARTH),
        ("7,70,37.0,-122.0,0", REPEATED),
    ],
)
def test_a_bad_row_is_dropped_and_counted_once(tmp_path: Path, row: str, reason: str) -> None:
    trace = read_trace(written(tmp_path, HEADER + GOOD + row + "\n" + "9,65,37.6,-122.3,0\n"))
    assert dict(trace.dropped) == {one: int(one == reason) for one in REASONS}
    assert (trace.rows, trace.t_s.tolist()) == (5, [10.0, 70.0, 5.0, 65.0])
    assert trace.lat.tolist() == [37.7, 37.8, 37.6, 37.6]


def test_times_that_run_back_are_sorted_in_and_counted(tmp_path: Path) -> None:
    rows = ["1,30,1,0", "2,9,0,0", "1,10,2,0", "1,20,3,0", "1,40,4,0", "2,8,5,0"]
    trace = read_trace(written(tmp_path, "user,t_s,lat,lon\n" + "\n".join(rows)))
    assert trace.turned_back == 3
    assert trace.t_s.tolist() == [10.0, 20.0, 30.0, 40.0, 8.0, 9.0]
    assert trace.lat.tolist() == [2.0, 3.0, 1.0, 4.0, 5.0, 0.0]
    assert sum(trace.dropped.values()) == 0


def test_rows_are_whole_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, HEADER + GOOD + "broken\n")
    whole = read_trace(path)
    for size in (1, 7, 64):
        monkeypatch.setattr(module, "_BLOCK_BYTES", size)
        again = read_trace(path)
        assert (again.users, again.rows, again.dropped) == (whole.users, 4, whole.dropped)
        assert (again.t_s.tolist(), again.lon.tolist()) == (whole.t_s.tolist(), whole.lon.tolist())


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "the file is empty"),
        ("taxi,t_s,lat\n1,2,3\n", "no column lon; the header has 'taxi, t_s, lat'"),
        ("id,time,lat,lon\n1,2,3,4\n", "no column taxi or user, t_s; the header has 'id, time, lat, lon'"),
        (HEADER, "there is no user in it: no row below the header"),
        (HEADER + "1,2\n1,x,3,4,5\n1,2,3,400,5\n", f"no user in it: 1 {FIELDS}, 1 {NO_NUMBER}, 1 {OFF_EARTH}"),
        (HEADER + "1" * 70_000, "a line is longer than 65536 bytes"),
    ],
)
def test_a_file_that_is_no_trace_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(TraceError) as caught:
        read_trace(path)
    assert str(path) in str(caught.value)
    assert complaint in str(caught.value)


def test_a_gzip_file_cut_off_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress((HEADER + GOOD * 1000).encode())
    path = tmp_path / "trace.csv.gz"
    for length in (len(packed) - 1, len(packed) // 2, 12):
        path.write_bytes(packed[:length])
        with pytest.raises(TraceError, match="cut off"):
            read_trace(path)


def test_a_damaged_gzip_file_is_refused(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress((HEADER + GOOD).encode()))
    packed[-6] ^= 0xFF
    path = tmp_path / "trace.csv.gz"
    path.write_bytes(packed)
    with pytest.raises(TraceError, match="damaged"):
        read_trace(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="No such file"):
        read_trace(tmp_path / "none.csv")


def test_a_time_beyond_reason_is_counted_and_stretches_nothing(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path, HEADER + GOOD + "9,1e15,37.6,-122.3,0\n9,1.2e12,37.6,-122.3,0\n"))
    assert (len(trace.t_s), trace.dropped[BEYOND], trace.dropped[NO_NUMBER]) == (3, 2, 0)
    assert float(trace.t_s.max()) == 70.0
    with pytest.raises(TraceError, match="1 time is more than 4e9 seconds from 0"):
        read_trace(written(tmp_path, HEADER + "9,1211033000000,37.6,-122.3,0\n"))


def test_unix_times_are_read(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path, HEADER + "9,1211333000,37.6,-122.3,0\n"))
    assert trace.t_s.tolist() == [1211333000.0]


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path, "\n" + HEADER + "\n" + GOOD + "  \n\n"))
    assert (trace.rows, sum(trace.dropped.values())) == (3, 0)


def test_what_a_file_says_reaches_no_terminal(tmp_path: Path) -> None:
    """An OSC sequence and a bell in the header, and a header of any length."""
    file = tmp_path / "bad.csv"
    for header in (b"\x1b]0;owned\x07,x,\xc2\x9b2J", b"a" * 60_000, bytes(range(256)).replace(b"\n", b"")):
        file.write_bytes(header + b"\n1,2,3\n")
        for read in (read_trace, read_cells):
            with pytest.raises(TraceError) as caught:
                read(file)
            text = str(caught.value)
            assert text.isprintable()
            assert len(text) < len(str(file)) + 200
    file.write_bytes(b"cell,lat,lon\nx\x1b[2J,1,far\n")
    with pytest.raises(TraceError, match=r"line 2: .*x1b.*is not a cell") as caught:
        read_cells(file)
    assert str(caught.value).isprintable()
