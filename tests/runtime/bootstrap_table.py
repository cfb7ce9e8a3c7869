"""What ranks say where they cannot meet: everything that was tried, tried again, as the table of docs/failures.md.

``python tests/runtime/bootstrap_table.py`` prints the table; with ``--write`` it is put into docs/failures.md.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runtime.jobs import Job

import blinkcoll as bc
from blinkcoll.runtime.bootstrap import VERSION

DOC = Path(__file__).resolve().parents[2] / "docs" / "failures.md"
BEGIN, END = "<!-- begin: python tests/runtime/bootstrap_table.py --write -->", "<!-- end -->"
SHORT_S, LONG_S = 0.4, 20.0


@dataclass
class Said:
    """What each party said."""

    by: dict[str, str] = field(default_factory=dict)

    def row(self, what: str) -> str:
        return f"| {what} | {'<br>'.join(f'{who}: {self.by[who]}' for who in sorted(self.by))} |"


class Log(logging.Handler):
    """What rank 0 logs."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def plain(text: str) -> str:
    """Without what changes from run to run."""
    text = re.sub(r"\(pid \d+\)", "(pid N)", text)
    text = re.sub(r"process \(\d+, user \d+\)", "process (N, user U)", text)
    return re.sub(r"for 0\.[0-9] s", f"for {SHORT_S:g} s", text).replace("\n  ", "; ")


def attempt(make: Callable[[], Any]) -> str:
    try:
        make().close()
    except Exception as error:
        return plain(f"{type(error).__name__}: {error}")
    return "joins"


def together(*parties: tuple[str, Callable[[], Any]]) -> Said:
    """All at once; each makes a communicator."""
    said = Said()

    def run(who: str, make: Callable[[], Any]) -> None:
        said.by[who] = attempt(make)

    threads = [threading.Thread(target=run, args=party) for party in parties]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a rank hangs"
    return said


def rank(folder: Path, number: int, world_size: int = 2, timeout_s: float = SHORT_S, store: Any = None) -> Callable[[], Any]:
    return lambda: bc.Communicator(number, world_size, store or bc.FileStore(folder), name="job", timeout_s=timeout_s)


def later(delay_s: float, make: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        time.sleep(delay_s)
        return make()

    return run


# -- strangers ------------------------------------------------------------------------------------------------------


def message(**said: Any) -> bytes:
    data = json.dumps({"magic": "blinkcoll", "version": VERSION, "rank": 1, "world_size": 2, **said}).encode()
    return struct.pack("<I", len(data)) + data


def after_a_stranger(send: Callable[[str], bytes], *, leaves: bool = False) -> Callable[[Path], Said]:
    """Somebody connects to rank 0 and sends something, before rank 1 comes."""

    def run(folder: Path) -> Said:
        log, heard = Log(), []
        logging.getLogger("blinkcoll").addHandler(log)

        def stranger() -> Any:
            address = json.loads(bc.FileStore(folder).get("blinkcoll/job"))
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
                caller.connect("\0" + address["name"])
                caller.settimeout(LONG_S)
                caller.sendall(send(address["token"]))
                if not leaves:
                    data = b""
                    while part := caller.recv(1 << 16):
                        data += part
                    heard.append(json.loads(data[4:])["refused"])
            return rank(folder, 1, timeout_s=LONG_S)()

        try:
            said = together(("rank 0", rank(folder, 0, timeout_s=LONG_S)), ("rank 1, after it", stranger))
        finally:
            logging.getLogger("blinkcoll").removeHandler(log)
        said.by["the stranger is told"] = plain(heard[0]) if heard else "nothing: it has left"
        said.by["rank 0 logs"] = "; ".join(map(plain, log.lines)) or "nothing"
        return said

    return run


# -- stores ---------------------------------------------------------------------------------------------------------


class Hanging:
    """A store that never answers."""

    def set(self, key: str, value: str) -> None:
        time.sleep(3)

    def get(self, key: str) -> bytes:
        time.sleep(3)
        return b""


def left_behind(folder: Path) -> None:
    """A job puts its address into the store, and is killed."""
    child = os.fork()
    if child == 0:
        bc.FileStore(folder).set("blinkcoll/job", json.dumps({"name": f"blinkcoll-dead-{os.getpid()}", "token": "old"}))
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)


def stale(then: bool) -> Callable[[Path], Said]:
    def run(folder: Path) -> Said:
        left_behind(folder)
        if not then:
            return together(("rank 1", rank(folder, 1)))
        return together(("rank 0, a moment later", later(0.3, rank(folder, 0, timeout_s=LONG_S))), ("rank 1", rank(folder, 1, timeout_s=LONG_S)))

    return run


def two_jobs(folder: Path) -> Said:
    """Both rank 0s have published their addresses, the later one over the earlier, before the others look."""
    first = threading.Event()

    class First(bc.FileStore):
        def set(self, key: str, value: str | bytes) -> None:
            super().set(key, value)
            first.set()

    def second() -> Any:
        first.wait(LONG_S)
        return rank(folder, 0, timeout_s=1)()

    return together(("first job, rank 0", rank(folder, 0, timeout_s=1, store=First(folder))), ("first job, rank 1", later(0.3, rank(folder, 1, timeout_s=1))),
                    ("second job, rank 0", second), ("second job, rank 1", later(0.6, rank(folder, 1, timeout_s=1))))  # fmt: skip


def garbage(folder: Path) -> Said:
    bc.FileStore(folder).set("blinkcoll/job", "gibberish")
    return together(("rank 1", rank(folder, 1)))


def impostor(folder: Path) -> Said:
    """Something else listens at the published address."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        name = f"blinkcoll-impostor-{os.getpid()}"
        listener.bind("\0" + name)
        listener.listen(100)
        bc.FileStore(folder).set("blinkcoll/job", json.dumps({"name": name, "token": ""}))
        done = threading.Event()

        def serve() -> None:
            listener.settimeout(0.1)
            while not done.is_set():
                try:
                    with listener.accept()[0] as caller:
                        caller.recv(1 << 12)
                        caller.sendall(b"\x05\0\0\0HTTP/")
                except TimeoutError:
                    continue
                except OSError:
                    pass

        server = threading.Thread(target=serve)
        server.start()
        try:
            return together(("rank 1", rank(folder, 1)))
        finally:
            done.set()
            server.join()


# -- processes ------------------------------------------------------------------------------------------------------


def met(action: str, who: int) -> Callable[[Path], Said]:
    """``action`` happens to a rank while the communicator is being set up: rank 0 waits for its last rank, or a little later."""

    def run(folder: Path) -> Said:
        class Slow(Job):
            def _run(self, number: int, pipe: Any) -> None:
                if number == 2:
                    pipe.send(("told", "here"))
                    while not (folder / "go").exists():
                        time.sleep(0.02)
                super()._run(number, pipe)

        folder.mkdir(exist_ok=True)
        with Slow(3, folder, lambda comm, tell: "joins", timeout_s=1.5) as job:
            assert job.heard(2) == ("told", "here")
            time.sleep(0.4)
            job.signal(who, {"SIGSTOP": 19, "SIGKILL": 9}[action])
            time.sleep(0.1)
            (folder / "go").touch()
            said = Said()
            for number in {0, 1, 2} - {who}:
                kind, text, *_ = job.ending(number)
                said.by[f"rank {number}"] = "joins" if kind == "result" else plain(f"{kind}: {text}")
            return said

    return run


TRIED: dict[str, Callable[[Path], Said]] = {
    "rank 1 never comes": lambda folder: together(("rank 0", rank(folder, 0))),
    "rank 0 never comes": lambda folder: together(("rank 1", rank(folder, 1))),
    "a store that never answers": lambda folder: together(*((f"rank {i}", rank(folder, i, store=Hanging())) for i in range(2))),
    "an address that a killed job left, and no new job": stale(False),
    "an address that a killed job left, then a new job": stale(True),
    "an address that is none": garbage,
    "something else at the address": impostor,
    "two jobs with one store path and name": two_jobs,
    "two processes that say they are rank 1 of 3": lambda folder: together(
        ("rank 0", rank(folder, 0, 3, LONG_S)), ("rank 1", rank(folder, 1, 3, LONG_S)),
        ("rank 1, the other", later(0.3, rank(folder, 1, 3, LONG_S))), ("rank 2", later(0.6, rank(folder, 2, 3, LONG_S)))),
    "worlds of 2 and of 3": lambda folder: together(("rank 0 of 2", rank(folder, 0)), ("rank 1 of 3", rank(folder, 1, 3, LONG_S))),
    "a stranger that sends HTTP": after_a_stranger(lambda _: b"GET / HTTP/1.1\r\n\r\n"),
    "a stranger that says nothing and leaves": after_a_stranger(lambda _: b"", leaves=True),
    "a greeting cut off in the middle": after_a_stranger(lambda token: message(token=token)[:20], leaves=True),
    "a greeting of 3 GiB": after_a_stranger(lambda _: struct.pack("<I", 3 << 30)),
    "a greeting that is no JSON": after_a_stranger(lambda _: struct.pack("<I", 5) + b"{{{{{"),
    "a greeting that is JSON of something else": after_a_stranger(lambda _: struct.pack("<I", 2) + b"[]"),
    "a rank of another version": after_a_stranger(lambda token: message(token=token, version=VERSION + 1)),
    "a rank that does not know the secret": after_a_stranger(lambda _: message(token="guessed")),
    "a rank that does not exist": after_a_stranger(lambda token: message(token=token, rank=7)),
    "a rank whose number is text": after_a_stranger(lambda token: message(token=token, rank="1")),
    "rank 1 of 3 is killed after it has met rank 0": met("SIGKILL", 1),
    "rank 0 of 3 is killed while it waits": met("SIGKILL", 0),
    "rank 1 of 3 is stopped after it has met rank 0": met("SIGSTOP", 1),
    "rank 0 of 3 is stopped while it waits": met("SIGSTOP", 0),
}  # fmt: skip


def table() -> list[str]:
    """One line for everything that was tried."""
    lines = []
    for what, run in TRIED.items():
        with tempfile.TemporaryDirectory() as folder:
            lines.append(run(Path(folder) / "store").row(what))
    return lines


def main() -> None:
    text = "\n".join(["| tried | said |", "| --- | --- |", *table()])
    if "--write" in sys.argv:
        before, _, rest = DOC.read_text().partition(BEGIN)
        DOC.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")
    else:
        print(text)


if __name__ == "__main__":
    main()
