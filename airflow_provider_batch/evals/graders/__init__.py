r"""Graders compare an answer with the expected value. They return a score from 0 to 1, right or wrong, and a reason.

The column `grader` of the cases names the grader of each case:

| grader | the answer is right if |
|---|---|
| `exact` | it equals the expected text, ignoring white space at both ends |
| `normalised` | it equals the expected text, ignoring case, punctuation, white space and Unicode variants |
| `one-of`, `one-of:normalised` | it equals one of the expected texts, compared like `exact` or like `normalised` |
| `contains`, `icontains` | the expected text is a part of it; `icontains` ignores upper and lower case |
| `contains-any`, `icontains-any` | at least one of the expected texts is a part of it |
| `contains-all`, `icontains-all` | all expected texts are parts of it |
| `starts-with` | it begins with the expected text, ignoring white space before it |
| `regex` | the expected regular expression (RE2 syntax) matches anywhere in it; add anchors or `(?i)` yourself |
| `numeric` | its number equals the expected one |
| `numeric:0.01` | its number differs from the expected one by at most this much |
| `numeric:1%` | its number differs from the expected one by at most this share of the expected number |
| `json` | it is JSON and equals the expected document |
| `json:path.to.field` | it is JSON with the expected value at that path; a number in the path is a list index |
| `json:["v1.0", "score"]` | the same for a path whose names are taken literally |
| `is-json` | it is JSON and nothing else |
| `contains-json` | a JSON object or list is somewhere in it |
| `json-schema` | it is JSON that is valid against the expected JSON Schema |
| `levenshtein:0.8` | its similarity to the expected text is at least 0.8: 1 minus the share of characters to edit |
| `token-f1:0.5` | the F1 score of its words and the expected words is at least 0.5, after the steps of `normalised` |
| `similar:0.8` | the cosine similarity of its embedding and that of an expected text is at least 0.8 |
| `max-cost:0.01` | it cost at most this many US dollars |
| `max-tokens:200` | it has at most this many output tokens |
| `refusal` | it was refused, or begins with a refusal in English words |
| `python:module:function` | a function of yours says so: see `functions` |
| `judge` | another model calls it right; `expected` is a hint for this judge |
| `llm-rubric`, `llm-rubric:0.7` | a judge says that it meets the expected rubric; gives it at least this score |
| `factuality` | a judge says that it does not disagree with the expected answer |
| `factuality:same,superset` | a judge says that it has the same facts as the expected answer, or more |

**Several expected texts** are a JSON list in `expected`, such as `["Berlin", "Bonn"]`. Any other text is the only one.

**Negation.** The prefix `not-`, as in `not-contains`, makes right what the grader calls wrong. `judge`,
`llm-rubric` and `factuality` cannot have it. An answer that was refused or cut off is wrong, also for a negated grader,
unless the grader is `max-cost`, `max-tokens` or `refusal`. So is an answer that a grader cannot decide about: one of
unknown cost for `max-cost`, or one that is too long to be compared.

**Several graders.** `grader` can also be a JSON list of graders. Each is a text, or an object with an expected value
or a weight of its own:

    ["is-json", {"grader": "contains-all", "expected": ["a", "b"], "weight": 2}, {"threshold": 0.7}]

The score is the weighted mean of the graders' scores. The answer is right if all graders call it right, or, if the list
has a threshold, if the score reaches the threshold.

**Judges.** The verdicts of `judge`, `llm-rubric` and `factuality` are in another table: see `verdicts`. A case has at
most one of them, which reads the expected value of the case. Several judges, or several verdicts of one, decide by
majority, and their median is the score of `llm-rubric`.

**Embeddings** of answers and expected texts are in another table as well. `similar` takes the most similar of several
expected texts, reads the first 6,000 characters of each text, and counts a negative similarity as 0. Which minimum is
right depends on the model: look at the similarities of some answers first.

**Scores.** Most graders give 1 to a right answer and 0 to a wrong one. `levenshtein`, `token-f1` and `similar` give the
similarity, a judge with a rubric and a function may give any score. The accuracy of a run is the mean of all scores, so
an answer with the score 0.5 adds one half. The number of right answers counts the answers that passed, whatever their
score is. The test for regressions compares scores; what broke or was fixed between runs counts the answers that passed.
With several answers to a case, the case is right if more than half of them passed.

`json` and `json-schema` also read JSON in a fenced block of Markdown, with text around it. If several blocks have
different JSON, the answer is wrong. NaN and Infinity are not JSON. In `contains-json`, a list of at most one number,
such as the reference [1] or the box [ ], does not count.

If an answer has several numbers, `numeric` takes the one that is marked as the answer (`answer is 42`, `\boxed{42}`,
`#### 42`), then the last one in bold, then the last one. It reads decimal points and commas, separators of thousands,
percentages, fractions and powers of ten. A number with two readings, such as `1.234`, is right if one of them is the
expected number. `numbers` describes this in full. Write the expected number with a decimal point and without separators
of thousands; it may have a percent sign or be a fraction, such as 50% and 1/3.

Every answer is graded in bounded time. `normalised`, `one-of:normalised` and `token-f1` compare answers of up to
100,000 characters, and `levenshtein` texts whose lengths multiply to at most 4 billion. `token-f1` ignores the words a,
an and the.

Regular expressions are matched by RE2, whose time grows only linearly with the answer: `(a+)+$` cannot hang a task. RE2
has no lookaround and no backreferences. Its `\w`, `\d`, `\s` and `\b` know only ASCII: write `[\pL\pN_]` for letters
and digits of every language. A line end at the end of the answer is ignored. RE2 and rapidfuzz, for `levenshtein`, come
with the extra `evals`. They are imported on first use, so that Airflow can parse DAG files without them. The patterns
in a JSON Schema cannot have lookaround and backreferences either.
"""

from __future__ import annotations

from airflow_provider_batch.evals.graders.grader import Grader, check_grader, parse_grader
from airflow_provider_batch.evals.graders.single import SingleGrader
from airflow_provider_batch.evals.graders.subject import Grade, wrong
from airflow_provider_batch.evals.graders.texts import normalise
from airflow_provider_batch.evals.graders.verdicts import JUDGED, kind_of, parse_verdict

__all__ = [
    "JUDGED",
    "Grade",
    "Grader",
    "SingleGrader",
    "check_grader",
    "kind_of",
    "normalise",
    "parse_grader",
    "parse_verdict",
    "wrong",
]
