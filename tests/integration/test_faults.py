"""Nothing is lost: a fault gives a clear event, the champion keeps its place, and the run resumes without the cause."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import subprocess
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from sklearn.linear_model import SGDClassifier
from sklearn.naive_bayes import GaussianNB

import perennial as pn
from perennial import learners, strategies, triggers, windows
from perennial.cli import main
from perennial.cli.failures import exit_code
from perennial.core import failpoints
from perennial.core.times import moment
from perennial.gate import Gate
from perennial.ledger.blobs import Disk, LocalBlobs
from perennial.ledger.errors import CorruptBlob, LeaseHeld, StorageError
from perennial.ledger.sql import SqlLedger
from perennial.production import Deployment
from perennial.production import run as production
from perennial.production.service import keep_current, leased
from perennial.stream import feed
from perennial.stream.feed import OffsetGone
from perennial.stream.quality import Quality
from tests import postgres
from tests.crash.deployments import remembered
from tests.integration.test_run import YAML

BEGIN = np.datetime64("2026-01-01", "us")
LATER = datetime(2026, 6, 1, tzinfo=UTC)
EVERY = triggers.every("1d")


# ---------------------------------------------------------------------- what is run


def rows(days, per_day=24):
    """Rows at even distances whose label follows two columns; the rule never changes."""
    rng = np.random.default_rng(7)
    n = days * per_day
    x = rng.normal(size=(3000, 3))[:n]
    y = 2 * x[:, 0] - x[:, 1] + x[:, 2] / 2 > 0
    at = BEGIN + np.arange(n) * np.timedelta64(86_400_000_000 // per_day, "us")
    return pa.table({"at": at, "a": x[:, 0], "b": x[:, 1], "y": y})


def put(folder, name, table):
    """A Parquet file, moved in whole."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder.parent / f".{name}.part"
    pq.write_table(table, part)
    part.replace(folder / f"{name}.parquet")


def put_days(folder, table, per_day=24):
    """A file per day."""
    for day in range(len(table) // per_day):
        put(folder, f"{day:03}", table.slice(day * per_day, per_day))


def nb():
    """A stateful strategy that learns every day."""
    return strategies.Stateful(GaussianNB(), initial="3d", trigger=EVERY)


def deployment(place, *, source="rows", url=None, **settings):
    """A deployment whose files are all in one folder."""
    stream = pn.Stream(place / source, time="at", target="y", time_zone="UTC", label_delay="6h", batch="1d")
    given = {"strategy": nb(), "blobs": place / "blobs", **settings}
    return Deployment(name=place.name, stream=stream, ledger=url or f"sqlite:///{place}/ledger.db", **given)


def taken(made, *, mode="once", clock=lambda: LATER, waits=0, tell=lambda *_: None, inline=500, lease=60.0, pause=None):
    """Run in this process; follow mode ends after so many waits for the source, or for storage."""
    left = [waits]

    def wait(seconds):
        left[0] -= 1
        if pause is not None:
            pause(seconds)

    with (
        SqlLedger.open(made.ledger, made.name, blobs=made.blobs, inline_bytes=inline) as ledger,
        leased(ledger, "test", timedelta(seconds=lease), tell) as held,
    ):
        return keep_current(
            made, ledger, held, mode=mode, stopped=lambda: mode == "follow" and left[0] < 0, wait=wait, clock=clock,
            poll=0.0, tell=tell,
        )  # fmt: skip


@contextmanager
def opened(made):
    """The ledger of a deployment that is there."""
    with SqlLedger.open(made.ledger, made.name, blobs=made.blobs, create=False) as ledger:
        yield ledger


def champion(made):
    """Who serves."""
    with opened(made) as ledger:
        return ledger.alias("champion").version


def same(one, other):
    """Assert that two deployments remember the same: turns, versions, predictions, digests of every state."""
    for name in one:
        assert one[name] == other[name], name
    assert not other["wrong"]


class Told(list):
    """Everything that was told."""

    def __call__(self, event, facts):
        """Keep an event."""
        self.append((event, facts))

    def of(self, kind):
        """The facts of each event of a kind."""
        return [facts for event, facts in self if event == kind]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """What a run of eight days remembers that nothing disturbed."""
    place = tmp_path_factory.mktemp("straight")
    put_days(place / "rows", rows(8))
    made = deployment(place)
    assert taken(made) == 7
    return remembered(made)


@pytest.fixture
def shop(tmp_path):
    """A folder with the rows of eight days."""
    place = tmp_path / "shop"
    put_days(place / "rows", rows(8))
    return place


# ---------------------------------------------------------------------- the disk is full


class Full(Disk):
    """A disk that is full at the first write of a turn, when it is tried again at the second, and so on."""

    def __init__(self, number=errno.ENOSPC):
        self.number, self.allowed, self.left, self.failed = number, 0, 0, 0

    def write(self, handle, data):
        """Write all, or half and fail."""
        if self.left:
            self.left -= 1
            super().write(handle, data)
            return
        self.allowed += 1
        self.left, self.failed = self.allowed, self.failed + 1
        super().write(handle, data[: len(data) // 2])
        raise OSError(self.number, os.strerror(self.number))


def on(disk, monkeypatch):
    """Let every blob store write to this disk; a turn that is done begins anew."""
    before, commit = LocalBlobs.__init__, SqlLedger.commit

    def committed(self, lease, entry):
        commit(self, lease, entry)
        disk.allowed = disk.left = 0

    monkeypatch.setattr(LocalBlobs, "__init__", lambda self, root, files=None: before(self, root, disk))
    monkeypatch.setattr(SqlLedger, "commit", committed)


def test_a_disk_that_is_full_at_every_write_is_waited_for(shop, straight, monkeypatch):
    """Each blob of each turn meets a full disk once: the run says so, tries again, and ends as if nothing had been."""
    told = Told()
    on(Full(), monkeypatch)
    assert taken(deployment(shop), tell=told, inline=0) == 7
    retrying = told.of("retrying")
    assert len(retrying) > 20
    assert all("No space left on device" in facts["error"] for facts in retrying)
    same(straight, remembered(deployment(shop)))


def test_a_disk_that_stays_full_ends_the_run_and_nothing_is_lost(shop, straight, monkeypatch):
    """However often a run gives up at whatever write, the next one goes on, and leaves nothing half done."""
    disk = Full()
    on(disk, monkeypatch)
    monkeypatch.setattr("perennial.production.service.RETRIES", 0)
    made, told, done = deployment(shop), [], False
    while not done and len(told) < 100:
        try:
            taken(made, inline=0)
            done = True
        except StorageError as error:
            told.append((exit_code(error), str(error).partition(": ")[2]))
    assert set(told) == {(5, "No space left on device")}
    assert len(told) == disk.failed > 30
    same(straight, remembered(made))
    with opened(made) as ledger:
        assert ledger.check() == []


@contextmanager
def small_disk(place, size):
    """A file system of so many bytes at ``place``; skips without the right to mount one."""
    place.mkdir(parents=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def remount(place, how):
    """Make a file system read-only, or writable again."""
    subprocess.run(["mount", "-o", f"remount,{how}", str(place)], check=True)


@pytest.mark.parametrize("inline", [0, 100_000], ids=["blobs", "rows"])
def test_a_real_disk_runs_full(tmp_path, straight, inline):
    """With ever more room on a small disk, database and blobs fail where they may, and the rest is done in the end."""
    put_days(tmp_path / "shop" / "rows", rows(8))
    with small_disk(tmp_path / "shop" / "disk", 2 << 20) as disk:
        made = deployment(tmp_path / "shop", url=f"sqlite:///{disk}/ledger.db", blobs=disk / "blobs")
        ballast = disk / "ballast"
        failures, left = [], []
        for free in range(0, 400, 20):
            ballast.unlink(missing_ok=True)
            status = os.statvfs(disk)
            ballast.write_bytes(bytes(max(status.f_bavail * status.f_frsize - (free << 10), 0)))
            try:
                taken(made, inline=inline)
                break
            except pn.LedgerError as error:
                failures.append(str(error))
                left.append(exit_code(error))
        ballast.unlink(missing_ok=True)
        taken(made, inline=inline)
        assert failures
        assert set(left) == {5}
        assert all("full" in told or "No space left" in told or "disk I/O error" in told for told in failures), failures
        assert taken(made, inline=inline) == 0
        same(straight, remembered(made))


def test_a_command_ends_with_5_on_a_full_disk_and_then_goes_on(tmp_path, monkeypatch, capsys):
    """`perennial run` names the path and the reason, and goes on once there is room."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("perennial.production.service.RETRIES", 0)
    put_days(tmp_path / "rows", rows(8))
    (tmp_path / "perennial.yaml").write_text(YAML)
    with small_disk(tmp_path / ".perennial", 1 << 20) as disk:
        (disk / "ballast").write_bytes(bytes((1 << 20) - 4096 * 20))
        assert main(["run", "--once", "--json"]) == 5
        out, err = capsys.readouterr()
        assert json.loads(out)["error"]["kind"] == "StorageError"
        assert "Error: " in err
        assert "full" in err or "No space left" in err
        (disk / "ballast").unlink()
        assert main(["run", "--once", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["champion"] == "1.3"


# ---------------------------------------------------------------------- read-only


def test_a_read_only_disk_is_told_and_the_run_resumes(tmp_path, straight):
    """A disk that was mounted read-only refuses the run; the champion is as it was, and turns go on once it is not."""
    table = rows(8)
    put(tmp_path / "shop" / "rows", "000", table.slice(0, 120))
    with small_disk(tmp_path / "shop" / "disk", 4 << 20) as disk:
        made = deployment(tmp_path / "shop", url=f"sqlite:///{disk}/ledger.db", blobs=disk / "blobs")
        assert taken(made) == 4
        put(tmp_path / "shop" / "rows", "001", table.slice(120))
        served = champion(made)
        remount(disk, "ro")
        with pytest.raises(StorageError, match=r"readonly|read-only|unable to open") as caught:
            taken(made)
        assert exit_code(caught.value) == 5
        assert "check who may write" in str(caught.value)
        remount(disk, "rw")
        assert champion(made) == served
        assert taken(made) == 3
        now = remembered(made)
        assert now["versions"] == straight["versions"]
        assert now["predictions"] == straight["predictions"]


def test_a_folder_of_blobs_that_turns_read_only_is_waited_for(shop, straight, monkeypatch):
    """A file system that fell back to read-only between two writes: the run says so and goes on when it is mended."""
    told = Told()
    on(Full(errno.EROFS), monkeypatch)
    assert taken(deployment(shop), tell=told, inline=0) == 7
    assert all("Read-only file system" in facts["error"] for facts in told.of("retrying"))
    same(straight, remembered(deployment(shop)))


# ---------------------------------------------------------------------- the database is restarted


@pytest.fixture(scope="module")
def server():
    """A database of its own on the server, whose connections end and which refuses new ones, as in a restart."""
    name = f"faults_{secrets.token_hex(4)}"
    with postgres.server() as engine:
        try:
            with engine.connect() as connection:
                connection.execute(sa.text(f"CREATE DATABASE {name}"))
        except sa.exc.ProgrammingError as error:
            pytest.skip(f"{engine.url} lets nobody make a database: {error.orig}")

        class Server:
            url = sa.make_url(postgres.URL).set(database=name).render_as_string(False)

            @staticmethod
            def cut():
                """End every connection; gives how many."""
                with engine.connect() as connection:
                    ended = sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name")
                    return len(connection.execute(ended, {"name": name}).all())

            @staticmethod
            def refuse(yes):
                """Refuse connections, or accept them again."""
                with engine.connect() as connection:
                    connection.execute(sa.text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {str(not yes).lower()}"))

        yield Server
        Server.refuse(False)
        Server.cut()
        with engine.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name}"))


PLACES = ("intent.before", "intent.after", "turn.after", "blob.after", "commit.before", "commit.inside", "commit.after",
          "recover.before", "recover.after")  # fmt: skip


def test_a_server_that_restarts_at_every_step_of_every_turn(shop, straight, server, monkeypatch):
    """Every connection is cut once at each step of each turn: the run tries again, and no turn differs."""
    made, told, cut = deployment(shop, url=server.url), Told(), set()

    def reach(place):
        if place in PLACES:
            at = (place, len(told.of("turn")))
            if at not in cut:
                cut.add(at)
                server.cut()

    monkeypatch.setattr(production, "reach", reach)
    monkeypatch.setattr(failpoints, "reach", reach)
    assert taken(made, tell=told) == 7
    monkeypatch.undo()
    assert {place for place, _ in cut} == set(PLACES)
    assert len(told.of("retrying")) >= 7  # inside each commit at the least; at rest a dead connection is made anew
    same(straight, remembered(made))


def test_a_server_that_is_away_longer_than_the_lease(shop, straight, server):
    """Nobody could take over meanwhile: the lease is renewed when the server is back, and the run goes on."""
    shop = shop.rename(shop.with_name("outage"))
    made, told, since = deployment(shop, url=server.url), Told(), []

    def away(event, facts):
        told(event, facts)
        if event == "turn" and facts["turn"] == 3:
            server.refuse(True)
            server.cut()
            since.append(time.monotonic())

    def pause(_):
        time.sleep(0.4)
        if since and time.monotonic() - since[0] > 1.5:
            server.refuse(False)

    try:
        assert taken(made, tell=away, lease=1.0, pause=pause) == 7
    finally:
        server.refuse(False)
    assert told.of("retrying")
    same(straight, remembered(made))


def test_a_server_that_stays_away_ends_the_run(shop, straight, server):
    """After as many tries as are allowed the run ends with 5; the next one does what is left."""
    shop = shop.rename(shop.with_name("away"))
    made, told = deployment(shop, url=server.url), Told()

    def away(event, facts):
        told(event, facts)
        if event == "turn" and facts["turn"] == 3:
            server.refuse(True)
            server.cut()

    try:
        with pytest.raises(StorageError) as caught:
            taken(made, tell=away)
    finally:
        server.refuse(False)
    assert exit_code(caught.value) == 5
    assert len(told.of("retrying")) == 8
    assert taken(made) == 3
    same(straight, remembered(made))


# ---------------------------------------------------------------------- a corrupt blob


def flip(made, digest):
    """Flip a bit in the middle of a blob; gives a function that puts it right."""
    with opened(made) as ledger:
        path = ledger.blobs._path(digest)
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    return lambda: path.write_bytes(whole)


def half_way(place):
    """A deployment with five turns done and two to come."""
    table = rows(8)
    put_days(place / "rows", table.slice(0, 144))
    made = deployment(place)
    assert taken(made, inline=0) == 5
    for day in (6, 7):
        put(place / "rows", f"{day:03}", table.slice(24 * day, 24))
    return made


@pytest.mark.parametrize("what", ["champion", "checkpoint", "segment"])
def test_bytes_that_a_run_needs_are_corrupt(tmp_path, straight, what):
    """The run names digest and path and ends with 5, check says what names it, and restored bytes let it go on."""
    made = half_way(tmp_path / "shop")
    with opened(made) as ledger:
        digest = {
            "champion": ledger.version(ledger.alias("champion").version).blob,
            "checkpoint": ledger.head().checkpoint,
            "segment": ledger.segments()[-1].digest,
        }[what]
        served = ledger.alias("champion")
    mend = flip(made, digest)
    with pytest.raises(CorruptBlob, match=rf"{digest}: restore it from a backup") as caught:
        taken(made)
    assert exit_code(caught.value) == 5
    with opened(made) as ledger:
        (finding,) = ledger.check()
        assert not finding.safe
        assert digest in finding.what
        assert ledger.alias("champion") == served
        assert ledger.head().turn == 4
    mend()
    assert taken(made) == 2
    same(straight, remembered(made))


def test_an_old_version_is_corrupt(tmp_path, straight):
    """What serves does not need it: the run goes on, and check finds it."""
    made = half_way(tmp_path / "shop")
    with opened(made) as ledger:
        digest = ledger.version("1.0").blob
        assert ledger.alias("champion").version != "1.0"
    mend = flip(made, digest)
    assert taken(made) == 2
    with opened(made) as ledger:
        (finding,) = ledger.check()
        assert "1.0" in finding.what
        assert digest in finding.what
        with pytest.raises(CorruptBlob):
            ledger.get(digest)
    mend()
    same(straight, remembered(made))


def test_a_corrupt_blob_that_is_put_again_is_mended(tmp_path):
    """What put gave back can be read, also where a file of the right name and length lay there with other bytes."""
    blobs = LocalBlobs(tmp_path)
    digest = blobs.put(b"a model")
    blobs._path(digest).write_bytes(b"a m0del")
    assert blobs.put(b"a model") == digest
    assert blobs.get(digest) == b"a model"


def test_a_corrupt_row_of_the_database_is_found(tmp_path):
    """Small bytes lie in the database and are verified as well."""
    made = half_way(tmp_path / "shop")
    taken(made, inline=100_000)
    with opened(made) as ledger:
        digest = ledger.version(ledger.alias("champion").version).blob
        with ledger._database.writing() as connection:
            changed = sa.text("UPDATE payloads SET data = zeroblob(9) WHERE digest = :digest")
            assert connection.execute(changed, {"digest": digest}).rowcount == 1
        assert [digest in finding.what for finding in ledger.check()] == [True]
    with pytest.raises(CorruptBlob, match="payloads"):
        taken(made)


# ---------------------------------------------------------------------- the source


def after_four(place):
    """Four turns of a single growing CSV file, and all of its lines."""
    place.mkdir(parents=True)
    pa.csv.write_csv(rows(8), place / "rows.csv")
    lines = (place / "rows.csv").read_text().splitlines(keepends=True)
    (place / "rows.csv").write_text("".join(lines[: 1 + 110]))
    made = deployment(place, source="rows.csv")
    assert taken(made) == 4
    return made, lines


@pytest.mark.parametrize("fault", ["truncated", "rewritten", "emptied", "deleted"])
def test_a_file_that_was_read_changes(tmp_path, straight, fault):
    """The run names the file, changes nothing, and goes on from where it was when the rows are back."""
    made, lines = after_four(tmp_path / "shop")
    file, served = tmp_path / "shop" / "rows.csv", champion(made)
    if fault == "truncated":
        file.write_text("".join(lines[:50]))
    elif fault == "rewritten":
        file.write_text("".join([*lines[:96], lines[96].replace("true", "false").replace("-0.", "0."), *lines[97:]])
                        if "-0." in lines[96] else "".join([*lines[:96], lines[97], *lines[97:]]))  # fmt: skip
    elif fault == "emptied":
        file.write_text("")
    else:
        file.unlink()
    with pytest.raises(pn.DataError, match=r"rows\.csv") as caught:
        taken(made)
    assert exit_code(caught.value) == 3
    if fault in ("truncated", "rewritten"):
        assert isinstance(caught.value, OffsetGone)
    assert champion(made) == served
    file.write_text("".join(lines))
    assert taken(made) == 3
    now = remembered(made)
    assert now["predictions"] == straight["predictions"]
    assert now["versions"] == straight["versions"]


@pytest.mark.parametrize("fault", ["truncated", "deleted"])
def test_a_live_run_whose_source_changes_ends(tmp_path, fault):
    """It is noticed at the next look, also without new rows: not a guess is made."""
    made, lines = after_four(tmp_path / "shop")
    file, looks = tmp_path / "shop" / "rows.csv", []

    def clock():
        looks.append(0)
        if len(looks) == 2:
            file.write_text("".join(lines[:50])) if fault == "truncated" else file.unlink()
        return LATER

    with pytest.raises(pn.DataError, match=r"rows\.csv"):
        taken(made, mode="follow", clock=clock, waits=5)
    assert len(looks) == 2


def test_a_folder_loses_and_gains_files(shop, straight):
    """An old file may go; the one that was read last may not, nor may one turn up before it."""
    made, table = deployment(shop), rows(8)
    aside = shop / "aside"
    aside.mkdir()
    for day in (5, 6, 7):
        shutil.move(shop / "rows" / f"{day:03}.parquet", aside)
    assert taken(made) == 4
    shutil.move(shop / "rows" / "000.parquet", aside)  # long read
    shutil.move(shop / "rows" / "003.parquet", aside)  # the last of which a batch was taken
    with pytest.raises(OffsetGone, match=r"003\.parquet, read up to row 24"):
        taken(made)
    shutil.move(aside / "003.parquet", shop / "rows")
    put(shop / "rows", "002b", table.slice(48, 24))
    shutil.move(aside / "000.parquet", shop / "rows")
    with pytest.raises(OffsetGone, match=r"002b\.parquet .*turned up before 003"):
        taken(made)
    (shop / "rows" / "002b.parquet").unlink()
    for day in (5, 6, 7):
        shutil.move(aside / f"{day:03}.parquet", shop / "rows")
    assert taken(made) == 3
    same(straight, remembered(made))


def test_a_file_that_turns_up_where_an_old_one_went(shop):
    """One old file goes and another comes before the last read: it is not passed over in silence."""
    made = deployment(shop)
    assert taken(made) == 7
    (shop / "rows" / "000.parquet").unlink()
    put(shop / "rows", "003b", rows(9).slice(192))
    with pytest.raises(OffsetGone, match="003b"):
        taken(made)


def test_a_parquet_file_that_is_half_there(shop, straight):
    """Cut anywhere, it ends the run with its name and 3; whole again, the run goes on."""
    made, file = deployment(shop), shop / "rows" / "006.parquet"
    whole = file.read_bytes()
    for upto in (0, 4, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:upto])
        with pytest.raises(pn.DataError, match=r"006\.parquet") as caught:
            taken(made)
        assert exit_code(caught.value) == 3
    file.write_bytes(whole[:10] + bytes(len(whole) // 3) + whole[10 + len(whole) // 3 :])  # pages zeroed, footer whole
    with pytest.raises(pn.DataError, match=r"006\.parquet"):
        taken(made)
    file.write_bytes(whole)
    taken(made)
    same(straight, remembered(made))


def test_a_line_that_is_being_written_is_waited_for(tmp_path, straight):
    """A CSV file is looked at in the middle of a line: the line is taken when it is whole, and nothing of it before."""
    made, lines = after_four(tmp_path / "shop")
    file, text = tmp_path / "shop" / "rows.csv", "".join(lines)
    at = len("".join(lines[: 1 + 150]))
    cuts = iter([at + 5, at + 30, at + 50, at + len(lines[151]) - 3, at + len(lines[151]) - 1, len(text)])
    done, told = [], Told()

    def clock():
        upto = next(cuts, None)
        if upto is not None:
            file.write_text(text[:upto])
            os.utime(file, ns=(0, 10**18 + len(done) * 10**9))
            done.append(upto)
        return LATER

    taken(made, mode="follow", clock=clock, waits=8, tell=told)
    assert len(done) == 6
    now = remembered(made)
    assert now["predictions"] == straight["predictions"]
    assert now["versions"] == straight["versions"]


def test_a_recording_may_end_without_a_line_end(tmp_path):
    """With --until-end the last line is whole, with or without a line end, also on a second try."""
    made, lines = after_four(tmp_path / "shop")
    (tmp_path / "shop" / "rows.csv").write_text("".join(lines).rstrip("\n"))
    with opened(made) as ledger:
        lease = ledger.acquire("dies", timedelta(seconds=60))
        run = production.Run(made, ledger, lease)
        while ledger.head().turn < 6:
            run.step(to_the_end=True)
        bounds = run._intake.look(to_the_end=True)
        run._intend({"batch": [bounds.start, bounds.rows, bounds.ahead]})
        ledger.release(lease)
    assert taken(made) == 1
    assert taken(made, mode="until-end") == 1
    with opened(made) as ledger:
        assert sum(entry.rows for entry in ledger.entries()) == 192


def test_a_torn_line_never_becomes_a_row(tmp_path):
    """With batches of so many rows, the last row of a batch may be half a line: its number is not believed."""
    place = tmp_path / "shop"
    place.mkdir()
    lines = ["at,a,y\n"] + [f"2026-01-01T{i // 60:02}:{i % 60:02}:00,{i % 7}.25,{1000 + i}.5\n" for i in range(200)]
    (place / "rows.csv").write_text("")
    stream = pn.Stream(place / "rows.csv", time="at", target="y", time_zone="UTC", label_delay="1min", batch=20)
    made = Deployment(
        name="shop", stream=stream, ledger=f"sqlite:///{place}/ledger.db",
        strategy=strategies.Stateful(learners.plain.Linear(), initial=40, trigger=triggers.every(rows=20)),
    )  # fmt: skip
    text = "".join(lines)
    torn = len("".join(lines[:101])) - 4  # the hundredth row ends in "109" where it will be "1099.5"
    (place / "rows.csv").write_text(text[:torn])
    assert taken(made) == 4
    (place / "rows.csv").write_text(text)
    assert taken(made) == 6


def test_bounds_that_were_fixed_hold_no_other_day(shop, straight):
    """A turn dies behind its intent and its day is taken away: the next day's rows do not pass for it."""
    made = deployment(shop)
    with (
        SqlLedger.open(made.ledger, made.name, blobs=made.blobs) as ledger,
        leased(ledger, "test", timedelta(seconds=60), lambda *_: None) as lease,
    ):
        run = production.Run(made, ledger, lease)
        for _ in range(5):
            run.step()
        bounds = run._intake.look()
        run._intend({"batch": [bounds.start, bounds.rows, bounds.ahead]})
    day = shop / "rows" / "005.parquet"
    day.rename(shop / "005")
    with pytest.raises(OffsetGone):
        taken(made)
    (shop / "005").rename(day)
    assert taken(made) == 2
    same(straight, remembered(made))


def test_an_old_file_goes_while_the_run_looks(shop, monkeypatch):
    """Old files may go, also between a listing and a look at each of them."""
    made = deployment(shop)
    assert taken(made) == 7
    listed, look = feed.files_of, feed.Feed.is_new

    def vanishing(source):
        files = listed(source)
        (shop / "rows" / "000.parquet").unlink(missing_ok=True)
        return files

    def is_new(self, seen):
        with monkeypatch.context() as patched:
            patched.setattr(feed, "files_of", vanishing)
            return look(self, seen)

    monkeypatch.setattr(feed.Feed, "is_new", is_new)
    assert taken(made, mode="follow", waits=1) == 0
    assert not (shop / "rows" / "000.parquet").exists()


def test_a_source_that_cannot_be_listed(shop, straight, monkeypatch):
    """Its file system is away: the run names the folder and ends with 3, and goes on when it is back."""
    made = deployment(shop)

    def gone(self):
        raise OSError(errno.ESTALE, "Stale file handle", str(self))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "iterdir", gone)
        with pytest.raises(pn.PerennialError, match="Stale file handle") as caught:
            taken(made)
        assert exit_code(caught.value) == 3
    assert taken(made) == 7
    same(straight, remembered(made))


# ---------------------------------------------------------------------- the clock


def day(number, hour=0):
    """An instant of the stream."""
    return moment(int((BEGIN + np.timedelta64(number * 24 + hour, "h")).astype(np.int64)))


def test_a_clock_that_is_set_back_between_looks(tmp_path):
    """Time goes back by an hour, a day, ten years: nothing is taken twice or early, and it goes on with the clock."""
    place, table = tmp_path / "shop", rows(8)
    put(place / "rows", "0", table.slice(0, 100))  # four days and four hours
    made, told = deployment(place), Told()
    now = [day(4, 9), day(4, 8), day(3), datetime(2016, 1, 1, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC), day(4, 9)]
    times = iter(now)
    assert taken(made, mode="follow", clock=lambda: next(times, now[-1]), waits=8, tell=told) == 4
    times = iter([day(5, 1), day(4, 23), day(5), day(3), day(6, 1), day(2)])
    assert taken(made, mode="follow", clock=lambda: next(times, day(5)), waits=8) == 3
    with opened(made) as ledger:
        last = list(ledger.entries())[4:]
    assert [(e.kind, e.rows, moment(e.now)) for e in last] == [
        ("batch", 4, day(4)), ("tick", 0, day(5)), ("tick", 0, day(6)),
    ]  # fmt: skip


def test_a_clock_that_ran_ahead_and_is_set_back(tmp_path):
    """Days that a wrong clock closed early cost no row: the rest of them comes late, and each is learned once."""
    place, table = tmp_path / "shop", rows(11)
    put(place / "rows", "0", table.slice(0, 100))
    made = deployment(place)
    times = iter([day(5, 1), day(6, 1)])
    assert taken(made, mode="follow", clock=lambda: next(times, day(4, 4)), waits=6) == 6
    put(place / "rows", "1", table.slice(100))
    taken(made, mode="follow", clock=lambda: day(4, 5), waits=4)
    with opened(made) as ledger:
        entries, versions = list(ledger.entries()), ledger.versions()
        assert ledger.check() == []
    assert [(e.kind, e.rows) for e in entries[4:6]] == [("batch", 4), ("tick", 0)]
    assert sum(e.rows for e in entries) == 264 - 24  # the last day is not over
    ranges = [tuple(r) for saved in versions for r in saved.facts["lesson"]["rows"]]
    learned = [position for low, high in ranges for position in range(low, high)]
    assert learned == list(range(len(learned)))
    assert len(learned) > 200


def test_a_lease_survives_a_clock_that_is_set_back(shop, straight):
    """The database's clock falls an hour behind: the run goes on, nobody takes over, and its own next run may."""
    made = deployment(shop)

    def back(ledger):
        with ledger._database.writing() as connection:  # as seen from the rows, the clock is an hour younger
            connection.exec_driver_sql("UPDATE leases SET expires_at = expires_at + 3600000000")

    with SqlLedger.open(made.ledger, made.name, blobs=made.blobs) as ledger:
        lease = ledger.acquire("one", timedelta(seconds=60))
        run = production.Run(made, ledger, lease)
        assert run.step()
        back(ledger)
        assert run.step()
        with opened(made) as other, pytest.raises(LeaseHeld, match="'one'"):
            other.acquire("two", timedelta(seconds=60))
        ledger.renew(lease, timedelta(seconds=60))
        assert run.step()
        with opened(made) as other, pytest.raises(LeaseHeld) as caught:
            other.acquire("two", timedelta(seconds=60))
        assert caught.value.remaining <= 60
        ledger.release(lease)
    assert taken(made) == 4
    same(straight, remembered(made))


def test_a_dead_holder_is_waited_for_no_longer_than_its_lease(shop):
    """Where the database's clock was set back an hour, the next run says how long it waits and for whom, and begins."""
    made, told, waited = deployment(shop), Told(), []
    with SqlLedger.open(made.ledger, made.name, blobs=made.blobs) as ledger:
        ledger.acquire("dead", timedelta(seconds=1))
        with ledger._database.writing() as connection:
            connection.exec_driver_sql("UPDATE leases SET expires_at = expires_at + 3600000000")

        def wait(seconds):
            waited.append(seconds)
            time.sleep(seconds)

        with leased(ledger, "next", timedelta(seconds=1), told, wait=wait):
            pass
    assert waited == [1.2]
    assert told.of("waiting")[0]["holder"] == "dead"


# ---------------------------------------------------------------------- a poisoned batch

DAYS, PER_DAY, BAD = 26, 100, (11, 12)  #: days of the stream, rows a day, days that are poisoned
LOW, HIGH = BAD[0] * PER_DAY, (BAD[-1] + 1) * PER_DAY
GATES = {
    "none": None,
    "before": Gate(mode="before", margin=0.03, least_blocks=3, planned_labels=800),
    "after": Gate(mode="after", margin=0.03, least_blocks=3, planned_labels=800),
}


#: a trial that is settled after eight days: a poisoned day is so unlike the others that bounds take long to tell
SETTLED = {
    mode: replace(GATES[mode], greatest_wait=timedelta(days=8), on_no_verdict="better") for mode in ("before", "after")
}


def poisoned(how):
    """A stream of one rule with two poisoned days."""
    table = rows(DAYS, PER_DAY)
    name = {"flipped": "y", "constant": "y", "scaled": "a", "nan": "b"}[how]
    values = table[name].to_numpy(zero_copy_only=False).copy()
    bad = values[LOW:HIGH]
    values[LOW:HIGH] = {
        "flipped": lambda: ~bad, "constant": lambda: bad & False,
        "scaled": lambda: 1000 * bad, "nan": lambda: bad * np.nan,
    }[how]()  # fmt: skip
    return table.set_column(table.column_names.index(name), name, pa.array(values))


def sgd():
    """A stateful line that a poisoned update hurts, and that the days after heal."""
    return strategies.Stateful(SGDClassifier(loss="log_loss", random_state=0), initial="5d", trigger=EVERY)


def refit():
    """A stateless strategy, one of whose windows holds the poison alone."""
    return strategies.Stateless(
        GaussianNB(), initial="5d", trigger=triggers.every("4d"), window=windows.Sliding("2d")
    )  # fmt: skip


def boosted():
    """A stateless strategy of a model that takes NaN."""
    from lightgbm import LGBMClassifier

    model = LGBMClassifier(n_estimators=10, num_leaves=4, min_child_samples=5, verbose=-1, n_jobs=1)
    return strategies.Stateless(model, initial="5d", trigger=EVERY, window=windows.Sliding("3d"))


def live(place, table, **settings):
    """Run a stream to its last whole day; gives the deployment and what was told."""
    put_days(place / "rows", table, PER_DAY)
    made, told = deployment(place, **settings), Told()
    assert taken(made, tell=told, inline=100_000) == len(table) // PER_DAY - 1
    return made, told


def learned_poison(made):
    """Versions that learned poisoned rows, themselves or in what they go on from."""
    with opened(made) as ledger:
        versions = ledger.versions()
    bad = set()
    for saved in versions:
        version = saved.version
        own = any(first < HIGH and last > LOW for first, last in saved.facts["lesson"]["rows"])
        if own or (version.kind == "update" and version.parent in bad):
            bad.add(version.number)
    return bad


def served(made):
    """Who served each day, and the loss of what each day's labels were joined to."""
    with opened(made) as ledger:
        entries = list(ledger.entries())
    return [e.serving for e in entries], [e.loss.mean if e.loss.n else np.nan for e in entries]


def rejections(told, versions):
    """Verdicts that reject one of these versions."""
    return [v for v in told.of("verdict") if v["outcome"] == "reject" and v["version"] in versions]


@pytest.mark.parametrize(("how", "make"), [(how, make) for how in ("flipped", "scaled") for make in (sgd, nb, refit)])
def test_a_gate_keeps_what_learned_a_poison_from_serving(tmp_path, how, make):
    """Judged before it serves, no version that learned poisoned rows does: champions serve as if nothing had been."""
    made, told = live(tmp_path / "shop", poisoned(how), gate=GATES["before"], strategy=make())
    bad = learned_poison(made)
    serving, loss = served(made)
    assert not bad & set(serving)
    assert np.mean(loss[BAD[-1] + 3 :]) < 0.4
    assert all("rejected" in v["reason"] for v in rejections(told, bad))
    if (how, make) == ("flipped", refit):  # the others heal, or are not trained, while on trial
        assert rejections(told, bad)


def test_a_rejected_line_goes_on_from_the_champion(tmp_path):
    """`on_reject: back`: the next update continues the champion's own state, and what the rejected had learned is lost.

    The same update from the champion's bytes by hand gives the same state, bit for bit.
    """
    made, told = live(tmp_path / "shop", poisoned("scaled"), gate=SETTLED["before"], strategy=nb())
    bad = learned_poison(made)
    (rejected,) = rejections(told, bad)
    turn = rejected["turn"]
    with opened(made) as ledger:
        entries, versions = list(ledger.entries()), {s.version.number: s for s in ledger.versions()}
        (after,) = entries[turn].versions
        assert after.version.parent == rejected["champion"] == entries[turn].serving
        assert after.version.number not in bad
        model = made.load(ledger.get(versions[after.version.parent].blob))
        ((low, high),) = after.facts["lesson"]["rows"]
    table = poisoned("scaled").slice(low, high - low)
    plain = model._model
    assert plain.var_.max() < 10
    plain.partial_fit(np.column_stack([table["a"], table["b"]]), table["y"].to_numpy(zero_copy_only=False))
    with opened(made) as ledger:
        kept = made.load(ledger.get(after.blob))._model
    assert kept.theta_.tolist() == plain.theta_.tolist()
    assert kept.var_.tolist() == plain.var_.tolist()
    assert not {v for e in entries[turn:] for v in (s.version.number for s in e.versions)} & bad


@pytest.mark.parametrize(("how", "make"), [("flipped", refit), ("scaled", refit), ("scaled", nb)])
def test_a_gate_rolls_back_what_learned_a_poison(tmp_path, how, make):
    """Serving on trial, a version that learned poisoned rows is rolled back, and what serves after it never did."""
    gate = GATES["after"] if make is refit else SETTLED["after"]
    made, told = live(tmp_path / "shop", poisoned(how), gate=gate, strategy=make())
    bad = learned_poison(made)
    serving, loss = served(made)
    (rejected,) = rejections(told, bad)
    back = rejected["turn"]
    assert serving[back - 1] in bad
    assert not bad & set(serving[back:])
    moved = [facts for facts in told.of("promoted") if facts["turn"] == back]
    assert [facts["version"] for facts in moved] == [serving[back]]
    assert np.mean(loss[back + 2 :]) < 0.4


@pytest.mark.parametrize("gate", list(GATES))
@pytest.mark.parametrize(
    ("how", "rules", "why"),
    [
        ("scaled", Quality(ranges={"a": (-10, 10)}), "column 'a' holds"),
        ("nan", Quality(nulls=0.2), "column 'b' is 100% null, limit 20%"),
    ],
)
def test_a_batch_that_breaks_a_rule_is_not_learned(tmp_path, how, rules, why, gate):
    """It is told as quarantined and learned by no version; the days after it are."""
    made, told = live(tmp_path / "shop", poisoned(how), gate=GATES[gate], quality=rules, strategy=boosted())
    quarantined = told.of("quarantined")
    assert [facts["turn"] for facts in quarantined] == list(BAD)
    assert all(why in facts["reason"] for facts in quarantined)
    assert not learned_poison(made)
    if gate == "none":
        with opened(made) as ledger:
            assert ledger.versions()[-1].version.last == (DAYS - 2) * PER_DAY - 26  # six hours wait for their label


def test_labels_of_one_class_are_not_learned(tmp_path):
    """A feed that says "no" to everything breaks a rate; flipped labels of an even stream do not: those need a gate."""
    rules = Quality(label_rates={True: (0.25, 0.75)}, least_rows=10)
    made, told = live(tmp_path / "constant", poisoned("constant"), strategy=nb(), quality=rules)
    turns = [facts["turn"] for facts in told.of("quarantined")]
    assert turns == [BAD[0] + 1, BAD[-1] + 1]
    assert all("labels are True, outside [25.0%, 75.0%]" in facts["reason"] for facts in told.of("quarantined"))
    with opened(made) as ledger:
        learned = {p for s in ledger.versions() for low, high in s.facts["lesson"]["rows"] for p in range(low, high)}
    assert not learned & set(range(LOW, HIGH - 26))  # labels of a day's last hours come with those of the next
    assert served(made)[1][-1] < 0.4
    _, told = live(tmp_path / "flipped", poisoned("flipped"), strategy=nb(), quality=rules)
    assert not told.of("quarantined")


@pytest.mark.parametrize("make", [sgd, nb])
def test_a_column_of_nan_in_front_of_a_model_that_refuses_it(tmp_path, make):
    """With the rule `nulls` the batch is told and passed over: the run goes on, and the days after are served."""
    made, told = live(tmp_path / "shop", poisoned("nan"), quality=Quality(nulls=0.2), strategy=make())
    assert [facts["turn"] for facts in told.of("quarantined")] == list(BAD)
    assert not learned_poison(made)
    assert served(made)[1][-1] < 0.4
    turns = [turn for turn in range({sgd: 5, nb: 3}[make], DAYS - 1) if turn != BAD[-1] + 1]  # nothing to learn then
    assert [facts["turn"] for facts in told.of("trained")] == turns


def test_a_column_of_nan_without_rules(tmp_path):
    """A model that refuses NaN ends the run with 4, version and rows named; with the file put right it goes on."""
    place, table = tmp_path / "shop", poisoned("nan")
    put_days(place / "rows", table, PER_DAY)
    made = deployment(place, strategy=sgd())
    for _ in range(2):
        with pytest.raises(pn.LearnerError, match=r"failed to predict rows from 1,100 \(2026-01-12 .*NaN") as caught:
            taken(made, inline=100_000)
        assert exit_code(caught.value) == 4
        assert champion(made) == "1.5"
    put_days(place / "rows", rows(DAYS, PER_DAY), PER_DAY)
    assert taken(made, inline=100_000) == DAYS - 1 - BAD[0]
    whole = tmp_path / "whole"
    other, _ = live(whole, rows(DAYS, PER_DAY), strategy=sgd())
    same(remembered(other), remembered(made))


def test_without_gate_and_rules_a_poison_is_learned_and_said(tmp_path):
    """Nothing guards: the poison serves, every version says it is untested, and a window gets rid of it by itself."""
    made, told = live(tmp_path / "shop", poisoned("flipped"), strategy=boosted())
    serving, loss = served(made)
    bad = learned_poison(made)
    assert bad & set(serving)
    assert serving[-1] not in bad
    assert all("untested" in facts["reason"] for facts in told.of("promoted"))
    assert loss[-1] < 0.5
