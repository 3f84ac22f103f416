"""How far the tokens of requests may lie from the mean of the answers seen so far.

`output_range` returns what the mean output of N requests will be, as a range, judging by a random sample of n answers
with the mean m and the relative variance c² (the variance divided by m²). Two things make that uncertain.

*Chance.* The mean of n answers differs from the mean of all, and so does the mean of the N requests. Together the
relative error has the variance v·(1/n + 1/N). A few answers say little about the variance itself, so v is the mean of
c² and of a prior variance, which counts like k = `PRIOR_ANSWERS` answers. With t, the quantile of Student's
distribution that leaves 2 % on either side, the error is

    e = t · sqrt(v · (1/n + 1/N))          v = (k · PRIOR_VARIANCE + (n - 1) · c²) / (k + n - 1)

and the range is from m·exp(-e) to m·(1 + e). The degrees of freedom are those of v, but at most N/v: the sum of a few
answers of very different lengths is far from normally distributed.

*What was not seen.* Reasoning models answer most requests briefly, and think for long about a few. No answer among n is
of a kind with the share q with the probability (1 - q)^n. So a kind with a share of up to q = 1 - 0.1^(1/n), about
2.3/n, stays unseen in 10 % of samples (a form of the "rule of three"). Such shares are rare for small n, so n counts
`TAIL_ANSWERS` more. If a long answer has `TAIL_RATIO` times the tokens of a typical one (the geometric mean g), the
high end is at least

    (1 - q) · m + q · TAIL_RATIO · g

For small N, the share of long answers among them may be larger by sqrt(q·(1 - q)/N). If long answers are in the sample,
m is well above g, and the first part decides.

In `benchmarks.ranges`, the bill is inside in at least 90 % of simulated jobs for answers of many kinds. This needs
the wide range at the high end: with 2 similar answers, m·13; with 5, m·10; with 20, m·4.7. An output cap bounds it.
"""

from __future__ import annotations

from math import exp, sqrt
from statistics import NormalDist

from airflow_provider_batch.core.ledger.samples import InputSample, OutputSample

#: weight of the prior variance, in answers
PRIOR_ANSWERS = 3
#: variance of the output tokens, relative to the square of their mean, before answers were seen
PRIOR_VARIANCE = 1.0
#: the same of reported divided by estimated input tokens
PRIOR_INPUT_VARIANCE = 0.12**2
#: tokens of a long answer of a kind that was not seen, divided by those of a typical answer
TAIL_RATIO = 40
#: number of answers without a long one that are assumed in addition to those seen
TAIL_ANSWERS = 4
#: maximum weight of answers of earlier jobs, in answers of this job: prompts, rows and models change between jobs
MAX_EARLIER_ANSWERS = 100
#: relative change of the mean from job to job that is no reason to ignore earlier answers
NORMAL_CHANGE = 0.1

_Z = NormalDist().inv_cdf(0.98)


def output_range(sample: OutputSample, requests: int) -> tuple[float, float]:
    """Return the mean output tokens of this many requests, at the low and at the high end.

    :param sample: at least one answer to requests of the same kind.
    """
    error = _relative_error(sample.answers, sample.relative_variance, PRIOR_VARIANCE, requests)
    share = 1 - 0.1 ** (1 / (sample.answers + TAIL_ANSWERS))
    share = min(1.0, share + sqrt(share * (1 - share) / requests))
    unseen = (1 - share) * sample.mean + share * TAIL_RATIO * sample.typical
    return sample.mean * exp(-error), max(sample.mean * (1 + error), unseen)


def input_range(sample: InputSample, requests: int) -> tuple[float, float]:
    """Return by which factor the corrected input tokens of this many requests may be too high or too low.

    :param sample: answers to requests of the same kind; may be empty.
    """
    error = _relative_error(max(sample.answers, 1), sample.relative_variance, PRIOR_INPUT_VARIANCE, requests)
    return exp(-error), exp(error)


def _relative_error(answers: float, variance: float, prior_variance: float, requests: int) -> float:
    freedom = PRIOR_ANSWERS + answers - 1
    pooled = (PRIOR_ANSWERS * prior_variance + (answers - 1) * variance) / freedom
    freedom = max(1.0, min(freedom, requests / pooled))
    return _student_quantile(freedom) * sqrt(pooled * (1 / answers + 1 / requests))


def _student_quantile(freedom: float) -> float:
    """Return the 98 % quantile of Student's distribution (Cornish-Fisher expansion; 5 % too low at 3 degrees)."""
    return _Z + (_Z**3 + _Z) / (4 * freedom) + (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / (96 * freedom**2)


def with_earlier_answers(sample: OutputSample, earlier: OutputSample) -> OutputSample:
    """Return the answers of this job together with those of earlier jobs.

    The earlier ones count only if the means differ by no more than `NORMAL_CHANGE` and chance explain. Otherwise
    something changed, for example the prompt.
    """
    earlier = earlier.limited(MAX_EARLIER_ANSWERS)
    if not sample.answers or not earlier.answers:
        return sample + earlier
    variance = max(sample.relative_variance, earlier.relative_variance)
    error = NORMAL_CHANGE + 2 * sqrt(variance * (1 / sample.answers + 1 / earlier.answers))
    is_similar = earlier.mean * exp(-error) <= sample.mean <= earlier.mean * (1 + error)
    return sample + earlier if is_similar else sample
