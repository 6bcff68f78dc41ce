"""Random interleavings of instances that take, renew, lose and give back the lease, on clocks that differ and jump.

Whatever the order: what is stored was stored by the one whose epoch was the greatest at that moment.
"""

from __future__ import annotations

import datetime as dt
import tempfile
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from d365sync.errors import LeaseLostError
from d365sync.journal.lease import Lease
from d365sync.journal.store import Journal
from d365sync.mirror.store import Mirror
from tests.effort import examples

START = dt.datetime(2026, 11, 20, 9, tzinfo=dt.UTC)
TTL = dt.timedelta(seconds=30)
STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["take", "renew", "release", "write", "wait", "skew"]),
        st.integers(-40, 40),
    ),
    max_size=40,
)


@dataclass
class Instance:
    journal: Journal
    mirror: Mirror
    name: str
    skew: dt.timedelta = dt.timedelta(0)
    lease: Lease | None = None


@dataclass
class World:
    instances: list[Instance]
    now: dt.datetime = START
    owner: str | None = None
    epochs: list[int] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)

    def step(self, one: Instance, action: str, number: int) -> None:
        if action == "wait":
            self.now += dt.timedelta(seconds=abs(number))
        elif action == "skew":
            one.skew = dt.timedelta(seconds=number)
        else:
            getattr(self, action)(one)

    def take(self, one: Instance) -> None:
        held = one.journal.lease()
        lease = one.journal.acquire_lease(one.name, self.now + one.skew, TTL)
        free = held is None or held.until <= self.now + one.skew
        assert (lease is not None) == free
        if lease is not None:
            self.epochs.append(lease.epoch)
            self.owner, one.lease = one.name, lease
            one.journal.fence(lease)
            one.mirror.fence(lease.epoch)

    def renew(self, one: Instance) -> None:
        if one.lease is None:
            return
        try:
            one.lease = one.journal.renew_lease(one.lease, self.now + one.skew, TTL)
        except LeaseLostError:
            assert self.owner != one.name
        else:
            assert self.owner == one.name

    def release(self, one: Instance) -> None:
        if one.lease is not None:
            one.journal.release_lease(one.lease)
            self.owner = None if self.owner == one.name else self.owner

    def write(self, one: Instance) -> None:
        if one.lease is None:
            return
        mine = self.owner == one.name
        try:
            run = one.journal.start_run(one.name, "override", START)
        except LeaseLostError:
            assert not mine
        else:
            assert mine
            self.stored.append(run)
        try:
            one.mirror.belong_to("https://a.test", one.name)
        except LeaseLostError:
            assert one.lease.epoch < max(self.epochs)
        else:
            assert one.lease.epoch == max(self.epochs)


@settings(max_examples=examples(25), deadline=None)
@given(STEPS)
def test_only_the_holder_of_the_greatest_epoch_stores_anything(steps: list[tuple[int, str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        instances = [
            Instance(
                Journal.open(f"sqlite:///{folder}/journal.db"),
                Mirror.open(f"sqlite:///{folder}/mirror.db"),
                f"i{number}",
            )
            for number in range(3)
        ]
        try:
            world = World(instances)
            for number, action, amount in steps:
                world.step(instances[number], action, amount)
            assert world.epochs == sorted(set(world.epochs))
            assert {run.id for run in instances[0].journal.runs(99)} == set(world.stored)
        finally:
            for one in instances:
                one.journal.close()
                one.mirror.close()
