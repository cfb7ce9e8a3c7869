"""What limits an allocation, in words, with the cut drawn as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

from ..packing import Plan
from ..packing.certificates import CutCertificate
from ..packing.explain import Crossing, Explanation, Gain, Limit, Spare
from ..topology import Topology
from .numbers import count, gb_s

#: Lines of one kind that are printed; the rest is counted.
_MOST_LINES = 12


def explain_text(facts: Explanation) -> str:
    """The explanation as it follows a plan on the screen."""
    plan = facts.plan
    lines = ["what limits it"]
    if len(facts.limits) > 1:
        lines.append(f"  {len(facts.limits)} cuts that only together prove the bound, each with its weight:")
    for limit in facts.limits:
        lines += _limit(limit, plan)
    if facts.spare or facts.unused is not None:
        lines += ["", "what is left idle", *_spare(facts.spare, facts.limits, plan)]
    if facts.unused is not None:
        kinds = "+".join(facts.unused.kinds)
        gain = facts.unused.bound_all - plan.bound
        also = f"with them the bound would be {gb_s(facts.unused.bound_all)} GB/s (links=\"all\")" if gain else "they would not raise the bound"
        lines.append(f"  {kinds}: {count(facts.unused.nlinks, 'link')} of slower classes, since {'+'.join(plan.links)} alone joins the ranks; {also}")
    return "\n".join([*lines, *_gains(facts)])


def _limit(limit: Limit, plan: Plan) -> list[str]:
    if limit.form == "lengths":
        return [f"  pairs' shortest ways use up {count(len(limit.crossing), 'link')}:", *_links(limit.crossing, plan)]
    sides = [_side(side, plan.topology) for side in limit.sides]
    if limit.form == "partition":
        between = _total(limit) / 2
        says = f"  every tree has to join these {len(sides)} parts, so it crosses between them {_times(limit.times)}; the links between them carry {gb_s(between)} GB/s each way:"
        drawn = [f"    {'  ═╪═  '.join(sides)}"] if sum(map(len, sides)) + 7 * len(sides) < 110 else [f"    {side}" for side in sides]
        if any(not any(v in side for side in limit.sides) for link in limit.crossing for v in (link.src, link.dst)):
            drawn.append("    (switches in no part only forward: what they take from one part they give to another, so their links count half)")
    else:
        weight = "" if limit.form == "cut" else f" (weight {limit.weight})"
        if isinstance(plan.certificate, CutCertificate) and plan.certificate.scale(plan.topology.nranks) != 1:
            weight = f", that is {1 / plan.certificate.scale(plan.topology.nranks)} of the data"
        says = f"  all data that the right side has to get from the left passes {count(len(limit.crossing), 'link')} of {gb_s(_total(limit))} GB/s together{weight}:"
        if plan.collective in ("reduce", "reducescatter", "gather"):
            says = f"  all data that the left side has to give away passes {count(len(limit.crossing), 'link')} of {gb_s(_total(limit))} GB/s together{weight}:"
        drawn = [f"    {sides[0]}  ══▶  {sides[1]}"]
    return [says, *drawn, *_links(limit.crossing, plan)]


def _total(limit: Limit) -> Fraction:
    """Capacity between the sides; a link to a switch in none of them counts half."""
    inside = set().union(*limit.sides)
    return sum((c.capacity if c.src in inside and c.dst in inside else c.capacity / 2 for c in limit.crossing), Fraction(0))


def _times(n: int) -> str:
    return {1: "once", 2: "twice"}.get(n, f"{n} times")


def _side(side: Iterable[int | str], topology: Topology) -> str:
    ranks = sorted(v for v in side if isinstance(v, int))
    names = sorted(v for v in side if isinstance(v, str))
    if len(names) > 3:
        names = [f"{len(names)} switches {names[0]} … {names[-1]}"]
    return "{" + ", ".join([*_runs(ranks, topology), *names]) + "}"


def _runs(ranks: Sequence[int], topology: Topology) -> list[str]:
    """``0 gpu0, 2 gpu4``; runs of more than four as ``0-7 gpu0 … gpu7``."""
    runs: list[list[int]] = []
    for r in ranks:
        if runs and runs[-1][-1] == r - 1:
            runs[-1].append(r)
        else:
            runs.append([r])
    name = [d.name for d in topology.devices]
    return [
        shown
        for run in runs
        for shown in ([f"{run[0]}-{run[-1]} {name[run[0]]} … {name[run[-1]]}"] if len(run) > 4 else [f"{r} {name[r]}" for r in run])
    ]


def _links(links: Sequence[Crossing], plan: Plan) -> list[str]:
    """One line for both directions of a link where both are listed and alike."""
    by_ends = {(link.src, link.dst): link for link in links}
    lines = []
    for (u, v), link in by_ends.items():
        back = by_ends.get((v, u))
        alike = back is not None and (back.capacity, back.load) == (link.capacity, link.load)
        if alike and _place(u) > _place(v):
            continue
        lines.append(f"      {u} {'⇄' if alike else '→'} {v}  {'+'.join(link.kinds)}  {gb_s(link.capacity)} GB/s{' each way' if alike else ''}, {_fill(link)}")
    return _shortened(lines)


def _place(vertex: int | str) -> tuple[bool, int, str]:
    """Ranks by number, then switches by name."""
    return (True, 0, vertex) if isinstance(vertex, str) else (False, vertex, "")


def _shortened(lines: list[str]) -> list[str]:
    if len(lines) <= _MOST_LINES:
        return lines
    return [*lines[: _MOST_LINES - 1], f"      … and {len(lines) - _MOST_LINES + 1} more"]


def _fill(link: Crossing) -> str:
    if link.load == link.capacity:
        return "full"
    return "idle" if not link.load else f"{gb_s(link.load)} used, {gb_s(link.capacity - link.load)} to spare"


def _spare(spare: Sequence[Spare], limits: Sequence[Limit], plan: Plan) -> list[str]:
    what = {"cut": "cut", "partition": "partition", "lengths": "links above"}.get(limits[0].form, "cuts") if limits else "cut"
    reasons = {
        "root": "lead to where nothing has to go:" if plan.collective in ("reduce", "gather") else "lead into the root, which has everything:",
        "one side": f"do not cross the {what} that limits; more here would not help:",
        "unneeded": f"cross the {what}, but this plan does not fill them:",
    }
    lines = []
    for reason, words in reasons.items():
        # The most idle first: where there are many, the rest is not shown.
        links = sorted((s.link for s in spare if s.reason == reason), key=lambda link: link.load - link.capacity)
        if links:
            lines += [f"  {words}", *_links(links, plan)]
    return lines


def _gains(facts: Explanation) -> list[str]:
    if facts.machine is None:
        return ["", "one more GPU", "  this is the whole machine: there is none"]
    lines = ["", f"one more GPU of {facts.machine}"]
    for role, words in (("rank", "as a rank"), ("relay", "as a relay, without a part in the result")):
        gains = [gain for gain in facts.gains if gain.role == role]
        lines.append(f"  {words}: {_best(gains, facts.plan.rate)}")
    if facts.untried:
        lines.append(f"  ({count(facts.untried, 'GPU')} not tried for lack of time)")
    return lines


def _best(gains: Sequence[Gain], rate: Fraction) -> str:
    if not gains:
        return "none would lift the rate"
    best = [gain for gain in gains if gain.rate == gains[0].rate]
    others = [gain for gain in gains if gain.rate != gains[0].rate]
    names = " or ".join(gain.device for gain in best[:6]) + (f" or {len(best) - 6} others" if len(best) > 6 else "")
    also = "".join(f"; {gain.device} to {gb_s(gain.rate)}" for gain in others[:3])
    return f"{names} would lift it to {gb_s(gains[0].rate)} GB/s ({float(gains[0].rate / rate):.2f}x){also}"


def explain_json(facts: Explanation) -> dict[str, object]:
    """The same for machines; rates are GB/s as exact ``"p/q"``."""

    def link(crossing: Crossing) -> dict[str, object]:
        return {"src": crossing.src, "dst": crossing.dst, "kinds": list(crossing.kinds), "capacity": str(crossing.capacity), "load": str(crossing.load)}

    return {
        "limits": [
            {"form": limit.form, "sides": [sorted(side, key=str) for side in limit.sides], "times": limit.times, "weight": str(limit.weight), "links": [link(c) for c in limit.crossing]}
            for limit in facts.limits
        ],
        "spare": [{"reason": s.reason, **link(s.link)} for s in facts.spare],
        "unused": None if facts.unused is None else {"kinds": list(facts.unused.kinds), "nlinks": facts.unused.nlinks, "bound_all": str(facts.unused.bound_all)},
        "machine": facts.machine,
        "gains": [{"device": g.device, "index": g.index, "role": g.role, "rate": str(g.rate), "links": list(g.links)} for g in facts.gains],
        "untried": facts.untried,
    }
