"""The surviving parent of a runner: it feeds it messages, watches its time and memory, and says how it ended.

One supervisor has one runner and serves one message at a time. It is the same wherever the worker is: inside the
client's process on localhost, inside the container or sandbox elsewhere.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

from lithops_mini import wire
from lithops_mini.errors import InvocationError, Reason
from lithops_mini.wire import Status
from lithops_mini.worker.pipe import ENDLESS, LOG_HEAD, LOG_TAIL, empty_outcome, shorten, unstarted
from lithops_mini.worker.process import RunnerProcess, describe_exit

logger = logging.getLogger("lithops_mini.worker")

# How often a running call is looked at, in seconds: a process filling memory at 4 GB/s passes its limit by 80 MB.
_TICK = 0.02
# How often its memory is if nothing limits that, in seconds: it is only for the records.
_UNLIMITED = 0.1
# A process that ends closes its pipes a little before; one that goes on without them this long (seconds) is of no use.
_HUNG_UP = 1.0
# After this long, in seconds, what is known of a message is delivered, and what has not begun of it is given back: a
# call that turns out to be slow does not hold up those that happened to travel with it.
_PATIENCE = 0.25
# The clock of a call stands still while the runner opens a storage, but not for longer than this, in seconds.
_OPENING = 60.0
# Output of a running call beyond this is dropped, all but its head, in bytes.
_LOG_LIMIT = 8 << 20


@dataclass
class _Message:
    """What is known of the message under way."""

    count: int  # of its calls
    encoded: memoryview  # the calls
    timeout: float | None  # seconds a call may run
    memory: int | None  # bytes the runner may hold
    until: float | None = None  # monotonic: when the worker itself ends
    room: int = ENDLESS  # bytes of the reply
    began: float = 0.0  # monotonic: when the call that runs now began
    started: float = 0.0  # the same by the wall clock
    deadline: float = 0.0  # monotonic: what has not begun by then, the runner gives back
    parted: bool = False  # what was known after the deadline has been delivered
    kept: int = 0  # how many of the calls, from the first, are still for the reply
    done: int = 0
    outcomes: bytearray = field(default_factory=bytearray)
    verdict: tuple[int, Status, str] | None = None  # the call the runner was killed for, and why
    weighed: float = 0.0  # monotonic: when the memory was looked at
    held: int = 0  # bytes that were seen then, at most, in the running call
    log_head: bytes = b""  # of the running call, once its output had to be cut
    log_dropped: int = 0
    log_shown: int = 0

    @cached_property
    def calls(self) -> list[wire.Call]:
        """Read only when something befalls one of them: most messages just pass."""
        return list(wire.iter_calls(self.encoded))


class Supervisor:
    """``run`` is for one thread at a time; ``start``, ``cancel``, ``close`` and ``retire`` may be called from any."""

    def __init__(
        self,
        name: str,
        directory: str,
        *,
        python: str | None = None,
        environment: Mapping[str, str] | None = None,
        memory_disk: str | None = None,
    ) -> None:
        """``name`` identifies the worker in replies; ``directory`` is private and takes unpacked modules;
        ``environment``: what runners started from now on have besides the environment of this process;
        ``memory_disk``: a file system in memory that is this worker's alone, so that calls hold what is in it.
        """
        self._memory_disk = memory_disk
        self._environment = environment if environment is not None else {}
        self._name = name
        self._directory = directory
        self._python = python
        self._lock = threading.Lock()
        self._runner: RunnerProcess | None = None
        self._started = 0
        self._closed = False
        self._message: _Message | None = None
        self._cancelled: frozenset[int] = frozenset()
        self._modules: dict[str, str] = {}  # top-level name -> digest, of what the runner may have imported
        self._header: tuple[bytes, dict[str, Any]] = (b"", {})

    def start(self, message: _Message | None = None) -> RunnerProcess:
        """Have a runner, for this message, starting one if there is none, without waiting until it is ready."""
        with self._lock:
            if self._closed:
                raise InvocationError("this worker was closed", reason=Reason.CANCELLED)
            if self._runner is None:
                self._runner = RunnerProcess(self._directory, self._python, self._environment)
                self._started += 1
                self._modules = {}
                self._ready = False
            if message is not None:
                self._message = message
            return self._runner

    def cancel(self, calls: frozenset[int]) -> None:
        """Stop these calls of the message that runs or is about to: a running one now, others in their turn."""
        with self._lock:
            self._cancelled |= calls
            if self._runner is not None:
                self._runner.wake()

    def forget_cancelled(self) -> None:
        """What was cancelled belonged to the message that has just ended, even if word of it came late."""
        with self._lock:
            self._cancelled = frozenset()

    def close(self, grace: float = 0.3) -> None:
        """End the runner: after ``grace`` seconds at most if it is idle, at once if it is not."""
        if (runner := self.retire()) is not None:
            runner.finish(grace)

    def retire(self) -> RunnerProcess | None:
        """End the runner now if it is at work; else ask it to end, and return it for the caller to ``finish``."""
        with self._lock:
            self._closed = True
            runner = self._runner
            if runner is None:
                return None
            if self._message is not None:
                runner.kill()  # the thread in run() sees it and releases the rest
                return None
            self._runner = None
        runner.end()
        return runner

    def run(
        self,
        payload: bytes | bytearray,
        deliver: Callable[[bytes], None] | None = None,
        *,
        until: float | None = None,
        room: int = ENDLESS,
    ) -> bytes:
        """Have the calls of ``payload`` run; return the reply, with an outcome for each, whatever became of it.

        If that takes long, ``deliver`` is given a reply about those that have ended, or will not begin here, while one
        still runs; what is returned is then about that one. A call that still runs at the time ``until``, of the
        monotonic clock, is stopped as one that is over its time. Calls after which the reply might be over ``room``
        bytes are given back. Raises ``InvocationError`` if no runner takes the message.
        """
        message = self._read(payload)
        message.until, message.room = until, room
        reusable = False
        try:
            runner = self._hand_over(payload, message)
            message.began, message.started = time.monotonic(), time.time()
            while message.done < message.count:
                self._step(runner, message, deliver)
            reusable = message.verdict is None
        finally:
            with self._lock:
                self._message = None
                reusable = reusable and not self._closed  # retire() leaves a runner at work to this thread
            if not reusable:
                # Killed a moment too late, or left in the middle: it must not take, or answer, the next message.
                self._discard()
        if self._closed:
            raise InvocationError("the worker was closed while it ran calls", reason=Reason.CANCELLED)
        return self._reply(message)

    def _reply(self, message: _Message) -> bytes:
        return wire.encode_reply(f"{self._name}.{self._started}", bytes(message.outcomes))

    def _read(self, payload: bytes | bytearray) -> _Message:
        raw, _, calls = wire.split_payload(payload)
        if self._header[0] != raw:
            self._header = (raw, json.loads(raw))
        header = self._header[1]
        count = wire.count_calls(payload)
        return _Message(count, calls, header["timeout"], header["memory"], kept=count)

    def _hand_over(self, payload: bytes | bytearray, message: _Message) -> RunnerProcess:
        modules: dict[str, str] = self._header[1]["modules"]
        if any(self._modules.get(name, digest) != digest for name, digest in modules.items()):
            # Another version of a module may be loaded there, and Python cannot unload one safely.
            self._discard()
        while True:
            runner = self.start(message)
            fresh = not self._ready
            try:
                if fresh:
                    runner.wait_ready()
                    self._ready = True
                message.deadline = time.monotonic() + _PATIENCE
                runner.send(payload, message.deadline, message.room)
            except (InvocationError, BrokenPipeError) as error:
                # Nothing of this message has run. A runner that ended while it was idle is replaced once.
                how = describe_exit(self._discard())
                if fresh:
                    text = f"a worker process ended before it took a message: {how}\n{error}"
                    raise InvocationError(text, reason=Reason.DIED, retryable=True) from error
            else:
                self._modules = self._modules | modules
                return runner

    def _discard(self) -> int:
        """Kill and release the runner if there is one; return its exit code."""
        with self._lock:
            runner, self._runner = self._runner, None
        if runner is None:
            return 0
        runner.kill()
        return runner.reap()

    def _step(self, runner: RunnerProcess, message: _Message, deliver: Callable[[bytes], None] | None) -> None:
        """Wait until something happens, or it is time to look, and take note of it."""
        left = _TICK
        if message.timeout is not None:
            left = min(left, message.began + message.timeout - time.monotonic())
        before = time.monotonic()
        runner.wait(left)
        if runner.opening is not None and (now := time.monotonic()) - runner.opening < _OPENING:
            message.began += now - before
        ended = runner.exited()
        late = time.monotonic() > message.deadline
        runner.drain()
        self._collect(runner, message)
        if message.done == message.count:
            return
        if late and deliver is not None and not message.parted:
            self._part(message, deliver)
        if ended:
            self._settle_death(runner, message)
        elif message.verdict is None and (verdict := self._judge(runner, message)):
            message.verdict = (message.done, *verdict)
            runner.kill()
        else:
            self._watch_output(runner, message)

    def _part(self, message: _Message, deliver: Callable[[bytes], None]) -> None:
        """Deliver what is known: the outcomes so far, and that nothing behind the running call will begin.

        That is certain: the outcomes were read after the deadline. Had the call after the last of them ended, it ended
        after the deadline too, or its outcome would have been there; so the runner gives back all that follow.
        """
        behind = message.calls[message.done + 1 :]
        message.parted, message.kept = True, message.done + 1
        if message.outcomes or behind:
            message.outcomes += b"".join(wire.encode_outcome(unstarted(call)) for call in behind)
            deliver(self._reply(message))
            message.outcomes.clear()

    def _judge(self, runner: RunnerProcess, message: _Message) -> tuple[Status, str] | None:
        """Whether the running call must be stopped, and why."""
        if self._cancelled and message.calls[message.done].id in self._cancelled:
            return Status.CANCELLED, "cancelled while it ran"
        if message.timeout is not None and time.monotonic() - message.began >= message.timeout:
            return Status.TIMEOUT, f"the call ran longer than its timeout of {message.timeout:g} s and was stopped"
        if message.until is not None and time.monotonic() >= message.until:
            ran = time.monotonic() - message.began
            text = f"the call had run for {ran:.1f} s when the time of its worker was over, and was stopped"
            return Status.TIMEOUT, text
        if runner.hung_up is not None and time.monotonic() - runner.hung_up > _HUNG_UP:
            return Status.DIED, "the call closed the worker's own file descriptors, so nothing could come back from it"
        return self._weigh(runner, message)

    def _weigh(self, runner: RunnerProcess, message: _Message) -> tuple[Status, str] | None:
        limit, now = message.memory, time.monotonic()
        if limit is None and now - message.weighed < _UNLIMITED:
            return None
        message.weighed, held = now, runner.memory()
        if limit is not None and held > limit:
            held = runner.memory_held()
        message.held = max(message.held, held + self._on_disk())
        if limit is not None and held > limit:
            text = f"the worker held {-(-held >> 20):,} MiB, over its limit of {limit >> 20:,} MiB (runtime_memory),"
            return Status.OUT_OF_MEMORY, f"{text} and was stopped"
        return None

    def _on_disk(self) -> int:
        if self._memory_disk is None:
            return 0
        disk = os.statvfs(self._memory_disk)
        return (disk.f_blocks - disk.f_bfree) * disk.f_frsize

    def _settle_death(self, runner: RunnerProcess, message: _Message) -> None:
        """The runner has ended: an outcome for the call it was at, and the others are given back."""
        self._show_rest(runner, message)
        log = self._last_words(runner, message)
        by_kernel = runner.killed_by_kernel()
        code = self._discard()
        left = message.calls[message.done : message.kept]  # none, if it was only giving calls back
        for index, call in enumerate(left):
            fate = unstarted(call) if index else self._fate(message, call, code, by_kernel=by_kernel, log=log)
            message.outcomes += wire.encode_outcome(fate)
        message.done = message.count

    def _fate(self, message: _Message, victim: wire.Call, code: int, *, by_kernel: bool, log: bytes) -> wire.Outcome:
        if message.verdict is None:
            status, text = Status.DIED, f"the worker process ended: {describe_exit(code)}"
            if code == -9 and by_kernel:
                status, text = Status.OUT_OF_MEMORY, "the kernel ran out of memory and killed the worker process"
                if message.memory is not None:
                    text += f", whose limit is {message.memory >> 20:,} MiB (runtime_memory)"
        elif message.verdict[0] == message.done:
            _, status, text = message.verdict
        else:
            # The call that was meant had just ended: this one was hit in its place and runs again.
            return unstarted(victim)
        fate = empty_outcome(victim, status, text, started=message.started, log=log)
        return fate._replace(peak_memory=message.held)

    def _collect(self, runner: RunnerProcess, message: _Message) -> None:
        """Move the whole outcomes from the runner's buffer to the message."""
        ends = list(wire.iter_frame_ends(runner.buffer))
        if not ends:
            return
        if (
            message.held
            or message.log_head
            or message.log_shown
            or message.parted
            or logger.isEnabledFor(logging.DEBUG)
        ):
            for start, end in pairwise((0, *ends)):
                if message.done < message.kept:
                    message.outcomes += self._completed(message, runner.buffer[start:end])
                message.held = 0
                message.done += 1
        else:
            message.outcomes += runner.buffer[: ends[-1]]
            message.done += len(ends)
        del runner.buffer[: ends[-1]]
        message.began, message.started = time.monotonic(), time.time()

    def _completed(self, message: _Message, frame: bytes | bytearray) -> bytes | bytearray:
        """The outcome with what the runner cannot know: output it has no longer, and memory of processes it started."""
        told = outcome = next(wire.iter_outcomes(frame))
        log = bytes(outcome.log)
        if len(log) > message.log_shown:
            self._show(message, log[message.log_shown :])
        if message.log_head:
            outcome = outcome._replace(log=shorten(message.log_head, log[-LOG_TAIL:], message.log_dropped))
        if message.held > outcome.peak_memory:
            outcome = outcome._replace(peak_memory=message.held)
        message.log_head, message.log_dropped, message.log_shown = b"", 0, 0
        return frame if outcome is told else wire.encode_outcome(outcome)

    def _show(self, message: _Message, output: bytes) -> None:
        for line in output.decode(errors="replace").splitlines():
            logger.debug("call %d: %s", message.calls[message.done].id, line, extra={"job": self._header[1]["job"]})

    def _show_rest(self, runner: RunnerProcess, message: _Message) -> None:
        if message.done < message.kept and logger.isEnabledFor(logging.DEBUG):
            self._show(message, runner.read_log(message.log_shown, max(0, runner.log_size() - message.log_shown)))

    def _watch_output(self, runner: RunnerProcess, message: _Message) -> None:
        size = runner.log_size()
        if size > message.log_shown and logger.isEnabledFor(logging.DEBUG):
            new = runner.read_log(message.log_shown, size - message.log_shown)
            runner.drain()
            if next(wire.iter_frame_ends(runner.buffer), 0):
                return  # the call has ended meanwhile, and this may be the next one's
            self._show(message, new[: new.rfind(b"\n") + 1])
            message.log_shown += new.rfind(b"\n") + 1
        if size > _LOG_LIMIT:
            if not message.log_head:
                message.log_head = runner.read_log(0, LOG_HEAD)
                message.log_dropped = -LOG_HEAD
            message.log_dropped += runner.cut_log()
            message.log_shown = 0

    def _last_words(self, runner: RunnerProcess, message: _Message) -> bytes:
        size = runner.log_size()
        if size <= LOG_HEAD + LOG_TAIL and not message.log_head:
            return runner.read_log(0, size)
        head = message.log_head or runner.read_log(0, LOG_HEAD)
        tail = runner.read_log(max(0, size - LOG_TAIL), LOG_TAIL)
        return shorten(head, tail, message.log_dropped + max(0, size - LOG_TAIL))
