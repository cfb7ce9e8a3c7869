"""A covering array: cases such that every pair of values of two different factors that can go together does so in some case.

Greedy, by seed (Cohen et al., The AETG system, IEEE Trans. Software Eng. 1997): each case starts from a pair that no case
has yet and takes, of several random completions, the one with the most new pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, product
from random import Random

from runtime.arithmetic import INTEGERS, PAIRS, REALS
from schedules.zoo import DIRECT, FAMILIES, REGISTERED, ROOTED, STAGED

from blinkcoll.schedules.contract import REDUCING

SIZES = ("nothing", "one", "fewer than ranks", "prime", "one chunk less than the slots", "one chunk more than the slots", "hundred thousand", "uneven", "uneven, one has all")
ROOTS = ("none", "first", "middle", "last")
COPIED = ("float32", "uint8", "float16", "bfloat16", "int64", "complex128", "bool")
_UNEVEN = ("allgather", "reducescatter", "gather", "scatter", "alltoallv")
_CANDIDATES = 12


@dataclass(frozen=True)
class Case:
    collective: str
    family: str
    nranks: int
    dtype: str
    op: str
    size: str
    in_place: bool
    root: str

    def pairs(self):
        values = (self.collective, self.family, self.nranks, self.dtype, self.op, self.size, self.in_place, self.root)
        return set(combinations(enumerate(values), 2))


def _in_a_switch(dtype: str, op: str) -> bool:
    """What ``multimem.ld_reduce`` computes (PTX ISA 8.1), and what is made of it: a sum of what is scaled before, or divided after."""
    if op in ("band", "bor", "bxor"):
        return dtype in INTEGERS
    added = dtype in (*REALS, "int32", "int64")
    return added and (op in ("sum", "avg", "premul_sum") or (op in ("min", "max") and dtype not in ("float32", "float64")))


def _choices(collective: str, names: set[str]):
    """The independent groups of factors of the cases of a collective and some families, each with all its values."""
    families = [(family, n) for (family, c), (sizes, _) in FAMILIES.items() if c == collective and family in names for n in sorted(sizes)]
    arithmetic = [(dtype, "sum") for dtype in COPIED]
    if collective in REDUCING:
        unmarked = {REGISTERED: ("avg", "premul_sum"), DIRECT: ("premul_sum",)}.get(min(names), ()) if len(names) == 1 else ()
        arithmetic = [pair for pair in PAIRS if pair[1] not in unmarked and (names.isdisjoint({STAGED, REGISTERED}) or _in_a_switch(*pair))]
    sizes = [s for s in SIZES if s.startswith("uneven") == (collective == "alltoallv") or (collective in _UNEVEN and collective != "alltoallv")]
    apart = collective == "alltoallv" or (collective == "alltoall" and names == {DIRECT})
    return families, arithmetic, sizes, [False] if apart else [False, True], ROOTS[1:] if collective in ROOTED else ROOTS[:1]


COLLECTIVES = sorted({collective for _, collective in FAMILIES})
_APART = (STAGED, REGISTERED, DIRECT)
CHOICES = [(c, groups) for c in COLLECTIVES for names in ({family for family, _ in FAMILIES} - {*_APART}, *({name} for name in _APART)) if (groups := _choices(c, names))[0]]


def feasible_pairs() -> set:
    """Every pair that some case can have."""
    found = set()
    for collective, (families, arithmetic, sizes, in_place, roots) in CHOICES:
        groups = [[((0, collective),)], [((1, f), (2, n)) for f, n in families], [((3, d), (4, o)) for d, o in arithmetic]]
        groups += [[((5, s),) for s in sizes], [((6, i),) for i in in_place], [((7, r),) for r in roots]]
        for group in groups:
            found |= {pair for value in group for pair in combinations(value, 2)}
        for a, b in combinations(groups, 2):
            found |= {tuple(sorted(pair, key=lambda v: v[0])) for x, y in product(a, b) for pair in product(x, y)}
    return found


def covering_array(seed: int) -> list[Case]:
    """Cases that have all feasible pairs."""
    random = Random(seed)
    left = feasible_pairs()
    order = sorted(left, key=repr)
    random.shuffle(order)
    cases = []
    for wanted in order:
        if wanted not in left:
            continue
        candidates = [case for case in (_completed(dict(wanted), random) for _ in range(_CANDIDATES)) if case is not None]
        best = max(candidates, key=lambda case: len(case.pairs() & left))
        cases.append(best)
        left -= best.pairs()
    return cases


def _completed(fixed: dict, random: Random) -> Case:
    """A random case with these values."""
    fitting = []
    for collective, groups in CHOICES:
        if fixed.get(0, collective) != collective:
            continue
        families, arithmetic, sizes, in_place, roots = groups
        options = (
            [f for f in families if fixed.get(1, f[0]) == f[0] and fixed.get(2, f[1]) == f[1]],
            [a for a in arithmetic if fixed.get(3, a[0]) == a[0] and fixed.get(4, a[1]) == a[1]],
            [s for s in sizes if fixed.get(5, s) == s],
            [i for i in in_place if fixed.get(6, i) == i],
            [r for r in roots if fixed.get(7, r) == r],
        )
        if all(options):
            fitting.append((collective, options))
    collective, options = random.choice(fitting)
    (family, nranks), (dtype, op), size, in_place, root = (random.choice(option) for option in options)
    return Case(collective, family, nranks, dtype, op, size, in_place, root)


def most_of(cases: list[Case]) -> list[Case]:
    """Of an array, the cases that bring three new pairs or more, or a family that no other has brought to its collective."""
    left, kept, families = feasible_pairs(), [], set()
    for case in cases:
        new = case.pairs() & left
        left -= new
        if len(new) >= 3 or (case.family, case.collective) not in families:
            kept.append(case)
            families.add((case.family, case.collective))
    return kept
