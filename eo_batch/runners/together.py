"""torchrun, but its exit code says how the processes ended; torchrun's own is 1 whatever happened.

    python3 -m eo_batch.runners.together --nnodes=2 … --no-python eo-batch slice …

A slice whose shards were given up for good has noted so in the store: nothing is left to run, and 0 tells Kubernetes
so; any other code would start the whole gang again.
"""

import logging
import sys
from collections.abc import Sequence
from typing import Any

from eo_batch.runners.base import DO_NOT_RETRY, POLITE_STOP


def together(argv: Sequence[str]) -> int:
    """Run torchrun with these arguments; returns what this process is to end with. The last line that is printed is the
    one with which the processes ended: Kubernetes keeps it."""
    import torch.distributed.run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    torchrun: Any = torch.distributed.run  # has no types
    try:
        torchrun.run(torchrun.parse_args(list(argv)))
    except SignalException:
        return POLITE_STOP
    except ChildFailedError as error:
        codes = {failure.exitcode for failure in error.failures.values() if failure.exitcode > 0}
        if codes == {DO_NOT_RETRY}:
            return 0
        if len(codes) == 1:  # others were killed by torchrun, because this one had failed
            return codes.pop()
        rank, first = error.get_first_failure()
        if first.exitcode < 0:
            print(f"process {rank} was killed by signal {-first.exitcode}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(together(sys.argv[1:]))
