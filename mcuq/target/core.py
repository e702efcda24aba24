"""Cores, their instruction sets, and the QEMU machines that run their code.

Instruction counts come from a machine's timer: with ``-icount shift=N`` QEMU lets 2^N ns of virtual time pass
per executed instruction, so that instructions = ticks * (tick period) / 2^N, exactly after rounding when one
instruction takes at least one tick. They are executed instructions, never cycles: QEMU models no cache, wait
state or dual issue.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from mcuq.errors import UsageError


@dataclass(frozen=True, slots=True)
class Architecture:
    """An instruction set: names of its tools and what is linked for it.

    Attributes:
        tools: prefix of the compiler and binutils, without the last dash.
        emulator: QEMU's program.
        libraries: linked last.
        thumb: bit 0 of a function's address selects the instruction set.
    """

    tools: str
    emulator: str
    libraries: tuple[str, ...]
    thumb: bool

    def tool(self, name: str) -> str:
        """Program ``name`` of the tools: "gcc", "objdump", "size"."""
        return f"{self.tools}-{name}"


ARM = Architecture("arm-none-eabi", "qemu-system-arm", ("-lc", "-lgcc"), thumb=True)
RISCV = Architecture("riscv64-unknown-elf", "qemu-system-riscv32", ("-lc", "-lgcc"), thumb=False)


@dataclass(frozen=True, slots=True)
class Machine:
    """A QEMU machine: regions (origin, bytes) for code and data, and its instruction counter.

    Attributes:
        counter: source file under ``runtime_c/port``.
        icount_shift: for ``-icount shift=``; one instruction is 2^shift ns of virtual time.
        timer_hz: rate of the counter.
        options: further command line of the emulator.
    """

    name: str
    code: tuple[int, int]
    ram: tuple[int, int]
    counter: str
    icount_shift: int
    timer_hz: int
    architecture: Architecture = ARM
    options: tuple[str, ...] = ()

    @property
    def ticks_per_instruction(self) -> Fraction:
        return Fraction((1 << self.icount_shift) * self.timer_hz, 10**9)

    def instructions(self, ticks: int) -> int:
        """Executed instructions between two counter readings ``ticks`` apart (32-bit difference)."""
        return round((ticks & 0xFFFFFFFF) / self.ticks_per_instruction)


@dataclass(frozen=True, slots=True)
class Core:
    """A processor: its name as in board files, the compiler's flags and the QEMU machine for its code."""

    name: str
    flags: tuple[str, ...]
    machine: str
    architecture: Architecture = ARM


_MIB = 1 << 20
MACHINES: tuple[Machine, ...] = (
    Machine("mps2-an385", (0x00000000, 4 * _MIB), (0x20000000, 4 * _MIB), "counter_mps2.c", 6, 25_000_000),
    Machine("mps2-an386", (0x00000000, 4 * _MIB), (0x20000000, 4 * _MIB), "counter_mps2.c", 6, 25_000_000),
    Machine("mps2-an500", (0x00000000, 4 * _MIB), (0x20000000, 4 * _MIB), "counter_mps2.c", 6, 25_000_000),
    # Starts secure: the secure aliases of code, RAM and timer.
    Machine("mps2-an505", (0x10000000, 4 * _MIB), (0x38000000, 4 * _MIB), "counter_an505.c", 6, 20_000_000),
    Machine("mps3-an547", (0x00000000, _MIB // 2), (0x21000000, 4 * _MIB), "counter_an547.c", 6, 32_000_000),
    Machine("netduinoplus2", (0x08000000, _MIB), (0x20000000, 128 << 10), "counter_netduinoplus2.c", 0, 10**9),
    # The one machine of QEMU 7.2 that faults on unaligned words.
    Machine("microbit", (0x00000000, 256 << 10), (0x20000000, 16 << 10), "counter_microbit.c", 6, 16_000_000),
    # All memory is RAM. The CPU has no more than RV32IMC: other instructions fault. minstret counts virtual ns.
    Machine(
        "virt",
        (0x80000000, 16 * _MIB),
        (0x81000000, 16 * _MIB),
        "counter_riscv.c",
        0,
        10**9,
        RISCV,
        ("-bios", "none", "-cpu", "rv32,a=false,f=false,d=false,h=false,s=false,u=false"),
    ),
)

_HARD = "-mfloat-abi=hard"
# Without small data: sections need no order around a global pointer.
_RV32 = ("-march=rv32imc", "-mabi=ilp32", "-msmall-data-limit=0", "--specs=picolibc.specs")
CORES: tuple[Core, ...] = (
    Core("cortex-m0", ("-mthumb", "-mcpu=cortex-m0"), "mps2-an385"),
    Core("cortex-m0plus", ("-mthumb", "-mcpu=cortex-m0plus"), "mps2-an385"),
    Core("cortex-m3", ("-mthumb", "-mcpu=cortex-m3"), "mps2-an385"),
    Core("cortex-m4", ("-mthumb", "-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", _HARD), "mps2-an386"),
    Core("cortex-m7", ("-mthumb", "-mcpu=cortex-m7", "-mfpu=fpv5-d16", _HARD), "mps2-an500"),
    Core("cortex-m33", ("-mthumb", "-mcpu=cortex-m33", "-mfpu=fpv5-sp-d16", _HARD), "mps2-an505"),
    Core("cortex-m55", ("-mthumb", "-mcpu=cortex-m55", _HARD), "mps3-an547"),
    Core("rv32imc", _RV32, "virt", RISCV),
)


SIZE = "+size"
"""Behind a core's name: the smallest code instead of the fastest, portable kernels compiled with -Os."""


def optimize_flag(core_name: str) -> str:
    """The compiler's -O for code of a core (see :data:`SIZE`)."""
    return "-Os" if core_name.endswith(SIZE) else "-O2"


def machine(name: str) -> Machine:
    """The QEMU machine ``name``. Raises UsageError naming the known ones."""
    for known in MACHINES:
        if known.name == name:
            return known
    raise UsageError(f"QEMU machine {name!r} is not known; known are {', '.join(m.name for m in MACHINES)}")


def core(name: str) -> Core:
    """The core ``name``, for example ``cortex-m4`` or ``cortex-m4+size``. Raises UsageError naming the known ones."""
    for known in CORES:
        if known.name == name.removesuffix(SIZE):
            return known
    raise UsageError(f"core {name!r} is not known; known are {', '.join(c.name for c in CORES)}")
