"""When the stream is held, against a model of QEMU's passes."""

from __future__ import annotations

from dataclasses import dataclass

from followme.migration.convergence import BRAKE_TIME, END_OF_PASS, Convergence, Progress, Step

MB = 1 << 20
RATE = 100 * MB


@dataclass
class Machine:
    """A machine with ``memory`` bytes that writes ``dirty_rate`` bytes/s to a set of ``dirty_set`` bytes."""

    memory: int
    dirty_rate: float
    dirty_set: int
    now: float = 0.0
    number: int = 1
    passed: int = 0
    pass_began: float = 0.0
    remaining: int = 0

    def written(self) -> int:
        return int(min(self.dirty_rate * (self.now - self.pass_began), self.dirty_set))

    def send(self, size: int) -> None:
        size = min(size, self.remaining)
        self.now += max(size / RATE, 0.0005)
        self.passed += size
        self.remaining -= size
        if self.remaining == 0:
            self.remaining, self.number, self.pass_began = self.written(), self.number + 1, self.now

    def progress(self) -> Progress:
        return Progress(self.now, self.number, self.remaining, self.passed)


def run(machine: Machine, convergence: Convergence) -> Step:
    machine.remaining = machine.memory
    for _ in range(100_000):
        step = convergence.decide(machine.progress())
        if step in (Step.HOLD, Step.GIVE_UP):
            return step
        if step is Step.BRAKE:
            machine.now += 2 * BRAKE_TIME
        machine.send(int(RATE * 0.02) if step is Step.FREE else convergence.quantum)
    raise AssertionError("it never decides")


def left(machine: Machine) -> int:
    """What the pause would have to carry."""
    return machine.remaining + machine.written()


def test_an_idle_machine_is_held_in_the_second_pass_with_little_left() -> None:
    machine = Machine(200 * MB, 10 * MB, MB)
    assert run(machine, Convergence()) is Step.HOLD
    assert machine.number == 2
    assert machine.remaining > 0
    assert left(machine) <= RATE * 0.02


def test_it_is_held_before_a_pass_ends_never_after() -> None:
    # What is left at the hold is more than what may be on its way in buffers: QEMU cannot have gone on.
    for dirty in range(1, 60, 7):
        machine = Machine(100 * MB, dirty * MB, 32 * MB)
        assert run(machine, Convergence()) is Step.HOLD
        assert machine.remaining >= END_OF_PASS // 4


def test_a_busy_machine_takes_more_passes_and_still_pauses_briefly() -> None:
    machine = Machine(200 * MB, RATE * 0.5, 64 * MB)
    assert run(machine, Convergence()) is Step.HOLD
    assert machine.number > 3
    assert left(machine) <= RATE * 0.03


def test_a_long_first_pass_does_not_hide_how_fast_the_machine_writes() -> None:
    # In two seconds it wrote the same 16 MB over and over; it needs 0.1 s for them.
    machine = Machine(200 * MB, RATE * 1.6, 16 * MB)
    assert run(machine, Convergence(target_pause=0.02, max_pause=0.5)) is Step.HOLD
    assert machine.number > 3


def test_faster_than_the_path_with_a_small_set_pauses_for_that_set() -> None:
    machine = Machine(200 * MB, RATE * 3, 20 * MB)
    assert run(machine, Convergence(max_pause=0.5)) is Step.HOLD
    assert 0.05 < left(machine) / RATE < 0.5


def test_faster_than_the_path_with_a_large_set_is_given_up() -> None:
    machine = Machine(200 * MB, RATE * 3, 120 * MB)
    convergence = Convergence(max_pause=0.5)
    assert run(machine, convergence) is Step.GIVE_UP
    assert convergence.expected_pause > 0.5
    assert machine.number < 12
