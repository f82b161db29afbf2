"""Metrics, one family per file; each says its direction and unit."""

from forgetfilter.metrics.answers import (
    closed_accuracy,
    exact_match,
    final_number,
    number_accuracy,
    rouge1,
    squad,
    token_f1,
)
from forgetfilter.metrics.bbq import BBQCase, bias_scores, case_of
from forgetfilter.metrics.bbq_answers import parse_answer
from forgetfilter.metrics.detection import Detection, detection
from forgetfilter.metrics.intervals import Estimate
from forgetfilter.metrics.rates import (
    mean_over_cases,
    mean_over_seeds,
    paired_difference,
    share,
)
from forgetfilter.metrics.refusal import is_refusal, refusal_rate
from forgetfilter.metrics.toxicity import ToxicityScorer, toxicity
from forgetfilter.metrics.values import Direction, MetricValue

__all__ = [
    "BBQCase",
    "Detection",
    "Direction",
    "Estimate",
    "MetricValue",
    "ToxicityScorer",
    "bias_scores",
    "case_of",
    "closed_accuracy",
    "detection",
    "exact_match",
    "final_number",
    "is_refusal",
    "mean_over_cases",
    "mean_over_seeds",
    "number_accuracy",
    "paired_difference",
    "parse_answer",
    "refusal_rate",
    "rouge1",
    "share",
    "squad",
    "token_f1",
    "toxicity",
]
