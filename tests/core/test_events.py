import pytest
import structlog

from app.core.events import EventBus, TasksPruned, WorkerStopped


def test_listeners_hear_the_events_of_their_class_in_order() -> None:
    bus, heard = EventBus(), []
    bus.subscribe(TasksPruned, lambda event: heard.append(("first", event.count)))
    bus.subscribe(TasksPruned, lambda event: heard.append(("second", event.count)))
    bus.publish(TasksPruned(3))
    bus.publish(WorkerStopped("w"))
    assert heard == [("first", 3), ("second", 3)]


def test_a_listener_that_fails_is_logged_and_the_others_still_hear() -> None:
    heard: list[int] = []

    def fail(event: TasksPruned) -> None:
        raise RuntimeError("broken")

    with structlog.testing.capture_logs() as lines:
        bus = EventBus()
        bus.subscribe(TasksPruned, fail)
        bus.subscribe(TasksPruned, lambda event: heard.append(event.count))
        bus.publish(TasksPruned(1))
    assert heard == [1]
    assert [line["event"] for line in lines] == ["a listener failed"]


@pytest.mark.parametrize("event", [TasksPruned(1)])
def test_an_event_cannot_be_changed(event: TasksPruned) -> None:
    with pytest.raises(AttributeError):
        event.count = 2  # type: ignore[misc]
