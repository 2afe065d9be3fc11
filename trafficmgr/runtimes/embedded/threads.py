"""Several things at once, and work in a thread that must not be left half done."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

_Result = TypeVar("_Result")


async def all_of(several: Iterable[Awaitable[_Result]]) -> list[_Result]:
    """Wait for all of them, then raise the first error if there was one, as it is.

    Not a TaskGroup: that would cancel the others and wrap the error.
    """
    results = await asyncio.gather(*several, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]


async def to_its_end(work: Callable[..., None], *args: object) -> None:
    """Run it in a thread; if cancelled, wait for its end first.

    What a thread does goes on anyway, and a stop must not remove a folder under it. Here that is
    some 20 ms.
    """
    future = asyncio.get_running_loop().run_in_executor(None, work, *args)
    try:
        await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        future.exception()  # of no interest any more
        raise
