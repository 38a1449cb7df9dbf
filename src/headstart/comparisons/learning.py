"""What a comparison teaches the next prediction: what its passes and trainings took, as a fit's do.

A pass that hands out maps at several cuts is known under a name of its own, so that it says nothing of a
plain fit's. PyTorch's start is left out: here it is paid once, by the first training, and not by each.
"""

from collections.abc import Sequence
from dataclasses import replace

from headstart.comparisons.passes import Pass, union
from headstart.comparisons.values import Candidate
from headstart.costs import Rates
from headstart.costs import formulas as jobs
from headstart.costs.observing import Outcome, Watch, observations
from headstart.costs.timings import Observation
from headstart.runs import FitConfig
from headstart.training import Prepared


def of_pass(
    group: Sequence[Candidate], shared: Pass, *, config: FitConfig, watch: Watch, rates: Rates
) -> list[Observation]:
    """What one look at every image took; ``watch`` followed it."""
    use, extraction = shared.prepared.extraction.use, shared.prepared.extraction
    dataset, wanted = shared.prepared.dataset, union(group, views=group[0].views)
    looked_at = use.hits + use.misses
    missing = use.misses / looked_at if looked_at else 0.0
    job = jobs.describe(dataset, extraction.backbone, wanted=wanted, config=config, missing=missing)
    job = replace(job, compiled=jobs.is_compiled(job, rates))
    outcome = Outcome(shared.prepared.seconds, hits=use.hits, misses=use.misses)
    return observations(job, outcome, watch, rates=rates)


def of_training(
    candidate: Candidate,
    prepared: Prepared,
    *,
    config: FitConfig,
    train_seconds: float,
    evaluate_seconds: float,
    evaluated: int,
    watch: Watch,
    rates: Rates,
) -> list[Observation]:
    """What one training and the evaluation of so many held-out images took."""
    wanted = union([candidate], views=candidate.views)
    network = prepared.extraction.backbone
    job = jobs.describe(prepared.dataset, network, wanted=wanted, config=config, missing=0.0)
    job = replace(job, training=len(prepared.images("train")), held_out=evaluated)
    outcome = Outcome({"train": train_seconds, "evaluate": evaluate_seconds}, hits=0, misses=0)
    seen = observations(job, outcome, watch, rates=rates)
    return [each for each in seen if each.quantity != "torch"]
