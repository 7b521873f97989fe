"""Files and the tasks that keep them: who goes when."""

from datetime import timedelta

import pytest

from app.core.errors import Conflict, InvalidRequest, NotFound, StoreUnavailable
from app.core.file import Role, StoredFile, content_type_of, label_of
from app.core.lifecycle import Completed, Errored, Lost, Outcome
from app.core.settings import Settings
from app.core.task import JsonText
from app.models import checks
from app.models.sqlite import GuardedConnection, sqlite
from app.services.submissions import Submission
from app.services.wiring import Services
from tests.conftest import FrozenClock, both_places
from tests.file_places import names_in
from tests.services.conftest import Claim, Settle, lose_leases

__all__ = ["both_places"]

DAY = 86400.0
DONE = Completed(JsonText("1"))


async def upload(services: Services, data: bytes = b"data", name: str = "a.txt") -> StoredFile:
    async with await services.files.receive() as reception:
        await reception.write(data)
        return await reception.finish(name, "text/plain")


async def submit(services: Services, *file_ids: str, task_type: str = "copy_file") -> list[int]:
    new = [
        services.intake.prepare(Submission(task_type=task_type, payload={"file_id": file_id} if file_id else {}))
        for file_id in file_ids
    ]
    return [(await services.tasks.submit(one)).task.id for one in new]


def on_disk(services: Services) -> set[str]:
    """The names of all that is in the folder, or the bucket, of files."""
    return names_in(services.settings)


async def is_there(services: Services, file_id: str) -> bool:
    await services.files.collect()
    try:
        await services.files.get(file_id)
    except NotFound:
        assert file_id not in on_disk(services)
        return False
    with await services.files.open(file_id) as stream:
        assert stream.read()
    return True


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("photo.jpg", "photo.jpg"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\x\\photo.jpg", "photo.jpg"),
        ("Ä ö.txt", "Ä ö.txt"),
        ("a\x00b\n.txt", "ab.txt"),
        ("x" * 300, "x" * 255),
        ("..", "file"),
        ("  ", "file"),
        ("", "file"),
        (None, "file"),
        ("\u202egpj.exe", "gpj.exe"),
    ],
)
def test_a_name_from_outside_becomes_a_label(name: str | None, label: str) -> None:
    assert label_of(name) == label


@pytest.mark.parametrize(
    ("declared", "content_type"),
    [
        ("image/png", "image/png"),
        ("Text/HTML; charset=utf-8", "text/html"),
        ("nonsense", "application/octet-stream"),
        ("a/b\r\nX: y", "application/octet-stream"),
        (None, "application/octet-stream"),
    ],
)
def test_a_declared_type_is_taken_only_if_it_is_one(declared: str | None, content_type: str) -> None:
    assert content_type_of(declared) == content_type


async def test_an_unused_file_goes_after_its_own_retention(services: Services, clock: FrozenClock) -> None:
    file = await upload(services)
    assert file.expires_at == clock() + timedelta(seconds=DAY)
    assert await services.files.get(file.id) == file
    clock.forward(DAY - 1)
    assert await is_there(services, file.id)
    clock.forward(2)
    with pytest.raises(NotFound):  # even before it is collected
        await services.files.get(file.id)
    assert not await is_there(services, file.id)


async def test_a_file_is_kept_as_long_as_any_task_that_names_it(services: Services, clock: FrozenClock) -> None:
    file = await upload(services)
    first, second = await submit(services, file.id, file.id)
    clock.forward(100 * DAY)
    assert (await services.files.get(file.id)).expires_at is None
    await services.tasks.delete(first)
    assert await is_there(services, file.id)
    await services.tasks.delete(second)
    assert not await is_there(services, file.id)


async def test_a_file_whose_bytes_are_gone_is_not_found(services: Services) -> None:
    file = await upload(services)
    services.files._store.remove(file.id)
    with pytest.raises(NotFound):
        await services.files.open(file.id)


async def test_pruning_a_task_takes_its_files_along(
    services: Services, claim: Claim, settle: Settle, clock: FrozenClock
) -> None:
    shared, own = await upload(services), await upload(services)
    await submit(services, shared.id, own.id)
    for task in await claim():
        await settle(task, DONE)
    clock.forward(7 * DAY - 1)
    (waiting,) = await submit(services, shared.id)
    clock.forward(2)
    await services.chores.prune()
    assert not await is_there(services, own.id)
    assert await is_there(services, shared.id)
    assert [one.id for one, _ in await services.files.of_task(waiting)] == [shared.id]


async def test_a_task_cannot_name_a_file_that_is_not_there(services: Services, clock: FrozenClock) -> None:
    file = await upload(services)
    clock.forward(DAY + 1)
    for missing in (file.id, "0" * 32):
        with pytest.raises(InvalidRequest, match=f"names no file: there is no {missing}"):
            await submit(services, missing)
    new = [
        services.intake.prepare(Submission(task_type="copy_file", payload={"file_id": name} if name else {}))
        for name in ("", "0" * 32)
    ]
    with pytest.raises(InvalidRequest) as refused:
        await services.tasks.submit_all(new)
    assert refused.value.errors[0]["location"] == ["tasks", 1, "payload"]


async def test_bulk_submissions_keep_their_files_too(services: Services, clock: FrozenClock) -> None:
    file = await upload(services)
    new = [services.intake.prepare(Submission(task_type="copy_file", payload={"file_id": file.id})) for _ in range(2)]
    ids = await services.tasks.submit_all(new)
    assert [one.id for one, _ in await services.files.of_task(ids[1])] == [file.id]
    assert (await services.files.get(file.id)).expires_at is None


async def test_a_file_that_a_task_keeps_cannot_be_deleted(services: Services) -> None:
    file, other = await upload(services), await upload(services)
    (task_id,) = await submit(services, file.id)
    with pytest.raises(Conflict, match=f"Task {task_id} keeps"):
        await services.files.delete(file.id)
    await services.files.delete(other.id)
    assert on_disk(services) == {file.id}
    with pytest.raises(NotFound):
        await services.files.delete(other.id)


async def saved(services: Services, task_id: int, lease: int, *, temporary: bool = False) -> tuple[StoredFile, bool]:
    """What an attempt does: it writes the bytes itself, then has them kept."""
    with services.files._store.create(100) as draft:
        draft.write(b"result")
        sha256 = draft.commit()
    file = StoredFile(draft.id, "out", 6, "text/plain", sha256, services.database.clock()())
    return file, await services.files.keep(task_id, lease, file, temporary=temporary)


@pytest.mark.parametrize("outcome", [DONE, Errored("E", "no", retryable=False)])
async def test_what_an_attempt_saved_lives_with_its_task_and_temporary_files_until_its_end(
    services: Services, claim: Claim, settle: Settle, clock: FrozenClock, outcome: Outcome
) -> None:
    (task_id,) = await submit(services, "")
    (task,) = await claim()
    output, kept = await saved(services, task.id, task.lease)
    temporary, _ = await saved(services, task.id, task.lease, temporary=True)
    assert kept
    assert {role for _, role in await services.files.of_task(task_id)} == {Role.OUTPUT, Role.TEMPORARY}
    assert await is_there(services, temporary.id)
    await settle(task, outcome, saved_files=True)
    assert not await is_there(services, temporary.id)
    clock.forward(6 * DAY)
    assert await is_there(services, output.id)
    await services.tasks.delete(task_id)
    assert not await is_there(services, output.id)


async def test_temporary_files_are_there_for_the_next_attempt(
    services: Services, claim: Claim, settle: Settle, clock: FrozenClock
) -> None:
    await submit(services, "")
    (first,) = await claim()
    temporary, _ = await saved(services, first.id, first.lease, temporary=True)
    await settle(first, Lost("killed"), saved_files=True)
    clock.forward(10)
    await services.chores.promote()
    assert await is_there(services, temporary.id)
    (second,) = await claim()
    await settle(second, DONE)
    assert not await is_there(services, temporary.id)


async def test_temporary_files_of_a_task_that_is_swept_for_the_last_time_go(
    services: Services, claim: Claim, clock: FrozenClock
) -> None:
    new = services.intake.prepare(Submission(task_type="copy_file", max_attempts=1))
    await services.tasks.submit(new)
    (task,) = await claim()
    temporary, _ = await saved(services, task.id, task.lease, temporary=True)
    await lose_leases(services, clock)
    assert (await services.tasks.get(task.id)).finished
    assert not await is_there(services, temporary.id)


async def test_a_late_attempt_saves_nothing(
    services: Services, claim: Claim, settle: Settle, clock: FrozenClock
) -> None:
    await submit(services, "")
    (task,) = await claim()
    await settle(task, DONE)
    file, kept = await saved(services, task.id, task.lease)
    assert not kept
    assert on_disk(services) == set()
    with pytest.raises(NotFound):
        await services.files.get(file.id)


async def test_an_attempt_that_lost_its_lease_saves_nothing_though_its_task_and_others_run(
    services: Services, claim: Claim, settle: Settle, clock: FrozenClock
) -> None:
    await submit(services, "", "")
    lost, ended = await claim()
    await settle(lost, Lost("killed"))
    await settle(ended, DONE)
    clock.forward(10)
    await services.chores.promote()
    (again,) = await claim()
    await submit(services, "")
    (other,) = await claim()
    assert (again.id, again.lease, other.lease) == (lost.id, lost.lease + 1, ended.lease)
    for late in (lost, ended):  # there is a newer lease of the one, and another task has such a lease as the other
        _, kept = await saved(services, late.id, late.lease)
        assert not kept
    assert on_disk(services) == set()


async def test_a_file_may_be_saved_twice_where_only_the_answer_was_lost(services: Services, claim: Claim) -> None:
    await submit(services, "")
    (task,) = await claim()
    file, _ = await saved(services, task.id, task.lease)
    assert await services.files.keep(task.id, task.lease, file, temporary=False)
    assert [(one.id, role) for one, role in await services.files.of_task(task.id)] == [(file.id, Role.OUTPUT)]


async def test_a_crash_between_bytes_and_row_is_made_good(services: Services, clock: FrozenClock) -> None:
    file = await upload(services)
    clock.forward(DAY + 1)
    services.files._store.remove(file.id)  # and here it died
    assert not await is_there(services, file.id)
    assert not await services.files.collect()


async def test_a_reception_that_is_not_finished_leaves_nothing(services: Services) -> None:
    async with await services.files.receive() as reception:
        await reception.write(b"x")
    assert on_disk(services) == set()


@pytest.mark.parametrize("store", ["sqlite"])
@pytest.mark.parametrize("carried_out", [True, False])
async def test_an_upload_whose_commit_fails_leaves_bytes_only_where_it_was_carried_out(
    services: Services, settings: Settings, monkeypatch: pytest.MonkeyPatch, carried_out: bool
) -> None:
    commit = GuardedConnection.commit

    def fail(self: GuardedConnection) -> None:
        if carried_out:
            commit(self)
        raise sqlite.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(GuardedConnection, "commit", fail)
        with pytest.raises(StoreUnavailable):
            await upload(services)
    async with services.database.read() as connection:
        stored = [file_id for file_id, _, _ in await checks.stored_files(connection)]
    assert len(stored) == carried_out
    assert names_in(settings) == set(stored)
