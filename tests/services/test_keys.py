"""API keys are made, known, ended; and what a tenant's use cases see of others' tasks and files."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, text

from app.core.audit import COMMAND_LINE
from app.core.errors import Conflict, InvalidRequest, NotFound, UniqueKeyTaken
from app.core.keys import ApiKey, Scope, digest_of
from app.core.lifecycle import Edit, Errored
from app.models.audit import AuditFilter
from app.models.dead_letters import DeadFilter
from app.models.tasks import TaskFilter
from app.services import keys as keys_module
from app.services.keys import KeyRing
from app.services.submissions import Submission
from app.services.wiring import Services
from tests.conftest import FrozenClock, engines_of, until
from tests.services.conftest import Claim, Settle


def statements_of(services: Services) -> list[str]:
    """Every statement from now on, as it is executed."""
    seen: list[str] = []

    def executed(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    for engine in engines_of(services.database):
        event.listen(engine.sync_engine, "before_cursor_execute", executed)
    return seen


async def test_a_key_opens_until_it_is_revoked(services: Services) -> None:
    key, token = await services.keys.create("demo", [Scope.READ, Scope.SUBMIT], "north")
    await services.ring.load()
    assert await services.ring.holder(token) == key
    assert (key.scopes, key.tenant) == (("read", "submit"), "north")
    await services.keys.revoke(key.id)
    await services.ring.load()
    assert await services.ring.holder(token) is None
    assert services.ring.on, "the last key that ends must not open the door"


async def test_only_the_digest_of_a_secret_is_stored(services: Services) -> None:
    key, token = await services.keys.create("demo", [Scope.READ])
    secret = token.split(".")[1]
    async with services.database.read() as connection:
        (row,) = await connection.execute(text("SELECT * FROM api_keys"))
    assert secret not in str(row)
    assert digest_of(secret) == key.digest
    assert len(secret) == 43, "256 random bits"


async def test_a_key_expires(services: Services, clock: FrozenClock) -> None:
    _, token = await services.keys.create("demo", [Scope.READ], expires_in=timedelta(hours=1))
    await services.ring.load()
    clock.forward(3599.9)
    assert await services.ring.holder(token)
    clock.forward(0.1)
    assert await services.ring.holder(token) is None
    assert services.ring.on


async def test_a_key_made_just_now_is_good_at_once(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_module, "UNKNOWN_SECONDS", 0.0)
    await services.ring.load()
    _, token = await services.keys.create("demo", [Scope.READ])
    assert await services.ring.holder(token)


async def test_a_known_key_costs_no_statement_and_guesses_cost_next_to_none(services: Services) -> None:
    _, token = await services.keys.create("demo", [Scope.READ])
    await services.ring.load()
    seen = statements_of(services)
    for _ in range(100):
        assert await services.ring.holder(token)
        assert await services.ring.holder(f"{token.split('.')[0]}.{'x' * 43}") is None
    assert seen == []
    for number in range(100):
        assert await services.ring.holder(f"tk{number:012x}.{'x' * 43}") is None
    assert len(seen) <= 10


async def test_a_revoked_key_is_refused_as_soon_as_the_ring_looks_again(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_module, "REFRESH_SECONDS", 0.01)
    key, token = await services.keys.create("demo", [Scope.READ])
    ring = KeyRing(services.database, services.bus)
    await ring.load()
    running = asyncio.create_task(ring.run())
    assert await ring.holder(token)
    await services.keys.revoke(key.id)

    async def refused() -> bool:
        return await ring.holder(token) is None

    await until(refused)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    (stored,) = await services.keys.listed()
    assert stored.last_used_at, "what was used is written down at the end"


async def test_use_is_written_down_once_for_many_requests(services: Services) -> None:
    _, token = await services.keys.create("demo", [Scope.READ])
    await services.ring.load()
    for _ in range(50):
        await services.ring.holder(token)
    seen = statements_of(services)
    await services.ring.note_used()
    await services.ring.note_used()
    assert sum("UPDATE api_keys" in statement for statement in seen) == 1
    (stored,) = await services.keys.listed()
    assert stored.last_used_at == services.database.clock()()


async def test_keys_are_off_again_when_the_last_revoked_one_is_removed(services: Services) -> None:
    key, _ = await services.keys.create("demo", [Scope.READ])
    with pytest.raises(Conflict):
        await services.keys.remove(key.id)
    await services.keys.revoke(key.id)
    await services.keys.remove(key.id)
    with pytest.raises(NotFound):
        await services.keys.remove(key.id)
    await services.ring.load()
    assert not services.ring.on


async def _made(services: Services, tenant: str, **options: Any) -> ApiKey:
    key, _ = await services.keys.create("demo", [Scope.ADMIN], tenant, **options)
    return key


@pytest.fixture
def two_each(services: Services, monkeypatch: pytest.MonkeyPatch) -> Services:
    """A tenant may have two good keys."""
    monkeypatch.setattr(services.keys, "_most", 2)
    return services


async def test_a_tenant_may_have_so_many_good_keys(two_each: Services, clock: FrozenClock) -> None:
    first = await _made(two_each, "north")
    await _made(two_each, "north", expires_in=timedelta(hours=1))
    with pytest.raises(Conflict, match="MAX_KEYS_PER_TENANT"):
        await _made(two_each, "north")
    await two_each.keys.revoke(first.id)
    await _made(two_each, "north")
    with pytest.raises(Conflict):
        await _made(two_each, "north")
    clock.forward(3600)
    await _made(two_each, "north")
    await _made(two_each, "south")
    for _ in range(3):
        await _made(two_each, "")


async def test_of_keys_made_at_the_same_time_only_so_many_are(two_each: Services) -> None:
    made = await asyncio.gather(*(_made(two_each, "north") for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(one, ApiKey) for one in made) == 2
    assert len(await two_each.keys.listed("north")) == 2


async def test_a_tenant_that_makes_and_ends_keys_in_a_loop_leaves_only_so_many(
    two_each: Services, clock: FrozenClock
) -> None:
    theirs = await _made(two_each, "south")
    await two_each.keys.revoke(theirs.id)
    made = []
    for _ in range(5):
        key, _ = await two_each.keys.create("demo", [Scope.ADMIN], "north", by=COMMAND_LINE)
        clock.forward(1)
        await two_each.keys.revoke(key.id)
        made.append(key.id)
    made.append((await _made(two_each, "north")).id)
    assert [key.id for key in await two_each.keys.listed("north")] == made[
        -3:
    ], "the newest ended two, and the good one"
    assert len(await two_each.keys.listed("south")) == 1
    removed = [one.target for one in (await two_each.audit.search(AuditFilter(), 50)) if one.action == "key.remove"]
    assert removed == [f"key {id_}" for id_ in reversed(made[:2])]


async def test_a_tenant_ends_its_own_keys_alone(services: Services) -> None:
    key, _ = await services.keys.create("demo", [Scope.ADMIN], "north")
    with pytest.raises(NotFound):
        await services.keys.revoke(key.id, "south")
    assert await services.keys.listed("south") == []
    assert [one.id for one in await services.keys.listed("north")] == [key.id]
    assert (await services.keys.revoke(key.id, "north")).revoked_at
    assert (await services.keys.revoke(key.id, "north")).revoked_at, "twice is fine"


async def submitted(services: Services, tenant: str, key: str | None = None, **fields: Any) -> int:
    submission = Submission.model_validate({"task_type": "echo"} | fields)
    new = services.intake.prepare(submission, key, tenant=tenant)
    return (await services.tasks.submit(new)).task.id


async def test_another_tenants_task_is_not_there(services: Services) -> None:
    task_id = await submitted(services, "north")
    calls = (services.tasks.get, services.tasks.attempts, services.tasks.cancel, services.tasks.retry)
    for call in (*calls, services.tasks.delete):
        with pytest.raises(NotFound, match=rf"^There is no task {task_id}\.$"):
            await call(task_id, "south")
    with pytest.raises(NotFound):
        await services.tasks.edit(task_id, Edit({"priority": 5}), "south")
    for tenant, count in (("north", 1), ("south", 0), ("", 1)):
        found = await services.tasks.search(TaskFilter(tenant=tenant), 10, whole_rows=False)
        assert len(found) == count, tenant
        assert (await services.insights.stats(tenant)).ready == count
        assert len(await services.limits.listed(tenant)) == count
    assert (await services.tasks.get(task_id, "north")).tenant == "north"


async def test_each_tenant_has_its_own_unique_and_idempotency_keys(services: Services) -> None:
    ids = {tenant: await submitted(services, tenant, "same", unique_key="u") for tenant in ("", "north", "south")}
    assert len(set(ids.values())) == 3
    for tenant, task_id in ids.items():
        assert await submitted(services, tenant, "same", unique_key="u") == task_id, "repeated"
        with pytest.raises(UniqueKeyTaken) as taken:
            await submitted(services, tenant, unique_key="u")
        assert taken.value.holder_id == task_id
        with pytest.raises(UniqueKeyTaken):
            await services.tasks.submit_all(
                [services.intake.prepare(Submission(task_type="echo", unique_key="u"), tenant=tenant)]
            )
    for tenant, task_id in ids.items():
        await services.tasks.cancel(task_id, tenant)
    again = await submitted(services, "north", unique_key="u")
    with pytest.raises(UniqueKeyTaken):
        await services.tasks.retry(ids["north"], "north")
    assert (await services.tasks.retry(ids["south"], "south")).id == ids["south"]
    assert again not in ids.values()


async def test_a_parent_and_a_file_must_be_the_tenants_own(services: Services) -> None:
    parent = await submitted(services, "north")
    async with await services.files.receive("north") as reception:
        await reception.write(b"data")
        file = await reception.finish("a.txt", "text/plain")
    for tenant in ("south",):
        with pytest.raises(InvalidRequest, match=f"names no task: there is no {parent}"):
            await submitted(services, tenant, parent_id=parent)
        with pytest.raises(InvalidRequest, match=f"names no file: there is no {file.id}"):
            await submitted(services, tenant, task_type="copy_file", payload={"file_id": file.id})
        with pytest.raises(NotFound):
            await services.files.get(file.id, tenant)
        with pytest.raises(NotFound):
            await services.files.delete(file.id, tenant)
    for tenant in ("north", ""):
        assert await submitted(services, tenant, parent_id=parent)
        assert await submitted(services, tenant, task_type="copy_file", payload={"file_id": file.id})
        assert (await services.files.get(file.id, tenant)).tenant == "north"


async def test_dead_letters_are_the_tenants_own(services: Services, claim: Claim, settle: Settle) -> None:
    ids = {tenant: await submitted(services, tenant) for tenant in ("north", "south")}
    for task in await claim():
        await settle(task, Errored("ValueError", "no good", retryable=False))
    letters = services.dead_letters
    assert [task.id for task in await letters.search(DeadFilter(tenant="north"), 10)] == [ids["north"]]
    total, groups = await letters.groups(DeadFilter(tenant="north"), 10)
    assert (total, [group.task_ids for group in groups]) == (1, [(ids["north"],)])
    for act in (letters.requeue, letters.purge):
        report = await act(DeadFilter(tenant="north", ids=(ids["south"],)), dry_run=False)
        assert report.matched == 0
    report = await letters.requeue(DeadFilter(tenant="north"), dry_run=False)
    assert report.task_ids == [ids["north"]]
    assert (await services.insights.stats("south")).failed == 1
    assert (await services.insights.stats("north")).failed == 0


async def test_what_an_attempt_saves_is_its_tasks_tenants(services: Services, claim: Claim) -> None:
    await submitted(services, "north")
    (task,) = await claim()
    async with await services.files.receive() as reception:
        await reception.write(b"data")
        file = await reception.finish("a.txt", "text/plain")
    await services.files.delete(file.id)
    assert await services.files.keep(task.id, task.lease, file, temporary=False)
    assert (await services.files.get(file.id, "north")).tenant == "north"
    with pytest.raises(NotFound):
        await services.files.get(file.id, "south")
