"""Metrics, one family per file; each says its direction and unit."""

from forgetfilter.lab.metrics.answers import (
    closed_accuracy,
    exact_match,
    final_number,
    number_accuracy,
    rouge1,
    squad,
    token_f1,
)
from forgetfilter.lab.metrics.bbq import BBQCase, bias_scores, case_of
from forgetfilter.lab.metrics.bbq_answers import parse_answer
from forgetfilter.lab.metrics.detection import Detection, detection
from forgetfilter.lab.metrics.intervals import Estimate
from forgetfilter.lab.metrics.rates import (
    mean_over_cases,
    mean_over_seeds,
    paired_difference,
    share,
)
from forgetfilter.lab.metrics.refusal import compliance_rate, complies, refusal_rate
from forgetfilter.lab.metrics.toxicity import toxicity
from forgetfilter.lab.metrics.values import Direction, MetricValue
from forgetfilter.safe.refusal import is_refusal
from forgetfilter.safe.toxicity import ToxicityScorer

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
    "compliance_rate",
    "complies",
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
