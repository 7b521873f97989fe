"""Turns events into wake-ups: a listener, so that use cases know nothing of sockets."""

from app.core import events
from app.core.events import EventBus
from app.core.task import Status
from app.services.wakeup import CANCELS, CHANGES, QUEUES, Wakeup


class HintSubscriber:
    """Wakes workers when there is work or something to cancel, and API processes when anything changed."""

    def __init__(self, bus: EventBus, wakeup: Wakeup) -> None:
        self._wakeup = wakeup
        bus.subscribe(events.TasksSubmitted, self._work)
        bus.subscribe(events.TaskRetried, self._work_and_change)
        bus.subscribe(events.TaskEdited, self._work_and_change)
        bus.subscribe(events.TasksRequeued, self._work_and_change)
        bus.subscribe(events.TasksPromoted, self._work_and_change)
        bus.subscribe(events.TasksSettled, self._settled)
        bus.subscribe(events.BreakerClosed, self._work)
        bus.subscribe(events.BreakerReset, self._work)
        bus.subscribe(events.TaskCancelRequested, self._cancel)
        for kind in (
            events.TasksClaimed,
            events.TaskProgressed,
            events.TaskCancelled,
            events.TaskDeleted,
            events.DeadLettersPurged,
            events.TasksExpired,
        ):
            bus.subscribe(kind, self._change)

    def _work(self, event: object) -> None:
        self._wakeup.notify(QUEUES)

    def _change(self, event: object) -> None:
        self._wakeup.notify(CHANGES)

    def _work_and_change(self, event: object) -> None:
        self._work(event)
        self._change(event)

    def _settled(self, event: events.TasksSettled) -> None:
        if any(one.change.status is Status.PENDING for one in event.settlements):
            self._work(event)
        self._change(event)

    def _cancel(self, event: object) -> None:
        self._wakeup.notify(CANCELS)
        self._change(event)
