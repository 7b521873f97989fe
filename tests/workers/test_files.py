"""Files that executors open and save, through real runners."""

import json

import pytest

from app.core.task import Status, Task
from app.services.wiring import Services
from tests.conftest import both_places, until
from tests.file_places import names_in
from tests.workers.conftest import Start

__all__ = ["both_places"]


async def upload(services: Services, data: bytes) -> str:
    async with await services.files.receive() as reception:
        await reception.write(data)
        return (await reception.finish("in.bin", None)).id


def on_disk(services: Services) -> set[str]:
    return names_in(services.settings)


async def test_an_executor_opens_an_uploaded_file_and_saves_another(start: Start) -> None:
    running = await start()
    source = await upload(running.services, b"x" * 1_000_000)
    task = await running.run("copy_file", payload={"file_id": source})
    result = json.loads(str(task.result))
    assert result["size"] == 1_000_000
    assert result["sha256"] == (await running.services.files.get(source)).sha256
    copy = await running.services.files.get(result["file_id"])
    assert (copy.name, copy.content_type) == ("copy of.txt", "text/plain")
    await running.services.files.collect()
    assert on_disk(running.services) == {source, copy.id}, "the temporary file goes with the end of the task"


async def test_async_executors_save_files_too(start: Start) -> None:
    running = await start()
    result = json.loads(str((await running.run("copy_file_shared")).result))
    with await running.services.files.open(result["file_id"]) as stream:
        assert stream.read() == b"shared"


@pytest.mark.parametrize(
    ("payload", "says"),
    [({"then": "fail"}, "on purpose"), ({"then": "large"}, "The file is larger than the limit of 1000 bytes.")],
)
async def test_a_failed_attempt_keeps_what_it_saved_but_nothing_temporary(
    start: Start, payload: dict[str, str], says: str
) -> None:
    running = await start(max_output_bytes=1000)
    task = await running.run("copy_file", payload=payload)
    assert (task.status, task.attempts) == (Status.FAILED, 1)
    assert says in str(task.error)
    await running.services.files.collect()
    ((kept, _),) = await running.services.files.of_task(task.id)
    assert on_disk(running.services) == {kept.id}


async def test_a_file_that_has_gone_meanwhile_fails_the_attempt_at_once(start: Start) -> None:
    running = await start()
    source = await upload(running.services, b"x")
    running.services.files._store.remove(source)
    task = await running.run("copy_file", payload={"file_id": source})
    assert (task.status, task.attempts) == (Status.FAILED, 1)
    assert f"file {source} is not there" in str(task.error)


@pytest.mark.parametrize("place", ["folder"])
async def test_a_file_that_finds_no_room_costs_one_attempt_whatever_the_executor_tries_again(start: Start) -> None:
    """Here the folder of files is a file, so that nothing can be written."""
    running = await start()
    folder = running.services.settings.files_dir
    folder.write_text("in the way")
    task_id = await running.submit("save_stubbornly")

    async def failed_once() -> Task | None:
        task = await running.get(task_id)
        return task if task.error else None

    task = await until(failed_once)
    assert "The folder of files is not available: Not a directory" in str(task.error)
    folder.unlink()
    assert (await running.ended(task_id)).status is Status.COMPLETED
