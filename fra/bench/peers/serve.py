"""What the process of a peer does: prepare its work once, then run rounds of it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable

import torch

from fra.bench.measure import Work, measure


def serve(prepare: Callable[..., Work]) -> None:
    """Runs a round of a peer's work for each line of standard input, and prints its measurement as JSON.

    Args:
        prepare: Returns the work; its arguments are the JSON object on the command line. Warm-up is part of it.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what packages print is no answer
    settings = json.loads(sys.argv[1])
    device = torch.device(settings.get("device", "cpu"))
    work = prepare(**settings)
    print(json.dumps("ready"), file=answers, flush=True)
    for _ in sys.stdin:
        print(json.dumps(measure(work, device)), file=answers, flush=True)
