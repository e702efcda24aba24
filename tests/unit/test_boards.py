"""Board files: what is read, and the text of every refusal."""

from pathlib import Path

import pytest

from mcuq.errors import UsageError
from mcuq.ir.graph import Window
from mcuq.target.board import board_names, emulated, load_board, load_boards, optimized, read_board
from mcuq.target.kernels import ConvCase, select

REQUIRED = {
    "stm32h7", "stm32f4", "stm32f7", "stm32l4r5", "nrf52840", "nrf5340", "rp2040", "rp2350", "mps2-an385",
    "mps2-an386", "mps2-an500", "mps2-an505", "mps3-an547", "netduinoplus2", "microbit", "virt", "esp32c3",
}  # fmt: skip


def test_all_boards_load_and_names_are_unique() -> None:
    assert set(board_names()) >= REQUIRED
    assert {board.name for board in load_boards()} == set(board_names())


def test_stm32h7_is_the_two_megabyte_part() -> None:
    board = load_board("stm32h743")
    assert board.name == "stm32h7"
    assert (board.limits.flash, board.limits.ram) == (2 << 20, 512 << 10)
    assert (board.region("AXI_SRAM").origin, board.region("DTCM").length) == (0x24000000, 128 << 10)


def test_the_emulated_board_keeps_the_lengths_and_sits_inside_the_machine() -> None:
    for board in load_boards():
        run = emulated(board)
        machine = load_board(run.emulation.machine)
        for role in ("code", "weights", "arena", "stack"):
            name = board.placement.arena[0] if role == "arena" else getattr(board.placement, role)
            region = run.region(name)
            assert region.length == board.region(name).length
            home = machine.region_at(region.origin)
            assert home is not None and (region.end <= home.end or board.emulation.mode == "real-addresses")


def test_unknown_boards_name_the_closest() -> None:
    with pytest.raises(UsageError, match="unknown board 'stm32h8'; did you mean stm32h7 or"):
        load_board("stm32h8")
    with pytest.raises(UsageError, match="boards are esp32c3, microbit, mps2-an385"):
        load_board("???")


def faulty(tmp_path: Path, old: str, new: str) -> str:
    source = Path(__file__).parents[2] / "boards" / "stm32h7.toml"
    text = source.read_text()
    assert old in text
    path = tmp_path / "stm32h7.toml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UsageError) as error:
        read_board(path)
    return str(error.value).removeprefix(f"board file {path}")


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("clock_hz = 480_000_000", 'clock_hz = "fast"', "clock_hz: Input should be a valid integer, found 'fast'"),
        ('core = "cortex-m7"', "", "core: Field required"),
        ('kind = "flash"', 'kind = "rom"', "region.0.kind: Input should be 'flash' or 'ram', found 'rom'"),
        ('arena = "AXI_SRAM"', 'arena = "FLASH"', "placement.arena is 'FLASH', but must be a ram region: ITCM, DTCM"),
        ('mode = "same-lengths"', 'mode = "same"', "emulation.mode: Input should be 'native', 'real-addresses'"),
        ("origin = 0x20000000", "origin = 0x23fff000", "region DTCM ends at 0x2401f000, inside AXI_SRAM at 0x24000000"),
        ('name = "stm32h7"', 'name = "other"', "name is 'other', but must be the file's name 'stm32h7'"),
        ('core = "cortex-m7"', 'core = "rv64gc"', "core: String should match pattern"),
        ("clock_hz", "clock_mhz = 1\nclock_hz", "clock_mhz: Extra inputs are not permitted"),
        ("[placement]", "[placement", "is not TOML"),
    ],
)
def test_faults_are_named(tmp_path: Path, old: str, new: str, text: str) -> None:
    assert text in faulty(tmp_path, old, new)


def test_a_board_too_large_for_its_machine_is_refused(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "boards" / "rp2350.toml").read_text()
    path = tmp_path / "rp2350.toml"
    path.write_text(text.replace('length = "4MiB"', 'length = "8MiB"'))
    with pytest.raises(UsageError, match="region FLASH of 8388608 bytes does not fit FLASH of mps2-an505"):
        emulated(read_board(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        load_board(str(tmp_path / "x.toml"))


def test_a_board_for_the_smallest_code_runs_portable_kernels() -> None:
    fast, small = load_board("stm32h7"), load_board(optimized("stm32h7", "size"))
    assert (small.name, small.flags, small.core) == (fast.name, fast.flags, fast.core + "+size")
    assert small.architecture is fast.architecture
    assert load_board(optimized("stm32h7", "speed")) is fast
    case = ConvCase((8, 8, 16), (8, 8, 16), (16, 1, 1, 16), Window(), 1, 8, 8, 8)
    assert select(case, fast.core).function == "mcuq_conv2d_w8_dsp"
    assert select(case, small.core) == select(case, "portable")
    with pytest.raises(UsageError, match="speed or size"):
        optimized("stm32h7", "tiny")


def test_roles_move_to_other_regions_and_limits_follow() -> None:
    board = load_board("stm32h743:arena=DTCM,stack=AXI_SRAM")
    assert (board.name, board.placement.arena, board.placement.stack) == ("stm32h7", ("DTCM",), "AXI_SRAM")
    assert (board.limits.flash, board.limits.ram) == (2 << 20, 128 << 10)
    run = emulated(board)
    assert run.region("DTCM").length == 128 << 10
    assert (
        run.region("DTCM").end <= run.region("AXI_SRAM").origin
        or run.region("AXI_SRAM").end <= run.region("DTCM").origin
    )


def test_an_arena_in_two_regions_is_cut_where_the_first_ends() -> None:
    """What the stack takes of a region is not the arena's."""
    board = load_board("stm32h7:arena=DTCM+AXI_SRAM")
    assert (board.placement.arena, board.placement.statics) == (("DTCM", "AXI_SRAM"), "AXI_SRAM")
    assert (board.cuts, board.limits.ram) == (((128 << 10) - 2048,), 640 << 10)
    assert load_board("stm32h7:arena=ITCM+DTCM+AXI_SRAM,stack=SRAM3").cuts == (64 << 10, 192 << 10)
    assert load_board("stm32h7:arena=AXI_SRAM+DTCM").placement.statics == "DTCM"
    assert load_board("stm32h7").cuts == ()
    run = emulated(board)
    assert run.region("DTCM").end <= run.region("AXI_SRAM").origin
    assert run.cuts == board.cuts


def test_board_files_may_name_two_regions(tmp_path: Path) -> None:
    source = (Path(__file__).parents[2] / "boards" / "stm32h7.toml").read_text()
    path = tmp_path / "stm32h7.toml"
    path.write_text(source.replace('arena = "AXI_SRAM"', 'arena = "DTCM+AXI_SRAM"'))
    assert read_board(path).cuts == ((128 << 10) - 2048,)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("stm32h7:arena=DTCM+DTCM", "names a region twice"),
        ("stm32h7:arena=DTCM+FLASH", "arena cannot lie in 'FLASH', but in ITCM or DTCM"),
        ("stm32h7:stack=DTCM+SRAM3", r"stack cannot lie in 'DTCM\+SRAM3'"),
        ("stm32h7:heap=DTCM", "moves 'heap'; roles are code, constants, weights, arena, stack"),
        ("stm32h7:arena=FLASH", "arena cannot lie in 'FLASH', but in ITCM or DTCM or AXI_SRAM"),
        ("stm32h7:weights", "weights cannot lie in '', but in FLASH"),
        ("stm32h8:arena=DTCM", "unknown board 'stm32h8'"),
    ],
)
def test_faulty_moves_are_answered(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        load_board(name)
