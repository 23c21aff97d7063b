"""Repair instead of throwing away: what came wrong is found by asking again, and only that is replaced.

When the whole object is not what was promised, nothing tells which of its parts is wrong. So every part is fetched a
second time without being stored, and compared with its record; where the two differ further answers are stored until
one digest came twice. Its bytes are then those in the output.

Whenever the process dies the output is as resumable as before: until the first part is replaced nothing has changed,
and a part that is being replaced is not marked. Meanwhile the checkpoint keeps that the object is in doubt, which is
the caller's to note, because the next run may be promised less.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fastdl.errors import IntegrityError
from fastdl.plan import Run
from fastdl.votes import Answers, Votes, named, runs_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastdl.checkpoint import Checkpoint
    from fastdl.plan import Plan
    from fastdl.result import Fetched

_MOST = 3  # times the object's bytes that a run may receive: the first answers, the second ones, all later ones
_SMALL = 1 << 20  # bytes of an object of which every part may be asked for once more
_ROUNDS = 8  # of answers after the second ones: who answers in so many ways will not stop
log = logging.getLogger("fastdl")


def repair(
    shown: str,
    plan: Plan,
    checkpoint: Checkpoint,
    fetched: Fetched,
    *,
    fetch: Callable[[Answers | None], None],
    verify: Callable[[], str],
    trusted: bool,
    why: IntegrityError,
) -> str:
    """Bring the output to what was promised of it; return what ``verify`` says then, and name the parts in ``fetched``.

    ``checkpoint`` holds a record of every part, true of the output but for parts that are ``trusted``. ``fetch`` asks
    the server for what the answers name; given None it compares the output with the records, and fetches what differs.

    Raises:
        IntegrityError: ``why``, and what fetching again showed: every part came as before, or some came in too many
            ways. Parts that were not settled are not marked any more.
    """
    if trusted:  # nobody has looked at them yet: they are the likeliest to be wrong
        reused, damaged = fetched.parts_reused, len(fetched.parts_damaged)
        fetch(None)
        fetched.parts_reused = reused - (len(fetched.parts_damaged) - damaged)
        try:
            return verify()
        except IntegrityError as error:
            why = error
    log.info("%s; every part is fetched again to find out which are wrong", why)
    votes = Votes(checkpoint.marks.digest)
    fetch(Answers(votes, [Run(0, plan.count)]))
    # Half of a large object: the rest of three times is for what servers send that nobody waits for any more.
    budget = min(plan.size, max(plan.size // 2, 2 * plan.part_size, _SMALL), _MOST * plan.size - fetched.bytes_fetched)
    settle(plan, checkpoint, fetch, votes, budget)
    if votes.undecided:
        raise IntegrityError(f"{why}; parts {named(votes.disputed)} came different again and again")
    if not votes.disputed:
        raise IntegrityError(
            f"{why}; fetched again, every part came as before: the promise is wrong, or the fault is always the same"
        )
    if votes.replaced:
        fetched.parts_repaired = tuple(sorted(votes.replaced))
        log.warning("%s: repaired: parts %s had come wrong", shown, named(votes.replaced))
    return verify()


def settle(
    plan: Plan, checkpoint: Checkpoint | None, fetch: Callable[[Answers], None], votes: Votes, budget: int
) -> int:
    """Fetch parts whose answers differ until one digest came twice, with at most ``budget`` bytes; return what is left.

    What is settled is stored, and marked in ``checkpoint``; what is not is unmarked, and still undecided in ``votes``.
    Without a checkpoint nothing is stored.
    """
    for _ in range(_ROUNDS):
        wanted = votes.undecided
        cost = sum(plan.part(index).nbytes for index in wanted)
        if not wanted or budget < cost:
            break
        budget -= cost
        if checkpoint is None:
            fetch(Answers(votes, runs_of(wanted)))
            continue
        for index in wanted:
            checkpoint.clear(index)
        fetch(Answers(votes, runs_of(wanted), checkpoint.mark))
    return budget
