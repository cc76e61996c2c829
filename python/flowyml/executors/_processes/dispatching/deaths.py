"""What a dead worker leaves: the step to blame, and the steps to give back.

The step it claimed last is guilty, unless its result is in; whatever it has delivered was taken over before. A worker
that dies before it has begun a step is nobody's fault, until that happens again and again.

A torn worker, whose results ring holds something other than its results, has begun steps whose results cannot be read.
The first of them is guilty: the invalid record is in the place of its result. All others are given back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowyml.errors import ExecutorError, WorkerLostError, describe_exit

if TYPE_CHECKING:
    from flowyml.executors._processes.dispatching.member import Member
    from flowyml.executors._processes.dispatching.outcomes import Outcomes
    from flowyml.running.run import Run

# Workers that die one after the other without having begun a step: something is wrong with starting, not with a step.
_MOST_FALSE_STARTS = 3
# Steps that are blamed for such deaths before the run is given up.
_MOST_BLAMED = 3
_TORN = "something wrote into the shared memory of its results (ctypes? an extension module?), so it was ended"


class Deaths:
    """The deaths of one run's workers.

    Args:
        run: The run.
        outcomes: Gets the steps that are to blame.
    """

    def __init__(self, run: Run, outcomes: Outcomes) -> None:
        self._run = run
        self._outcomes = outcomes
        self._false_starts = 0

    def note_result(self) -> None:
        """Workers do begin steps."""
        self._false_starts = 0

    def settle(self, member: Member) -> bool:
        """Blame the step that a dead worker was in, and give back what it has not begun; tell whether a step failed.

        Raises:
            ExecutorError: Workers die one after the other, and it is no step's fault.
        """
        guilty = member.worker.claims.last_claimed() if member.begun else None
        if member.torn and guilty is not None:
            guilty = member.postings[0].first + member.postings[0].left
        verdict = member.verdict
        if verdict is not None and verdict.slot is None and verdict.reason is not None:
            self._count_end(verdict.reason)
        elif guilty is None and member.postings and verdict is None:
            guilty = self._count_false_start(member)
        failed = False
        for posting in list(member.postings):
            if guilty is not None and posting.first + posting.left <= guilty < posting.first + posting.count:
                error = self._reason(member, guilty, posting.batch.item(posting.done))
                failed = self._outcomes.fail(posting, error, member.began)
            left = posting.count - posting.left
            if left > 0:
                self._run.scheduler.give_back(posting.batch, posting.left, left)
        member.postings.clear()
        return failed

    def _reason(self, member: Member, guilty: int, item: int) -> BaseException:
        """Say why the step in a slot took its worker along."""
        verdict = member.verdict
        if verdict is not None and verdict.slot == guilty and verdict.reason is not None:
            return verdict.reason
        reason = _TORN if member.torn else None
        return WorkerLostError(self._run.item_name(item), member.worker.exitcode, reason)

    def _count_false_start(self, member: Member) -> int | None:
        """Return the slot to blame when workers die again and again before they begin a step.

        Something that comes before a step may be its own: an argument that takes all memory, a module that crashes when
        it is imported. So the step that was next is blamed at every third death; and nobody any more when that does
        not help either. What comes before the initializer has ended is no step's.
        """
        self._false_starts += 1
        started = member.ready and member.initialized
        if self._false_starts >= _MOST_FALSE_STARTS * (_MOST_BLAMED + 1) or not started:
            self._check_starts(member)
        first = member.postings[0]
        return first.first + first.done if started and self._false_starts % _MOST_FALSE_STARTS == 0 else None

    def _count_end(self, reason: BaseException) -> None:
        """Give the run up if workers have to be ended again and again before they begin a step.

        Raises:
            ExecutorError: They were, for this reason.
        """
        self._false_starts += 1
        if self._false_starts >= _MOST_FALSE_STARTS:
            raise reason

    def _check_starts(self, member: Member) -> None:
        """Give the run up if workers do not even start.

        Raises:
            ExecutorError: They died one after the other.
        """
        if self._false_starts >= _MOST_FALSE_STARTS:
            if member.ready and not member.initialized:
                raise ExecutorError(
                    f"{self._false_starts} worker processes died one after the other in the initializer, the last one: "
                    f"{describe_exit(member.worker.exitcode)}"
                )
            how = "before they began a step" if member.ready else "when they started"
            lost = WorkerLostError(self._run.item_name(member.postings[0].batch.item(0)), member.worker.exitcode)
            raise ExecutorError(
                f"{self._false_starts} worker processes died one after the other {how}; the last step was: {lost}"
            )
