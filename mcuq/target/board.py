"""Boards: memory regions, placement, compiler flags and the QEMU machine that stands in for them.

A board is a file in ``boards/``; a new board is a new file and never a new branch in the code. A board whose
part QEMU does not model is linked twice: at its real addresses (measured, never run) and, with regions of the
same lengths, on the machine of its core (:func:`emulated`).
"""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mcuq.errors import UsageError
from mcuq.ir.plans import Limits
from mcuq.target.core import SIZE, Architecture, core
from mcuq.target.cost import RAM_RESERVE
from mcuq.target.files import product_dir
from mcuq.target.limits import parse_bytes

RegionKind = Literal["flash", "ram"]
EmulationMode = Literal["native", "real-addresses", "same-lengths"]


@dataclass(frozen=True, slots=True)
class Region:
    """Bytes [origin, origin + length) of the address space."""

    name: str
    kind: RegionKind
    origin: int
    length: int

    @property
    def end(self) -> int:
        return self.origin + self.length


@dataclass(frozen=True, slots=True)
class Placement:
    """Names of the regions for code with vectors, constants (a part may execute and read its flash at different
    addresses), weights, arena, and stack with statics. The arena may fill several regions, in this order."""

    code: str
    constants: str
    weights: str
    arena: tuple[str, ...]
    stack: str

    @property
    def regions(self) -> tuple[str, ...]:
        """All names, each once."""
        return tuple(dict.fromkeys((self.code, self.constants, self.weights, *self.arena, self.stack)))

    @property
    def statics(self) -> str:
        """The region of variables besides arena and stack: the stack's, but where the arena would fill it first."""
        return self.stack if self.stack not in self.arena[:-1] else self.arena[-1]


@dataclass(frozen=True, slots=True)
class Emulation:
    """QEMU machine and how the board maps onto it.

    native: the board is this machine; real-addresses: the machine has memory at the board's addresses;
    same-lengths: run with regions of the same lengths at the machine's addresses.
    """

    machine: str
    mode: EmulationMode


@dataclass(frozen=True, slots=True)
class Board:
    """A microcontroller board. Lengths in bytes, clock in Hz, ``flags`` for the compiler."""

    name: str
    aliases: tuple[str, ...]
    part: str
    core: str
    clock_hz: int
    flags: tuple[str, ...]
    emulation: Emulation
    placement: Placement
    regions: tuple[Region, ...]
    limits: Limits
    sources: tuple[str, ...] = ()

    @property
    def architecture(self) -> Architecture:
        """Instruction set of the board's core."""
        return core(self.core).architecture

    def region(self, name: str) -> Region:
        """The region called ``name``. Raises KeyError."""
        for region in self.regions:
            if region.name == name:
                return region
        raise KeyError(name)

    def region_at(self, address: int) -> Region | None:
        """The region that holds ``address``, or None."""
        return next((r for r in self.regions if r.origin <= address < r.end), None)

    @property
    def cuts(self) -> tuple[int, ...]:
        """Addresses in the arena where a region ends and the next begins, what the stack takes left out."""
        first = [self.region(name) for name in self.placement.arena[:-1]]
        free = (region.length - RAM_RESERVE * (region.name == self.placement.stack) for region in first)
        return tuple(accumulate(length // CUT * CUT for length in free))


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _RegionFile(_Strict):
    name: str = Field(pattern=r"^[A-Z][A-Z0-9_]{0,15}$")
    kind: RegionKind
    origin: int = Field(ge=0, lt=2**32, multiple_of=4)
    length: int = Field(gt=0, le=2**32)

    @field_validator("length", mode="before")
    @classmethod
    def _sizes(cls, value: object) -> object:
        return parse_bytes(value) if isinstance(value, str) else value


class _PlacementFile(_Strict):
    code: str
    constants: str = ""
    weights: str
    arena: str
    stack: str


class _EmulationFile(_Strict):
    machine: str
    mode: EmulationMode


class _BoardFile(_Strict):
    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")
    aliases: list[str] = []
    part: str
    core: str = Field(pattern=r"^(cortex-m[0-9]+(plus)?|rv32imc)$")
    clock_hz: int = Field(gt=0)
    flags: list[str]
    sources: list[str] = Field(min_length=1)
    emulation: _EmulationFile
    placement: _PlacementFile
    region: list[_RegionFile] = Field(min_length=1)


CUT = 16
"""Cuts between regions are at multiples of an arena's alignment."""

ROLES: dict[str, RegionKind] = {
    "code": "flash",
    "constants": "flash",
    "weights": "flash",
    "arena": "ram",
    "stack": "ram",
}
"""What is placed, and the kind of region it needs."""


def board_names(folder: Path | None = None) -> tuple[str, ...]:
    """Names of all boards, sorted."""
    return tuple(sorted(path.stem for path in (folder or product_dir("boards")).glob("*.toml")))


def load_boards(folder: Path | None = None) -> tuple[Board, ...]:
    """All boards, by name. Raises UsageError for a faulty file or a name used twice."""
    root = folder or product_dir("boards")
    boards = tuple(read_board(root / f"{name}.toml") for name in board_names(root))
    owner: dict[str, str] = {}
    for board in boards:
        for name in (board.name, *board.aliases):
            if name in owner:
                raise UsageError(f"board name {name!r} is used by {owner[name]}.toml and {board.name}.toml; rename one")
            owner[name] = board.name
    return boards


@cache
def _by_name() -> dict[str, Board]:
    return {name: board for board in load_boards() for name in (board.name, *board.aliases)}


def load_board(name: str) -> Board:
    """The board called ``name`` (or an alias of it); a path ending in ``.toml`` is read as a board file.

    ``name:role=REGION,...`` moves code, constants, weights, arena or stack to other regions of the board, and its
    limits with them: ``stm32h7:arena=DTCM``. An arena may fill several, ``arena=DTCM+AXI_SRAM``.
    ``+size`` behind the name is for the smallest code (``mcuq.target.core.SIZE``).

    Raises:
        UsageError: no such board, role or region; the text names the closest ones.
    """
    if name.endswith(SIZE):
        board = load_board(name.removesuffix(SIZE))
        return replace(board, core=board.core + SIZE)
    bare, colon, moves = name.partition(":")
    if colon:
        return _moved(load_board(bare), moves)
    if name.endswith(".toml"):
        return read_board(Path(name))
    boards = _by_name()
    if name.lower() in boards:
        return boards[name.lower()]
    close = difflib.get_close_matches(name.lower(), boards, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"boards are {', '.join(board_names())}"
    raise UsageError(f"unknown board {name!r}; {hint} (`mcuq boards` lists all)")


def optimized(board: str, goal: str) -> str:
    """The name under which ``load_board`` gives ``board`` for ``goal``, speed or size. Raises UsageError."""
    if goal not in ("speed", "size"):
        raise UsageError(f"--optimize {goal!r} is unknown; use speed or size")
    return board + SIZE if goal == "size" else board


def _moved(board: Board, moves: str) -> Board:
    """``board`` with the roles of ``moves`` (role=REGION, by commas) in other regions."""
    places: dict[str, Any] = {role: getattr(board.placement, role) for role in ROLES}
    for move in moves.split(","):
        role, _, region = (part.strip() for part in move.partition("="))
        if role not in ROLES:
            raise UsageError(f"board {board.name}:{moves} moves {role!r}; roles are {', '.join(ROLES)}")
        allowed = [r.name for r in board.regions if r.kind == ROLES[role]]
        named = tuple(part.strip() for part in region.split("+")) if role == "arena" else (region,)
        for name in named:
            if name not in allowed:
                raise UsageError(f"board {board.name}: {role} cannot lie in {name!r}, but in {' or '.join(allowed)}")
        if len(set(named)) < len(named):
            raise UsageError(f"board {board.name}: {move} names a region twice")
        places[role] = named if role == "arena" else region
    placement = Placement(**places)
    return replace(board, placement=placement, limits=_limits(board.regions, placement))


def _limits(regions: tuple[Region, ...], placement: Placement) -> Limits:
    """Lengths of the regions for weights and for the arena."""
    lengths = {region.name: region.length for region in regions}
    return Limits(lengths[placement.weights], sum(lengths[name] for name in placement.arena))


def read_board(path: Path) -> Board:
    """Read and validate one board file.

    Raises:
        UsageError: the file is missing, is not TOML, or breaks a rule; the text says which field, what was
            found and what is allowed.
    """
    try:
        text = path.read_text(encoding="utf-8")
        parsed = _BoardFile.model_validate(tomllib.loads(text))
    except OSError as error:
        raise UsageError(f"board file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"board file {path} is not TOML: {error}") from error
    except ValidationError as error:
        raise UsageError(f"board file {path}: {_first_error(error)}") from error
    return _board(parsed, path)


def _first_error(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    found = "" if first["type"] in ("missing", "extra_forbidden") else f", found {first['input']!r}"
    more = error.error_count() - 1
    return f"{where}: {first['msg']}{found}" + (f" (and {more} more)" if more else "")


def _board(parsed: _BoardFile, path: Path) -> Board:
    regions = tuple(Region(r.name, r.kind, r.origin, r.length) for r in parsed.region)
    roles = parsed.placement.model_dump()
    roles |= {"constants": roles["constants"] or roles["code"], "arena": tuple(roles["arena"].split("+"))}
    placement = Placement(**roles)
    if parsed.name != path.stem:
        raise UsageError(f"board file {path}: name is {parsed.name!r}, but must be the file's name {path.stem!r}")
    _check_regions(regions, placement, path)
    return Board(
        name=parsed.name,
        aliases=tuple(parsed.aliases),
        part=parsed.part,
        core=parsed.core,
        clock_hz=parsed.clock_hz,
        flags=tuple(parsed.flags),
        emulation=Emulation(parsed.emulation.machine, parsed.emulation.mode),
        placement=placement,
        regions=regions,
        limits=_limits(regions, placement),
        sources=tuple(parsed.sources),
    )


def _check_regions(regions: tuple[Region, ...], placement: Placement, path: Path) -> None:
    by_name = {region.name: region for region in regions}
    if len(by_name) != len(regions):
        raise UsageError(f"board file {path}: two regions have one name; names must differ")
    for role, kind in ROLES.items():
        fitting = [region.name for region in regions if region.kind == kind]
        for name in placement.arena if role == "arena" else (getattr(placement, role),):
            if name not in fitting:
                raise UsageError(
                    f"board file {path}: placement.{role} is {name!r}, "
                    f"but must be a {kind} region: {', '.join(fitting)}"
                )
    if len(set(placement.arena)) < len(placement.arena):
        raise UsageError(f"board file {path}: placement.arena names a region twice")
    ordered = sorted(regions, key=lambda region: region.origin)
    for low, high in pairwise(ordered):
        if low.end > high.origin:
            raise UsageError(
                f"board file {path}: region {low.name} ends at 0x{low.end:08x}, "
                f"inside {high.name} at 0x{high.origin:08x}"
            )


def emulated(board: Board) -> Board:
    """The board as it runs under QEMU: the same regions that mcuq uses, at addresses the machine has.

    Raises:
        UsageError: the machine has no room for a region.
    """
    if board.emulation.mode != "same-lengths":
        return board
    machine = load_board(board.emulation.machine)
    own, its = board.placement, machine.placement
    homes = {own.code: its.code, own.constants: its.constants, own.weights: its.weights}
    homes |= {**dict.fromkeys(own.arena, its.arena[0]), own.stack: its.stack}
    moved: list[Region] = []
    used: dict[str, int] = {}
    for name, home_name in homes.items():
        region, home = board.region(name), machine.region(home_name)
        offset = used.get(home_name, 0)
        if offset + region.length > home.length:
            raise UsageError(
                f"board {board.name}: region {name} of {region.length} bytes does not fit {home_name} of "
                f"{machine.name} ({home.length - offset} bytes free); "
                f"choose another machine in boards/{board.name}.toml"
            )
        moved.append(replace(region, origin=home.origin + offset))
        # Vector tables and stacks want alignment; 64 KiB also keeps neighbours apart in dumps.
        used[home_name] = (offset + region.length + 0xFFFF) & ~0xFFFF
    return replace(board, regions=tuple(moved), emulation=Emulation(machine.name, "same-lengths"))
