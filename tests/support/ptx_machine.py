"""Executes one kernel of a PTX file on the CPU with NumPy: the threads of a block in lock step, lowest address first.

What a GPU may let pass is a PtxFaultError here: access outside every buffer, misaligned access, a register or a byte of
shared memory read before it was written, a barrier or shuffle that some named lane never reaches, unordered accesses to
shared memory, two threads writing one global byte. An opcode that is not implemented is a fault too, never skipped.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


class PtxFaultError(Exception):
    """The kernel did something that is undefined, or that this machine does not know."""


LETTERS = {"u": "u", "s": "i", "b": "u", "f": "f"}  # of PTX and of NumPy
TYPES = {f"{ptx}{bits}": np.dtype(f"{letter}{bits // 8}") for ptx, letter in LETTERS.items() for bits in (16, 32, 64)}
TYPES |= {"b8": np.dtype("u1"), "u8": np.dtype("u1"), "pred": np.dtype(bool)}
COMPARE = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
           "ge": np.greater_equal, "num": lambda a, b: ~(np.isnan(a) | np.isnan(b)),
           "nan": lambda a, b: np.isnan(a) | np.isnan(b)}  # fmt: skip
OPERANDS = re.compile(r"\{[^}]*\}|\[[^\]]*\]|[^,\s]+")


@dataclass(frozen=True)
class Instruction:
    """A line of PTX: `@[!]guard op.part.part operands;`."""

    guard: str
    when: bool
    parts: tuple[str, ...]
    operands: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Kernel:
    """An entry of a PTX file."""

    parameters: tuple[tuple[str, int], ...]  # name, bytes
    code: tuple[Instruction, ...]
    labels: dict[str, int]
    shared: frozenset[str]


def parse(text: str) -> dict[str, Kernel]:
    """All entries of a PTX file by their mangled names."""
    text = re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.S)
    shared = frozenset(re.findall(r"\.extern \.shared [^;]*?(\w+)\[\];", text))
    kernels = {}
    for entry in re.finditer(r"\.entry\s+(\w+)\((.*?)\)(.*?)\n\{\n(.*?)\n\}\n", text, re.S):
        name, declared, _, body = entry.groups()
        parameters = []
        for line in declared.split(","):
            found = re.search(r"\.(\w+)\s+(\w+)(?:\[(\d+)\])?\s*$", line.strip())
            parameters.append((found[2], TYPES[found[1]].itemsize * int(found[3] or 1)))
        code, labels = [], {}
        for line in body.splitlines():
            line = line.strip()
            if line.startswith("{") and line.endswith("}"):  # the scope of inline assembly
                line = line[1:-1].strip()
            if line.endswith(":"):
                labels[line[:-1]] = len(code)
            elif line and line not in "{}" and not line.startswith((".reg", ".pragma")):
                found = re.fullmatch(r"(?:@(!?)(%\w+)\s+)?([\w.:]+)\s*(.*);", line)
                if not found:
                    raise PtxFaultError(f"cannot read: {line}")
                operands = tuple(OPERANDS.findall(found[4]))
                code.append(Instruction(found[2] or "", not found[1], tuple(found[3].split(".")), operands, line))
        kernels[name] = Kernel(tuple(parameters), tuple(code), labels, shared)
    return kernels


class Memory:
    """Global memory: buffers at addresses of their own, with nothing between them."""

    def __init__(self):
        self.buffers: list[tuple[int, np.ndarray, np.ndarray]] = []  # address, bytes, which thread wrote

    def add(self, array: np.ndarray, address: int) -> int:
        self.buffers.append((address, array.reshape(-1).view(np.uint8), np.full(array.nbytes, -1)))
        return address

    def find(self, addresses: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        low, high = int(addresses.min()), int(addresses.max()) + size
        for start, cells, writers in self.buffers:
            if start <= low and high <= start + len(cells):
                return cells, writers, (addresses - np.uint64(start)).astype(np.int64)
        raise PtxFaultError(f"global access outside every buffer: {low:#x} to {high:#x}")


class Block:
    """The threads of one block and their registers."""

    def __init__(
        self, kernel: Kernel, memory: Memory, parameters: bytes, index: int, grid: int, threads: int, shared: int
    ):
        self.kernel, self.memory, self.index, self.threads = kernel, memory, index, threads
        self.parameters = np.frombuffer(parameters, np.uint8)
        self.at, position = {}, 0
        for name, size in kernel.parameters:
            position += -position % min(size, 8) if size <= 8 else -position % 4
            self.at[name] = position
            position += size
        if position != len(parameters):
            raise PtxFaultError(f"{len(parameters)} bytes of parameters were given, {position} are declared")
        lanes = np.arange(threads, dtype=np.uint32)
        self.warp, self.lane = lanes // 32, lanes % 32
        self.special = {"%tid.x": lanes, "%ntid.x": threads, "%ctaid.x": index, "%nctaid.x": grid, "%laneid": self.lane}
        self.registers: dict[str, np.ndarray] = {}
        self.written: dict[str, np.ndarray] = {}
        self.pc = np.zeros(threads, np.int64)
        self.done, self.waiting = np.zeros((2, threads), bool)
        self.shared, self.shared_written = np.full(shared, 0xFF, np.uint8), np.zeros(shared, bool)
        # One more than the barriers that a warp has passed; that number when a thread last touched a word, or 0.
        self.epoch = np.ones(threads // 32, np.int64)
        self.block_epoch = self.epoch.copy()  # the count just after the last barrier of the block
        self.reads, self.writes = np.zeros((2, -(-shared // 4), threads), np.int64)

    def run(self) -> None:
        while not self.done.all():
            self.step()

    def step(self) -> None:
        ready = ~(self.done | self.waiting)
        if not ready.any():
            stuck = int(self.pc[self.waiting].min())
            raise PtxFaultError(f"threads wait for others that never come: {self.kernel.code[stuck].text}")
        pc = int(self.pc[ready].min())
        active = ready & (self.pc == pc)
        line = self.kernel.code[pc]
        if line.parts[0] in ("shfl", "redux", "bar", "barrier"):
            active = self.release(line, pc, active)
            if not active.any():
                return
        self.pc[active] = pc + 1
        if line.guard:
            active = active & (self.read(line.guard, "pred", active) == line.when)
            if not active.any():
                return
        operation = line.parts[0]
        if operation == "bra":
            self.pc[active] = self.kernel.labels[line.operands[0]]
        elif operation in ("ret", "exit"):
            self.done |= active
        elif operation in ("ld", "st"):
            self.access(line, active)
        elif operation == "mov" and line.operands[0].startswith("{"):
            names = [name.strip() for name in line.operands[0][1:-1].split(",")]
            whole = np.ascontiguousarray(self.read(line.operands[1], line.parts[-1], active))
            for i, name in enumerate(names):
                self.write(name, whole.view(f"u{whole.itemsize // len(names)}").reshape(-1, len(names))[:, i], active)
        elif operation not in ("bar", "barrier"):
            with np.errstate(all="ignore"):
                self.write(line.operands[0].split("|")[0], self.compute(line, active), active)

    def read(self, operand: str, kind: str, active: np.ndarray) -> np.ndarray:
        dtype = TYPES[kind]
        if operand in self.special:
            return np.full(self.threads, self.special[operand], np.uint32).astype(f"u{dtype.itemsize}").view(dtype)
        if operand.startswith("%"):
            if operand not in self.registers or not self.written[operand][active].all():
                raise PtxFaultError(f"register read before it is written: {operand}")
            value = self.registers[operand]
            if value.dtype == dtype:
                return value
            if value.itemsize != dtype.itemsize:
                value = value.view(f"u{value.itemsize}").astype(f"u{dtype.itemsize}")
            return value.view(dtype)
        if operand in self.kernel.shared:
            return np.zeros(self.threads, dtype)
        if operand in self.at:
            return np.full(self.threads, self.at[operand], dtype)
        if operand.startswith("0f"):
            return np.full(self.threads, int(operand[2:], 16), np.uint32).view(np.float32)
        number = int(operand, 0)
        if kind == "pred":
            return np.full(self.threads, bool(number))
        return np.full(self.threads, number % (1 << 8 * dtype.itemsize), f"u{dtype.itemsize}").view(dtype)

    def write(self, register: str, value: np.ndarray, active: np.ndarray) -> None:
        old = self.registers.get(register)
        if old is None:
            self.registers[register], self.written[register] = np.array(value), active.copy()
        elif old.itemsize != value.itemsize:
            raise PtxFaultError(f"register of two sizes: {register}")
        else:
            self.registers[register] = np.where(active, value, old.view(value.dtype))
            self.written[register] |= active

    def release(self, line: Instruction, pc: int, active: np.ndarray) -> np.ndarray:
        """Threads arrive at a point that waits; those that may pass it now."""
        if line.guard:
            raise PtxFaultError(f"a guard on: {line.text}")
        self.waiting |= active
        here = self.waiting & (self.pc == pc)
        passing = np.zeros(self.threads, bool)
        if line.parts[0] == "barrier" or (line.parts[0] == "bar" and line.parts[1] == "sync"):
            if here.all():
                passing = here
                self.epoch += 1
                self.block_epoch = self.epoch.copy()
        else:
            masks = self.read(line.operands[-1], "b32", here)
            for warp in np.unique(self.warp[here]):
                arrived = here & (self.warp == warp)
                if len(set(masks[arrived].tolist())) != 1:
                    continue
                mask = masks[arrived][0]
                named = (self.warp == warp) & (mask >> self.lane & 1 == 1)
                if (arrived & ~named).any():
                    raise PtxFaultError(f"a lane that its own mask {mask:#x} does not name: {line.text}")
                if (named & ~arrived).any():
                    continue
                passing |= named
                if line.parts[0] == "bar" and mask == 0xFFFFFFFF:
                    self.epoch[warp] += 1
        self.waiting &= ~passing
        return passing

    def access(self, line: Instruction, active: np.ndarray) -> None:
        load, kind = line.parts[0] == "ld", line.parts[-1]
        values, place = line.operands if load else line.operands[::-1]
        names = [name.strip() for name in values.strip("{}").split(",")]
        base, _, offset = place[1:-1].partition("+")
        size = TYPES[kind].itemsize
        total = size * len(names)
        at = self.read(base, "u64", active)[active] + np.uint64(int(offset or 0) % 2**64)
        if "shared" in line.parts:
            at &= np.uint64(0xFFFFFFFF)
        if (at % np.uint64(total)).any():
            raise PtxFaultError(f"misaligned: {line.text}")
        who = np.nonzero(active)[0]
        writers = None
        if "param" in line.parts:
            cells, index = self.parameters, at.astype(np.int64)
            if index.max() + total > len(cells):
                raise PtxFaultError(f"outside the parameters: {line.text}")
        elif "shared" in line.parts:
            cells, index = self.shared, at.astype(np.int64)
            if index.max() + total > len(cells):
                raise PtxFaultError(f"outside {len(cells)} bytes of shared memory: {line.text}")
            self.order(line, index, total, who, load)
        elif "global" in line.parts:
            cells, writers, index = self.memory.find(at, total)
        else:
            raise PtxFaultError(f"not implemented: {line.text}")
        for i, name in enumerate(names):
            touched = (index + i * size)[:, None] + np.arange(size)
            if load:
                value = np.zeros(self.threads, TYPES[kind])
                value[active] = cells[touched].view(TYPES[kind])[:, 0]
                self.write(name, value, active)
                continue
            if writers is not None:
                self.claim(line, writers, touched, who)
            cells[touched] = (
                np.ascontiguousarray(self.read(name, kind, active)[active]).view(np.uint8).reshape(-1, size)
            )

    def claim(self, line: Instruction, writers: np.ndarray, touched: np.ndarray, who: np.ndarray) -> None:
        """Global bytes are written by one thread of the launch only."""
        self_id = (self.index * self.threads + who)[:, None]
        before = writers[touched]
        writers[touched] = self_id
        if ((before != -1) & (before != self_id)).any() or (writers[touched] != self_id).any():
            raise PtxFaultError(f"two threads write one place: {line.text}")

    def order(self, line: Instruction, index: np.ndarray, total: int, who: np.ndarray, load: bool) -> None:
        """A shared word that another thread touched may be touched after a barrier only."""
        for i in range(0, total, 4):
            words = (index + i) // 4
            if load and not self.shared_written[index + i].all():
                raise PtxFaultError(f"shared memory read before it is written: {line.text}")
            if not load and len(np.unique(words)) != len(words):
                raise PtxFaultError(f"two threads write one place: {line.text}")
            same_warp = self.warp == self.warp[who][:, None]
            since = np.where(same_warp, self.epoch[self.warp], self.block_epoch[self.warp])
            others = np.arange(self.threads) != who[:, None]
            history = self.writes[words] if load else np.maximum(self.writes[words], self.reads[words])
            if ((history >= since) & others).any():
                raise PtxFaultError(f"shared memory touched without a barrier in between: {line.text}")
            (self.reads if load else self.writes)[words, who] = self.epoch[self.warp[who]]
            if not load:
                self.shared_written[(index + i)[:, None] + np.arange(min(4, total))] = True

    def compute(self, line: Instruction, active: np.ndarray) -> np.ndarray:
        parts, operands = line.parts, line.operands
        kind, operation = parts[-1], parts[0]

        def value(i: int, of: str = kind) -> np.ndarray:
            return self.read(operands[i], of, active)

        if any(part in ("ftz", "approx", "sat", "full") for part in parts):
            raise PtxFaultError(f"inexact: {line.text}")
        if operation == "shfl":
            if parts[2] != "bfly" or (value(3)[active] != 31).any():
                raise PtxFaultError(f"not implemented: {line.text}")
            source = self.lane ^ (value(2) & 31)
            if (value(4)[active] >> source[active] & 1 != 1).any():
                raise PtxFaultError(f"a shuffle reads a lane that its mask does not name: {line.text}")
            return value(1)[self.warp * 32 + source]
        if operation == "redux":
            result, combine = value(1).copy(), {"add": np.add, "max": np.maximum, "min": np.minimum}[parts[2]]
            for warp in np.unique(self.warp[active]):
                lanes = active & (self.warp == warp)
                result[lanes] = combine.reduce(result[lanes], dtype=result.dtype)
            return result
        if operation == "setp":
            if len(parts) != 3:
                raise PtxFaultError(f"not implemented: {line.text}")
            return COMPARE[parts[1]](value(1), value(2))
        if operation == "selp":
            return np.where(value(3, "pred"), value(1), value(2))
        if operation == "mov" and operands[1].startswith("{"):
            halves = [name.strip() for name in operands[1][1:-1].split(",")]
            half = f"b{TYPES[kind].itemsize * 4}"
            pair = np.stack([self.read(name, half, active) for name in halves], 1)
            return np.ascontiguousarray(pair).view(TYPES[kind])[:, 0]
        if operation in ("mov", "cvta"):
            return value(1)
        if operation == "cvt":
            to, source = parts[-2], parts[-1]
            if source[0] == "f" and to[0] != "f":
                raise PtxFaultError(f"not implemented: {line.text}")
            return value(1, source).astype(TYPES[to])
        return self.arithmetic(line, operation, parts, kind, value)

    def arithmetic(
        self, line: Instruction, operation: str, parts: tuple[str, ...], kind: str, value: Callable[..., np.ndarray]
    ) -> np.ndarray:
        real = kind[0] == "f"
        a = value(1)
        if operation == "not":
            return ~a
        if operation == "neg":
            return -a
        if operation in ("shl", "shr"):
            bits = 8 * a.itemsize
            amount = np.minimum(value(2, "u32"), bits)
            shift = np.left_shift if operation == "shl" else np.right_shift
            # NumPy leaves a shift by all bits open.
            once = np.minimum(amount, bits - 1).astype(a.dtype)
            return np.where(amount < bits, shift(a, once), shift(shift(a, once), a.dtype.type(1)))
        if len(line.operands) < 3:
            raise PtxFaultError(f"not implemented: {line.text}")
        b = value(2)
        simple = {"add": np.add, "sub": np.subtract, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
                  "max": np.fmax if real else np.maximum, "min": np.fmin if real else np.minimum}  # fmt: skip
        if operation in simple:
            return simple[operation](a, b)
        if operation in ("mul", "mad") and parts[1] == "wide":
            wide = TYPES[f"{kind[0]}{16 * a.itemsize}"]
            product = a.astype(wide) * b.astype(wide)
            return product if operation == "mul" else product + value(3, f"{kind[0]}{16 * a.itemsize}")
        if operation in ("mul", "mad") and (real or parts[1] == "lo"):
            return a * b if operation == "mul" else a * b + value(3)
        if operation == "fma" and kind == "f32":  # the product is exact in 80 bits
            return (a.astype(np.longdouble) * b.astype(np.longdouble) + value(3).astype(np.longdouble)).astype(
                np.float32
            )
        if operation == "div" and real:
            return a / b
        if operation in ("div", "rem"):
            divisor = np.where(b == 0, 1, b)  # threads that are not active may hold anything
            quotient = np.trunc(a.astype(np.longdouble) / divisor.astype(np.longdouble)).astype(a.dtype)
            return quotient if operation == "div" else a - quotient * divisor
        raise PtxFaultError(f"not implemented: {line.text}")
