"""Every verb in every state, in any order, on the real services beside a small model: no difference, no broken promise."""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack, closing
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from app.core.settings import Settings
from app.services.wiring import open_services
from tests.chaos.conftest import SEED, amount, checked
from tests.chaos.model import VERBS, World, method_of, possible_pairs
from tests.conftest import SAMPLES, STORES, FrozenClock
from tests.stores import PostgresDatabases, Stores

Visited = Counter[tuple[str, str]]


class Stage:
    """One world with a loop of its own to run it in."""

    def __init__(self, folder: Path, stores: Stores, visited: Visited) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=folder))
        self.url = stores.again_now(self.folder)
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self.world: World = self.run(self._open(visited))

    async def _open(self, visited: Visited) -> World:
        settings = Settings(
            database_url=self.url,
            files_dir=self.folder / "files",
            executor_modules=(SAMPLES,),
            durability="relaxed",  # nobody pulls the plug here
        )
        clock = FrozenClock()
        services = await self._stack.enter_async_context(
            open_services(settings, clock=clock, monotonic=clock.monotonic)
        )
        return World(services, clock, visited)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(work)

    def close(self) -> None:
        self.run(self.world.close())
        self.run(self._stack.aclose())
        try:
            self.run(checked(self.url))
        finally:
            self._runner.close()


class Machine(RuleBasedStateMachine):
    """Hypothesis chooses; a failure is shown as the shortest list of steps that leads to it."""

    folder: ClassVar[Path]
    stores: ClassVar[Stores]
    visited: ClassVar[Visited] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage(self.folder, self.stores, self.visited)

    @rule(verb=st.sampled_from(VERBS), data=st.data())
    def do(self, verb: str, data: st.DataObject) -> None:
        self.stage.run(getattr(self.stage.world, verb)(lambda options: data.draw(st.sampled_from(options))))

    @invariant()
    def agrees(self) -> None:
        self.stage.run(self.stage.world.compare())

    def teardown(self) -> None:
        self.stage.close()


@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(("store", "examples"), [("sqlite", amount(40, 3000)), ("postgres", amount(6, 300))])
def test_the_services_do_what_the_model_says(tmp_path: Path, stores: Stores, examples: int) -> None:
    Machine.folder, Machine.stores = tmp_path, stores
    steps = 50
    run_state_machine_as_test(
        seed(SEED)(Machine),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            verbosity=Verbosity.quiet,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(f"{examples} examples of up to {steps} steps, {len(Machine.visited)} pairs, CHAOS_SEED={SEED}")


@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("quiet")
def test_every_verb_is_tried_in_every_state(tmp_path: Path, stores: Stores, random: Random) -> None:
    """The same by seeded chance, which is faster and shrinks nothing: a run that left out a possible pair proved nothing.
    After a while every other verb is one that could try a pair which nobody has met."""
    visited: Visited = Counter()
    possible = possible_pairs()
    freely = amount(12, 2000)
    worlds = 0
    while worlds < freely or (worlds < freely + 400 and possible - set(visited)):
        worlds += 1
        with closing(Stage(tmp_path, stores, visited)) as stage:
            for step in range(100):
                verbs: Sequence[str] = VERBS
                if worlds > freely and step % 2:
                    verbs = sorted({method_of(verb) for _, verb in possible - set(visited)}) or VERBS
                verb = random.choice(verbs)
                stage.run(getattr(stage.world, verb)(random.choice))
                stage.run(stage.world.compare())
    print(
        f"{worlds} worlds of 100 steps, {visited.total()} visits, {len(possible & set(visited))} of {len(possible)} pairs"
    )
    assert set(visited) - possible == set(), "the list of possible pairs is too short"
    assert possible - set(visited) == set(), "never tried"


Happened = list[tuple[str, tuple[int, ...]]]


@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("quiet")
def test_the_same_days_work_comes_to_the_same_on_every_store(
    tmp_path: Path, migrated: Path, postgres: PostgresDatabases, random: Random
) -> None:
    """One seeded list of operations on each store: the same rows, histories and events. Tasks are told apart by their order:
    PostgreSQL does not give out again the id of a submission that was refused."""
    seeds = random.random(), random.random()
    steps = amount(1000, 5000)
    told = [
        _day(tmp_path, Stores(kind, tmp_path, migrated, postgres if kind == "postgres" else None), steps, *seeds)
        for kind in STORES
    ]
    print(f"{steps} operations, {len(told[0][0])} tasks, {len(told[0][1])} events, CHAOS_SEED={SEED}")
    for one, other in zip(*told, strict=True):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            assert mine == theirs


def _day(folder: Path, stores: Stores, steps: int, operations: float, delays: float) -> tuple[list[Any], Happened]:
    """Every row with its history, and every event, of a day of `steps` operations."""
    chance, events = Random(operations), []
    with closing(Stage(folder, stores, Counter())) as stage:
        world = stage.world
        world.services.queue._random = world.services.queue._settler._random = Random(delays)
        publish = world.services.bus.publish
        world.services.bus.publish = lambda event: (events.append(event), publish(event))  # type: ignore[method-assign]
        for number in range(steps):
            stage.run(getattr(world, chance.choice(VERBS))(chance.choice))
            if number % 50 == 0:
                stage.run(world.compare())
        stage.run(world.compare())
        known = sorted({*world.tasks, *world.gone})
        place = {id_: number for number, id_ in enumerate(known)}
        rows = stage.run(world._reader.rows("SELECT * FROM tasks ORDER BY id"))
        history = stage.run(world._reader.rows("SELECT * FROM task_attempts ORDER BY task_id, lease"))
        return [
            *((place[row[0]], *map(_plain, row[1:])) for row in rows),
            *((place[row[0]], *map(_plain, row[1:])) for row in history),
        ], [(type(event).__name__, tuple(sorted(place[id_] for id_ in _ids(event)))) for event in events]


def _plain(value: Any) -> Any:
    """Both stores' word for the same: SQLite has no booleans."""
    return int(value) if isinstance(value, bool) else value


def _ids(event: Any) -> list[int]:
    """The tasks an event is about."""
    if hasattr(event, "settlements"):
        return [one.change.id for one in event.settlements]
    if hasattr(event, "claimed"):
        return [one.id for one in event.claimed]
    return list(getattr(event, "ids", ()) or ([event.task.id] if hasattr(event, "task") else []))
