"""Several processes that do the same work at the same moment."""

import multiprocessing
import time
from collections.abc import Callable


def at_once(
    n: int,  # processes
    work: Callable[..., None],  # called with the process's number and `arguments`
    *arguments: object,
) -> list[int]:  # exit codes; minus the signal for one that was killed
    "Fork processes, which need not import anything again, and have all begin together."
    context = multiprocessing.get_context("fork")
    gate = context.Barrier(n)

    def begin(number: int) -> None:
        gate.wait()
        work(number, *arguments)

    children = [context.Process(target=begin, args=(number,)) for number in range(n)]
    for child in children:
        child.start()
    deadline = time.monotonic() + 120
    for child in children:
        child.join(max(0.0, deadline - time.monotonic()))
        child.kill()  # one that hangs
        child.join()
    return [child.exitcode for child in children]
