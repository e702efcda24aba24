"""Running an image over samples: outputs, every tensor, executed instructions, stack."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcuq.build.image import Image
from mcuq.build.qemu import run_elf
from mcuq.errors import CheckError, ToolchainError, UsageError
from mcuq.ir.integer import QInput, QTensor
from mcuq.ir.samples import split
from mcuq.numerics import IntArray, pack, unpack
from mcuq.target.placement import stored

_STATUS = {2: "bad arguments", 3: "a file could not be read or written", 4: "the model refused its arena"}


@dataclass(frozen=True, slots=True)
class Counts:
    """Executed instructions (QEMU; not cycles) of one inference: in all, and per operator in execution order.

    ``total`` is of the image without hooks; ``operators`` carry the call's own few instructions.
    """

    total: int
    operators: tuple[tuple[str, int], ...]


def run_samples(image: Image, inputs: NDArray[Any], *, seconds: float = 600.0) -> dict[str, IntArray]:
    """Codes of every network output, {name: [N, H, W, C]}, for inputs [N, H, W, C] (pixels or codes).

    Raises:
        ToolchainError: the program failed or ran out of time.
    """
    content = _run(image.plain, image, "run", inputs, seconds)
    tensors = [(name, image.graph.tensor(name)) for name in image.graph.outputs]
    rows = _rows(content, len(inputs), sum(tensor.bytes for _, tensor in tensors))
    outputs: dict[str, IntArray] = {}
    start = 0
    for name, tensor in tensors:
        outputs[name] = stored_codes(rows[:, start : start + tensor.bytes], tensor)
        start += tensor.bytes
    return outputs


def trace(image: Image, inputs: NDArray[Any], *, seconds: float = 600.0) -> dict[str, NDArray[np.uint8]]:
    """Every tensor as it is stored, {name: uint8 [N, bytes]}; those that are only ever part of another are left out.

    Raises:
        ToolchainError: the program failed or ran out of time.
    """
    content = _run(image.hooked, image, "trace", inputs, seconds)
    names = [name for name in image.order if stored(image.graph, name) == name]
    sizes = [image.graph.tensor(name).bytes for name in names]
    rows = _rows(content, len(inputs), sum(sizes))
    ends = np.cumsum(sizes).tolist()
    return {name: rows[:, end - size : end] for name, size, end in zip(names, sizes, ends, strict=True)}


def count(image: Image, sample: NDArray[Any], *, seconds: float = 600.0) -> Counts:
    """Executed instructions of one inference of ``sample`` [H, W, C].

    Raises:
        UsageError: the image runs on this computer, which has no counter.
        ToolchainError: the program failed or ran out of time.
    """
    if image.machine is None:
        raise UsageError("instructions are counted under QEMU; choose a board instead of the host")
    plain = np.frombuffer(_run(image.plain, image, "count", sample[None], seconds), dtype="<u4")
    hooked = np.frombuffer(_run(image.hooked, image, "count", sample[None], seconds), dtype="<u4")
    if len(hooked) != len(image.order) + 2:
        raise CheckError(f"the profile has {len(hooked) - 2} operators instead of {len(image.order)}")
    overhead = int(hooked[0])
    instructions = image.machine.instructions
    operators = tuple(
        (name, instructions(max(0, int(ticks) - overhead))) for name, ticks in zip(image.order, hooked[2:], strict=True)
    )
    return Counts(instructions(int(plain[1])), operators)


def stack_used(image: Image, sample: NDArray[Any], *, seconds: float = 600.0) -> int:
    """Bytes of painted stack that one inference overwrote, the harness's own frames included.

    Raises:
        UsageError: the image runs on this computer. ToolchainError: the program failed.
    """
    if image.machine is None:
        raise UsageError("stack is painted under QEMU; choose a board instead of the host")
    return int(np.frombuffer(_run(image.plain, image, "stack", sample[None], seconds), dtype="<u4")[0])


def stored_input(inputs: NDArray[Any], image: Image) -> bytes:
    """Samples (``ir.samples``) as the bytes the caller of the emitted model writes, input after input.

    Raises:
        UsageError, DataError: shapes or ranges do not fit the network's inputs.
    """
    parts = split(image.graph, inputs)
    rows = [_stored_rows(op, parts[op.name]) for op in image.graph.inputs]
    return np.concatenate(rows, axis=1).tobytes()


def _stored_rows(op: QInput, values: NDArray[Any]) -> NDArray[np.uint8]:
    """One input as bytes, [N, bytes]."""
    if op.encoding != "uint8":
        return pack(values, op.output.bits).reshape(len(values), -1)
    if values.size and (values.min() < 0 or values.max() > 255):
        raise UsageError(f"pixels {values.min()}..{values.max()} are outside 0..255")
    return values.astype(np.uint8).reshape(len(values), -1)


def stored_codes(rows: NDArray[np.uint8], tensor: QTensor) -> IntArray:
    """Codes [N, H, W, C] of stored bytes [N, bytes]."""
    height, width, channels = tensor.shape
    pixels = np.ascontiguousarray(rows).reshape(len(rows), height, width, -1)
    return unpack(pixels, channels, tensor.bits, signed=tensor.bits == 8)


def _rows(content: bytes, samples: int, size: int) -> NDArray[np.uint8]:
    if len(content) != samples * size:
        raise CheckError(f"the program wrote {len(content)} bytes for {samples} samples of {size} bytes each")
    return np.frombuffer(content, dtype=np.uint8).reshape(samples, size)


def run_with_options(image: Image, mode: str, inputs: NDArray[Any], seconds: float, options: Sequence[str]) -> bytes:
    """What the plain harness writes in ``mode``, the emulator run with further ``options``.

    Raises:
        ToolchainError: the program failed or ran out of time.
    """
    return _run(image.plain, image, mode, inputs, seconds, options)


def _run(
    program: Path, image: Image, mode: str, inputs: NDArray[Any], seconds: float, options: Sequence[str] = ()
) -> bytes:
    with tempfile.TemporaryDirectory(prefix="mcuq-run-") as folder:
        source, target = Path(folder, "inputs"), Path(folder, "results")
        source.write_bytes(stored_input(inputs, image))
        arguments = (mode, str(source), str(target))
        if image.machine is None:
            code = _host(program, arguments, seconds)
        else:
            code = run_elf(program, image.machine, arguments, seconds=seconds, options=options).exit_code
        if code != 0:
            raise ToolchainError(f"{program.name} failed with exit status {code}: {_STATUS.get(code, 'crashed')}")
        return target.read_bytes()


def _host(program: Path, arguments: tuple[str, ...], seconds: float) -> int:
    try:
        done = subprocess.run((str(program), *arguments), timeout=seconds, check=False, capture_output=True)
    except subprocess.TimeoutExpired as error:
        raise ToolchainError(f"{program.name} did not end within {seconds:g} s") from error
    if done.stderr:
        text = done.stderr.decode("utf-8", "replace")
        raise ToolchainError(f"{program.name} complained: {text[:2000]}")
    return done.returncode
