"""A page on this machine to look through a run's rows and to overrule its filter."""

from forgetfilter.review.serving import review

__all__ = ["review"]
