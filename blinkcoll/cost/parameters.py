"""What costs and the simulator know of a device besides its links: every number with its source.

Latencies and rates of a channel are NCCL's own tuning constants (NCCL 2.30.7, src/graph/tuning.cc), because both sides
of every comparison are simulated with the same table. A link's ``latency_us`` is the wire alone; what a protocol adds
to a hop is here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..errors import SimulationError
from ..topology import Topology


@dataclass(frozen=True)
class Protocol:
    """What a protocol costs.

    Parameters
    ----------
    efficiency
        Payload per byte on the wire.
    busy_us
        A channel's own synchronisation a step: polling, barriers among its threads, the fence.
    flag_us
        From the end of the store until the reader has seen the flag, beyond the wire's latency.
    rate
        Of a channel, relative to the simple protocol.
    network_us
        What a hop over a network takes besides: posting the send, the proxies' polling, flushing.
    """

    efficiency: float = 1.0
    busy_us: float = 0.0
    flag_us: float = 0.0
    rate: float = 1.0
    network_us: float = 0.0


#: hwLatencies, NVLINK: a ring's hop takes 3.4 µs by the simple protocol, 1.9 by LL128 and 0.6 by LL, which is the wire
#: alone (flag and data in one store). The rest is split into what keeps the channel busy and what only delays.
#: Over a network a ring's hop takes 14.0 us (simple), 4.0 (LL128) and 2.7 (LL): the last is the NICs' latency, and the others are the same sum
#: but for the simple protocol's.
#: Efficiencies are the protocols' formats: 4 of 8 bytes, 120 of 128.
PROTOCOLS = {
    "simple": Protocol(busy_us=0.5, flag_us=2.3, network_us=8.5),
    "LL": Protocol(efficiency=0.5, rate=0.5),
    "LL128": Protocol(efficiency=0.9375, busy_us=0.3, flag_us=1.0),
    # What a switch adds or copies, and the signals among the ranks of such a group. NCCL has 25 us for a whole small call
    # (hwLatencies, NVLS): less the launch, three steps' synchronisation, the read's way there and back and the wire of two
    # signals, that leaves 7.25 us a signal.
    "multicast": Protocol(busy_us=0.5, flag_us=7.25),
}


@dataclass(frozen=True)
class Launch:
    """What lies between the call and the channels' first step.

    Parameters
    ----------
    base_us
        Once: the kernel's start, and the completion that the caller waits for.
    per_rank_us
        For each further rank, where one thread launches the ranks' kernels one after the other.
    """

    base_us: float
    per_rank_us: float = 0.0

    def time_us(self, nranks: int) -> float:
        """The time for ``nranks`` ranks."""
        return self.base_us + self.per_rank_us * max(0, nranks - 1)

    def period_us(self, nranks: int, *, waits: bool) -> float:
        """What launching adds to each of many calls one after another; ``waits``: every rank waits for every other.

        Where no rank waits for all others (a root sends on and is done) ranks with a thread each launch side by side, and
        only one thread for all ranks has to launch for each in turn. The mode does not say which it is: half is the
        middle of the two.
        """
        return self.base_us + self.per_rank_us * max(0, nranks - 1) * (1 if waits else 0.5)


#: Launch modes. Base: NCCL's baseLatencies for LL, 6.6 us (a process per GPU). One process: eight-byte calls on a P100
#: DGX-1 take 12-20 us with two GPUs and 45-47 with eight (Tartan, microbenchmark/scale_up_cl/nccl-v2/latency.txt), less the
#: hops about 4.5 us a GPU. For a CUDA graph half of the base: an estimate, the least certain of these numbers.
LAUNCH_MODES = {
    "process-per-gpu": Launch(6.6),
    "one-process": Launch(6.6, per_rank_us=4.5),
    "graph": Launch(3.3),
}
#: The mode where none is named: what PyTorch's launchers and MPI jobs do.
DEFAULT_LAUNCH = "process-per-gpu"


@dataclass(frozen=True)
class Parameters:
    """The simulator's parameters for one kind of device.

    Parameters
    ----------
    device
        Whose they are, for headers.
    launch
        How calls are launched.
    channel_gb_s
        Payload that one channel copies or reduces.
    memory_gb_s
        Local reads and writes of one device together.
    protocols
        By name.
    """

    device: str = "unnamed"
    launch: Launch = LAUNCH_MODES[DEFAULT_LAUNCH]
    channel_gb_s: float = 26.5
    memory_gb_s: float = 900.0
    protocols: tuple[tuple[str, Protocol], ...] = field(default=tuple(PROTOCOLS.items()))

    def protocol(self, name: str) -> Protocol:
        """The protocol of that name.

        Raises
        ------
        SimulationError
            Where there is none.
        """
        for known, protocol in self.protocols:
            if known == name:
                return protocol
        raise SimulationError(f"no parameters for protocol {name!r}; known: {', '.join(n for n, _ in self.protocols)}")


#: xGMI, by RCCL's hwLat (src/graph/tuning.cc at 0cbce2a7): hops of rings on MI300X (tuning_model_5) and MI250X (tuning_model_4), the
#: wire's 0.6 taken off; split as above.
_XGMI3 = (("simple", Protocol(busy_us=0.5, flag_us=1.0)), ("LL", Protocol(efficiency=0.5, flag_us=0.2, rate=0.5)), ("LL128", PROTOCOLS["LL128"]))
_XGMI2 = (("simple", Protocol(busy_us=0.5, flag_us=2.5)), ("LL", Protocol(efficiency=0.5, flag_us=0.2, rate=0.5)), ("LL128", Protocol(0.9375, 0.3, 1.3)))
#: What launching on AMD's takes beside NVIDIA's: RCCL's baseLat for LL, 12.0 us.
_AMD_BASE_US = 12.0



def _nvidia(
    device: str, channel_gb_s: float, memory_gb_s: float, ll_gb_s: float, ll128_gb_s: float, *, multicast_efficiency: float = 1.0
) -> Parameters:
    """A generation's parameters; the protocols' rates are a channel's, switches add and copy at a part of the links' rate."""
    changed = {
        "LL": replace(PROTOCOLS["LL"], rate=ll_gb_s / channel_gb_s),
        "LL128": replace(PROTOCOLS["LL128"], rate=ll128_gb_s / channel_gb_s),
        "multicast": replace(PROTOCOLS["multicast"], efficiency=multicast_efficiency),
    }
    protocols = tuple((name, changed.get(name, protocol)) for name, protocol in PROTOCOLS.items())
    return Parameters(device=device, channel_gb_s=channel_gb_s, memory_gb_s=memory_gb_s, protocols=protocols)


#: Nothing but bandwidth: no latency besides the links', no synchronisation, no limit of channels or memory.
FLUID = Parameters(
    device="fluid limit",
    launch=Launch(0.0),
    channel_gb_s=1e6,
    memory_gb_s=1e9,
    protocols=tuple((name, Protocol(efficiency=p.efficiency)) for name, p in PROTOCOLS.items()),
)

#: Switches that add and copy, Hopper and Blackwell: nvlsEfficiency.
#: By compute capability. A channel's rate: perChMaxTreeBws of one node (Volta, which NCCL also takes for older devices, Ampere, Hopper,
#: Blackwell), 26.5, 24, 38.7 and 70 GB/s; by LL128 perChMaxRingLL128Bws; by LL llMaxBws over the channels that NCCL runs on eight such GPUs
#: (12, 24, 24 and 32). Memory: the data sheets' peak (P100 732, V100 900, A100 1555, H100 3350, B200 8000 GB/s).
_BY_ARCH = {
    "sm_60": _nvidia("P100", 26.5, 732.0, 39.0 / 12, 20.0),
    "sm_70": _nvidia("V100", 26.5, 900.0, 39.0 / 12, 20.0),
    "sm_80": _nvidia("A100", 24.0, 1555.0, 87.7 / 24, 20.0),
    "sm_90": _nvidia("H100", 38.7, 3350.0, 141.0 / 24, 36.7, multicast_efficiency=0.85),
    "sm_100": _nvidia("B200", 70.0, 8000.0, 282.0 / 32, 40.0, multicast_efficiency=0.74),
    # AMD: a channel's rate as Ampere's (RCCL's tables have no other); memory a GCD 1638, MI300X 5300 GB/s.
    "gfx90a": Parameters(device="MI250X", channel_gb_s=24.0, memory_gb_s=1638.0, protocols=_XGMI2),
    "gfx942": Parameters(device="MI300X", channel_gb_s=24.0, memory_gb_s=5300.0, protocols=_XGMI3),
}
_UNKNOWN = "sm_80"
#: Other NVIDIA GPUs count as NCCL's tuner counts them (VOLTA_COMPCAP_IDX ... BLACKWELL_COMPCAP_IDX): from this capability on.
_GENERATIONS = ((100, "sm_100"), (90, "sm_90"), (80, "sm_80"), (0, "sm_70"))


def _known(arch: str) -> Parameters:
    """An architecture's parameters, or those of the one that it is taken for, which ``device`` then says."""
    if arch in _BY_ARCH:
        return _BY_ARCH[arch]
    digits = arch.removeprefix("sm_").rstrip("abf")
    if arch.startswith("sm_") and digits.isdigit():
        near = _BY_ARCH[next(name for least, name in _GENERATIONS if int(digits) >= least)]
        return replace(near, device=f"{near.device}, as NCCL takes {arch}")
    near = _BY_ARCH["gfx942" if arch.startswith("gfx95") else _UNKNOWN]
    return replace(near, device=f"{near.device}, for want of parameters of {arch or 'an unnamed architecture'}")


def parameters_for(topology: Topology, launch: str = DEFAULT_LAUNCH) -> Parameters:
    """The parameters of a topology's devices.

    Where their architecture is not among those listed they are taken for its generation's, else for A100s, and ``device`` says so.

    Raises
    ------
    SimulationError
        Where there is no such launch mode.
    """
    if launch not in LAUNCH_MODES:
        raise SimulationError(f"launch={launch!r}; expected one of {', '.join(LAUNCH_MODES)}")
    arch = topology.devices[0].arch
    mode = LAUNCH_MODES[launch]
    if arch.startswith("gfx"):
        mode = replace(mode, base_us=mode.base_us * _AMD_BASE_US / LAUNCH_MODES[DEFAULT_LAUNCH].base_us)
    return replace(_known(arch), launch=mode)
