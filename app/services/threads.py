"""Blocking calls on threads of their own."""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")


async def on_thread(work: Callable[[], Answer], name: str) -> Answer:
    """Call it on a thread that nobody waits for when we are cancelled, nor at the end of the process: a resolver or a
    mail server may take as long as it likes. Raises what it raises."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Answer] = loop.create_future()

    def tell(value: Answer | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(value)  # type: ignore[arg-type]  # without an error it is the answer
        else:
            done.set_exception(error)

    def run() -> None:
        value, failure = None, None
        try:
            value = work()
        except Exception as error:  # whatever it is, it is for the one who waits
            failure = error
        try:
            loop.call_soon_threadsafe(tell, value, failure)
        except RuntimeError:  # the loop is closed; nobody waits
            return

    threading.Thread(target=run, name=name, daemon=True).start()
    return await done
