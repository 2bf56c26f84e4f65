"""What shall happen for a FineTuneJob, decided from what is there and never from what happened.

`plan_finetunejob` reads top to bottom: leftovers of another spec, the history brought up to date, then the first of these that
holds: an attempt runs; the store is silent; a result lies there; the job is suspended; it failed for good; the next attempt must
wait; the data must be prepared; the run must be sized and trained. The output folder in the store is the only memory that counts:
whatever was finished there is never done again, by whichever object or operator.

Rejected: a state machine over status.phase. It has to be right about every edge, and a lost write leaves it in a state that
nothing leads out of.
"""

from tuningfork.planning.finetunejob._plan import is_settled, plan_finetunejob
from tuningfork.planning.finetunejob.observed import Observed

__all__ = ["Observed", "is_settled", "plan_finetunejob"]
