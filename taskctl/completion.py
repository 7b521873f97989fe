"""What the shell offers when a task type or a queue is to be named: those there are, if the service says so quickly."""

import os
from collections.abc import Callable, Iterable

from taskclient import Client, ClientError
from taskclient.connection import DEFAULT_URL
from taskctl.session import API_KEY, URL

LONGEST_SECONDS = 2.0


def task_types(incomplete: str) -> list[str]:
    return _beginning_with(incomplete, lambda client: (one.task_type for one in client.task_types()))


def queues(incomplete: str) -> list[str]:
    return _beginning_with(incomplete, lambda client: (one.queue for one in client.queues()))


def breakers(incomplete: str) -> list[str]:
    return _beginning_with(incomplete, lambda client: (one.name for one in client.breakers.list()))


def _beginning_with(incomplete: str, names: Callable[[Client], Iterable[str]]) -> list[str]:
    """A shell that completes says nothing about a service that is not there."""
    url, key = os.environ.get(URL, DEFAULT_URL), os.environ.get(API_KEY)
    try:
        with Client(url, api_key=key or None, timeout=LONGEST_SECONDS, retries=0) as client:
            return [name for name in names(client) if name.startswith(incomplete)]
    except (ClientError, ValueError):
        return []
