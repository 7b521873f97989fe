"""Looks at what surrounds a waiting task, and says why it waits. `core/explain` judges what was seen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from app.core import explain as core
from app.core.breaker import BreakerState, Circuit
from app.core.concurrency import Contender
from app.core.diagnosis import Hand
from app.core.explain import MOST_COUNTED, NAMED, Explanation, Facts, Reason
from app.core.limits import QueueRule
from app.core.slots import Kind
from app.core.task import WAITING, Status, Task
from app.models import concurrency as key_rows
from app.models import explain as rows
from app.models import limits as limit_rows
from app.models.database import Connection, Database
from app.services.breakers import Breakers
from app.services.insights import Insights, hand
from app.services.registry import ExecutorRegistry
from app.services.tallies import Tallies
from app.services.tasks import TaskService


@dataclass(frozen=True, slots=True)
class _Scene:
    """What surrounds the waiting tasks of one page."""

    hands: Sequence[Hand]
    kinds: Mapping[str, Kind]
    breakers: Mapping[int, tuple[Circuit, BreakerState]]
    rules: Mapping[str, QueueRule]
    running: Mapping[str, int]
    contenders: Mapping[str, Sequence[Contender]]
    firsts: Mapping[str, tuple[int, int]]

    def facts(self, task: Task) -> Facts:
        """What is before the task is not counted: only whether anything is."""
        circuit, state = self.breakers[task.id]
        return Facts(
            rule=self.rules.get(task.queue, QueueRule(task.queue)),
            hands=self.hands,
            kind=self.kinds[task.task_type],
            circuit=circuit,
            state=state,
            running=self.running.get(task.queue, 0),
            running_ids=(),
            held_ids=(),
            holders=_holders(self.contenders.get(task.concurrency_key or "", ())),
            key_ahead=0,
            ahead=int(self.firsts.get(task.queue, (task.rank, task.id)) < (task.rank, task.id)),
            drained_per_second=0.0,
            counted_to=1,
        )


class Explainer:
    """Answers why tasks have not started yet. Changes nothing; its cost does not grow with what waits."""

    def __init__(
        self,
        database: Database,
        registry: ExecutorRegistry,
        tasks: TaskService,
        breakers: Breakers,
        insights: Insights,
        tallies: Tallies,
    ) -> None:
        self._database = database
        self._registry = registry
        self._tasks = tasks
        self._breakers = breakers
        self._insights = insights
        self._tallies = tallies
        self._clock = database.clock()

    async def explain(self, task_id: int, tenant: str = "") -> Explanation:
        """Why this task waits. Raises NotFound, also for what is not of the tenant, if one is named."""
        task = await self._tasks.get(task_id, tenant)
        if task.status not in WAITING:
            return Explanation(task)
        hands = [hand(worker) for worker in await self._insights.workers_with_room()]
        circuit, state = (await self._behind([task], tenant))[task.id]
        async with self._database.read() as connection:
            # The others in its queue, and at the workers, may be anyone's.
            running = () if tenant else await rows.running(connection, task.queue, NAMED)
            able = [one.id for one in core.able(task, hands)]
            held = () if tenant else await rows.held(connection, able, NAMED)
            facts = await self._facts(connection, task, hands, circuit, state, running, held)
        return core.explain(task, facts, self._clock())

    async def first_reasons(self, tasks: Sequence[Task], tenant: str = "") -> dict[int, Reason]:
        """By id the first reason why each of these tasks waits, as the tenant may know it, if one is named; those that do not
        wait are missing. Asks the store a few times for all of them together."""
        waiting = [task for task in tasks if task.status in WAITING]
        if not waiting:
            return {}
        scene = await self._scene(waiting, tenant)
        now = self._clock()
        found = {task.id: core.first_reason(task, scene.facts(task), now) for task in waiting}
        return {task_id: reason for task_id, reason in found.items() if reason is not None}

    async def _scene(self, waiting: Sequence[Task], tenant: str) -> _Scene:
        queues = sorted({task.queue for task in waiting})
        types = sorted({task.task_type for task in waiting})
        keys = sorted(
            {task.concurrency_key for task in waiting if task.concurrency_key and task.status is Status.BLOCKED}
        )
        hands = [hand(worker) for worker in await self._insights.workers_with_room()]
        breakers = await self._behind(waiting, tenant)
        async with self._database.read() as connection:
            rules = await limit_rows.found(connection, queues)
            limited = [name for name, rule in rules.items() if rule.max_running is not None]
            running = await limit_rows.running(connection, limited) if limited else {}
            contenders = await key_rows.contenders(connection, keys)
            firsts = await rows.firsts(connection, queues, {*self._registry, *types})
        kinds = {task_type: self._kind(task_type) for task_type in types}
        return _Scene(hands, kinds, breakers, rules, running, contenders, firsts)

    async def _behind(self, tasks: Sequence[Task], tenant: str) -> Mapping[int, tuple[Circuit, BreakerState]]:
        """The breakers by task. A tenant is not told what opened one, nor who tries it: that may be another tenant's call, with
        its address and the answer to it."""
        found = await self._breakers.behind(tasks)
        if not tenant:
            return found
        return {id_: (replace(circuit, reason=None, let_through=()), state) for id_, (circuit, state) in found.items()}

    async def _facts(
        self,
        connection: Connection,
        task: Task,
        hands: list[Hand],
        circuit: Circuit,
        state: BreakerState,
        running_ids: tuple[int, ...],
        held_ids: tuple[int, ...],
    ) -> Facts:
        rules = await limit_rows.found(connection, [task.queue])
        running = await limit_rows.running(connection, [task.queue])
        types = sorted({*self._registry, task.task_type})
        drained = await self._tallies.drained(connection)
        return Facts(
            rule=rules.get(task.queue, QueueRule(task.queue)),
            hands=hands,
            kind=self._kind(task.task_type),
            circuit=circuit,
            state=state,
            running=running[task.queue],
            running_ids=running_ids,
            held_ids=held_ids,
            holders=await self._holders_of_key(connection, task),
            key_ahead=await rows.blocked_before(connection, task, MOST_COUNTED) if task.concurrency_key else 0,
            ahead=await rows.ahead(connection, task, types, MOST_COUNTED),
            drained_per_second=drained.get(task.queue, 0.0),
        )

    def _kind(self, task_type: str) -> Kind:
        return "shared" if self._insights.shares_runner(task_type) else "plain"

    async def _holders_of_key(self, connection: Connection, task: Task) -> tuple[int, ...]:
        """The tasks that have a place of its key."""
        if task.concurrency_key is None:
            return ()
        contenders = await key_rows.contenders(connection, [task.concurrency_key])
        return _holders(contenders.get(task.concurrency_key, ()))


def _holders(contenders: Sequence[Contender]) -> tuple[int, ...]:
    return tuple(sorted(one.id for one in contenders if one.status is not Status.BLOCKED))
