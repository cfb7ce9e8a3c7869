"""``blinkcoll status``: what the ranks of running jobs do, and whom they wait for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..runtime.status import CommunicatorStatus, RankStatus, Wait

Pids = Annotated[list[int] | None, typer.Argument(help="Processes of the job; one is enough.", metavar="PID...")]
All = Annotated[bool, typer.Option("--all", help="Every job of this user.")]
Json = Annotated[bool, typer.Option("--json", help="For machines.")]


def status(pids: Pids = None, everything: All = False, as_json: Json = False) -> None:
    """Say per communicator and rank: the call, its number, how far it is, whom it waits for, and since when.

    The ranks are not asked: they may hang or be stopped. What they show is their own account of the last time they looked.
    """
    from ..runtime.status import status_of

    if everything == bool(pids):
        raise typer.BadParameter("name processes, or give --all", param_hint="PID")
    found = status_of(None if everything else pids)
    if as_json:
        typer.echo(json.dumps([one.to_json() for one in found], indent=2))
        return
    if not found:
        typer.echo("no communicator is open" + ("" if everything else " in " + ", ".join(f"process {pid}" for pid in pids or [])))
    for one in found:
        _print(one)


def _print(one: CommunicatorStatus) -> None:
    typer.echo(f"{one.name}: {one.world_size} ranks" + (f"; failed: {one.failure}" if one.failure else ""))
    behind = min(rank.calls_begun for rank in one.ranks)
    for rank in one.ranks:
        late = ", behind" if rank.calls_begun == behind and any(other.calls_begun > behind for other in one.ranks) else ""
        typer.echo(f"  rank {rank.rank}  pid {rank.pid or '-'}  {_state(rank)}{late}")
        for what, wait in (("waits", rank.wait), ("a message waits", rank.message_wait)):
            if wait is not None:
                typer.echo(f"      {what} {_waiting(rank, wait)}")


def _state(rank: RankStatus) -> str:
    process = rank.fate or rank.process or "in another namespace or gone"
    if rank.calls_begun == 0:
        return f"{process}; no call yet"
    if rank.calls_begun > rank.calls_ended:
        return f"{process}; in call {rank.calls_begun}: {rank.call}"
    return f"{process}; idle after call {rank.calls_ended}: {rank.call}"


def _waiting(rank: RankStatus, wait: Wait) -> str:
    whom = "another channel of its own" if wait.peer == rank.rank else f"rank {wait.peer}"
    got = f"{wait.target} needed, {wait.seen} there" if wait.peer != rank.rank else ""
    return f"{wait.since_s:.1f} s for {wait.what} of {whom} (channel {wait.channel}, step {wait.step}, iteration {wait.iteration}{'; ' + got if got else ''})"
