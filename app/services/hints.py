"""Turns events into wake-ups: a listener, so that use cases know nothing of sockets."""

from collections import Counter
from collections.abc import Collection, Mapping

from app.core import events
from app.core.events import EventBus
from app.core.task import Status, Task
from app.services.wakeup import CANCELS, CHANGES, Wakeup


class HintSubscriber:
    """Wakes workers when there is work or something to cancel, and API processes when anything changed."""

    def __init__(self, bus: EventBus, wakeup: Wakeup) -> None:
        self._wakeup = wakeup
        # Before it is logged and counted: an idle worker wakes up meanwhile.
        bus.subscribe(
            events.TasksSubmitted, lambda event: self._work(Counter(task.queue for task in event.tasks)), first=True
        )
        for unblocked in (events.BreakerClosed, events.BreakerReset, events.QueueChanged, events.QueuePlacesFreed):
            bus.subscribe(unblocked, lambda event: self._work({}))
        bus.subscribe(events.TaskRetried, lambda event: self._ready_again(event.task))
        bus.subscribe(events.TaskEdited, lambda event: self._ready_again(event.task))
        bus.subscribe(events.TasksRequeued, lambda event: self._work_and_change({}, event.ids))
        bus.subscribe(events.TasksAdmitted, lambda event: self._work_and_change({}, event.ids))
        bus.subscribe(
            events.TasksPromoted, lambda event: self._work_and_change(dict.fromkeys(event.queues, event.count), ())
        )
        bus.subscribe(events.TasksSettled, self._settled)
        bus.subscribe(events.TasksClaimed, lambda event: self._change([task.id for task in event.tasks]))
        bus.subscribe(events.TaskProgressed, lambda event: self._change(event.ids))
        bus.subscribe(events.TaskCancelRequested, self._cancel)
        bus.subscribe(events.TaskCancelled, lambda event: self._change([event.task.id]))
        bus.subscribe(events.TaskDeleted, lambda event: self._change([event.task.id]))
        bus.subscribe(events.DeadLettersPurged, lambda event: self._change(event.ids))
        bus.subscribe(events.TasksExpired, lambda event: self._change(event.ids))

    def _work(self, came: Mapping[str, int]) -> None:
        """So many tasks came into each queue; empty where that is not known."""
        self._wakeup.call_workers(came)

    def _change(self, ids: Collection[int]) -> None:
        self._wakeup.notify(CHANGES, ids)

    def _work_and_change(self, came: Mapping[str, int], ids: Collection[int]) -> None:
        self._work(came)
        self._change(ids)

    def _ready_again(self, task: Task) -> None:
        self._work_and_change({task.queue: 1}, [task.id])

    def _settled(self, event: events.TasksSettled) -> None:
        back = [one.queue for one in event.settlements if one.change.status is Status.PENDING]
        if back:
            self._work(Counter(back))
        self._change([one.change.id for one in event.settlements])

    def _cancel(self, event: events.TaskCancelRequested) -> None:
        self._wakeup.notify(CANCELS)
        self._change([event.task.id])
