"""Which number of an answer the grader `numeric` takes, and how it reads it."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.evals.graders import check_grader
from airflow_provider_batch.exceptions import InputError
from tests.evals.answers import grade

WHOLE = st.integers(-(10**12), 10**12)
DECIMALS = st.decimals(-(10**9), 10**9, places=2).filter(lambda number: number == number.quantize(Decimal("0.01")))


def is_right(expected: str, answer: str, grader: str = "numeric") -> bool:
    return grade(grader, expected, answer).passed


@pytest.mark.parametrize(
    "answer",
    [
        "The answer is 42. I used 3 steps.",
        "the answer is **42**, after 3 steps",
        "The answer is approximately 42, with 3 digits.",
        "The final answer (in meters) is: 42 m. 3 steps.",
        "The answer to question 7 is 42. It took 3 steps.",
        "The answer is 40 + 2 = 42. I used 3 steps.",
        "The answer is 6*7=42, in 3 steps",
        "The answer is 42 - I used 3 steps.",
        "The answer is 42 – I used 3 steps.",
        "I thought that the answer is 41. But the correct answer is 42, after 9 steps.",
        "Answer: 42\n\nSteps: 3",
        "**Answer:** 42\n\nSteps: 3",
        "**Answer: 42**\n\nSteps: 3",
        "Answer:\n\n$42$\n\nSteps: 3",
        "answer=42; steps=3",
        '{"answer": 42, "steps": 3}',
        "## Final Answer\n\n42\n\n## Steps\n\n3",
        "The answer is \\(42\\), in 3 steps",
        "$$\\boxed{42}$$ in 3 steps",
        "\\boxed{42 \\text{ km}}, 3 steps",
        "\\boxed{\\text{42}}, 3 steps",
        "#### 42\nin 3 steps",
        "It is **42** after 3 steps.",
        "It is **42 km** after 3 steps.",
        "**3** and **39** make **42**, in 2 steps.",
        "After 3 steps: 42",
        "Let me answer step by step: 1) 40 2) and two. In all 42",
        "Answer: In 2020, the company had 42",
        "1. **First** do 3\n2. **Then** 42",
        "**Step 1** 40 + 2 = 42",
        "**1. Add** 40 + 2 = 42",
        "I think that the answer is not 41. It is 42.",
    ],
)
def test_the_result_is_found_among_other_numbers(answer: str) -> None:
    assert grade("numeric", "42", answer) == (1, True, "the same number: '42'")
    assert not is_right("3", answer)


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        ("1234.56", "1.234,56"),
        ("1234.56", "1,234.56"),
        ("1234567.89", "1.234.567,89 €"),
        ("1234567", "1,234,567"),
        ("1234567", "1.234.567"),
        ("1234567", "12,34,567"),
        ("1234567", "1'234'567"),
        ("1234567.5", "1’234’567.50 CHF"),
        ("1000", "1 000"),
        ("1000", "1\u00a0000"),
        ("1000", "1\u202f000 kg"),
        ("1000", "1\u2009000"),
        ("1234.5", "1 234,5"),
        ("10000", "$10{,}000$"),
        ("10000", "$10\\,000$"),
        ("3.14", "3,14"),
        ("0.234", "0,234"),
        (".5", "-> .5"),
        ("-0.5", "-.5"),
        ("50", "50 %"),
        ("50 %", "50 %"),
        ("50%", "0.5"),
        ("50%", "50"),
        ("0.5", "50%"),
        ("0.25", "25\\% of it"),
        ("50%", "50 percent"),
        ("0.5", "1/2"),
        ("1/2", "1/2"),
        ("1/2", "0.5"),
        ("1/3", "2/6"),
        ("0.5", "½"),
        ("0.75", "\\boxed{\\frac{3}{4}}"),
        ("-0.75", "-3/4"),
        ("3.5", "3 1/2"),
        ("3.5", "3½"),
        ("1500", "1.5e3"),
        ("1500", "1.5 × 10^3"),
        ("1500", "1.5 \\times 10^{3}"),
        ("1500", "1.5*10**3"),
        ("1000", "10³"),
        ("0.001", "10⁻³"),
        ("-5", "-$5"),
        ("-5", "$-5"),
        ("-5", "−5"),
        ("20", "10-20"),
        ("20", "10 - 20"),
        ("20", "10–20"),
        ("2026", "on 24.12.2026"),
        ("2026", "12/24/2026"),
        ("3", "1,2,3"),
        ("300", "In 2020 300 people came"),
        ("200", "on page 5 200 words"),
        ("1e3", "1000"),
    ],
)
def test_numbers_are_read_as_people_write_them(expected: str, answer: str) -> None:
    assert grade("numeric", expected, answer).passed


@pytest.mark.parametrize("expected", ["1234", "1.234"])
@pytest.mark.parametrize("answer", ["1.234", "1,234"])
def test_a_number_with_two_readings_is_right_if_one_of_them_is_expected(answer: str, expected: str) -> None:
    assert is_right(expected, answer)
    assert not is_right("234", answer)
    assert not is_right("12.34", answer)


@pytest.mark.parametrize(
    ("expected", "answer"),
    [
        ("567", "1,234,567"),
        ("56", "1.234,56"),
        ("1234", "1.2345"),
        ("234", "0.234"),
        ("0", "1\u00a0000"),
        ("1234567", "1.234,567"),
        ("1", "1/2"),
        ("2", "1/2"),
        ("5", "5/0"),
        ("0.005", "0.5"),
        ("50%", "0.5 %"),
        ("50", "0.5 %"),
        ("0.5%", "50 %"),
        ("1000000", "1,000"),
        ("1", "1e999"),
        ("1", "1e999999999"),
        ("1", "1" * 5_000),
    ],
)
def test_no_other_reading_counts(expected: str, answer: str) -> None:
    assert not is_right(expected, answer)


@pytest.mark.parametrize(
    ("grader", "expected", "answer", "result"),
    [
        ("numeric:1", "50%", "0.51", True),
        ("numeric:1", "50%", "0.52", False),
        ("numeric:0.01", "0.5", "51 %", True),
        ("numeric:0.01", "0.5", "52 %", False),
        ("numeric:1%", "1234.5", "1.234,00", True),
        ("numeric:0.001", "0.333", "1/3", True),
        ("numeric", "0.333", "1/3", False),
    ],
)
def test_the_tolerance_is_in_the_unit_of_the_expected_number(
    grader: str, expected: str, answer: str, result: bool
) -> None:
    assert is_right(expected, answer, grader) is result


@pytest.mark.parametrize(
    "expected", ["", "two", "1,234", "1 000", "1/0", "1/2/3", "nan", "inf", "1e2000", "9" * 1_001, "%"]
)
def test_an_expected_number_has_one_reading(expected: str) -> None:
    with pytest.raises(InputError, match=r"`expected` is not a number, .* without separators of thousands"):
        check_grader("numeric", expected)


def european(number: str) -> str:
    return number.translate(str.maketrans(",.", ".,"))


@given(DECIMALS)
def test_every_way_to_write_a_number_means_the_same(number: Decimal) -> None:
    grouped = f"{number:,.2f}"
    for answer in (
        f"{number:f}",
        grouped,
        european(grouped),
        grouped.replace(",", "\u202f"),
        grouped.replace(",", "'"),
        european(grouped).replace(".", " "),
        f"It is {grouped}.",
        f"The answer is {european(grouped)}. I used 3 steps.",
        f"**{grouped} €** in 3 steps",
    ):
        assert is_right(f"{number:f}", answer), answer
        assert not is_right(f"{number + 1:f}", answer), answer


@given(WHOLE, st.integers(1, 10**6))
def test_a_fraction_equals_its_quotient(upper: int, lower: int) -> None:
    assert is_right(f"{upper}/{lower}", f"{3 * upper}/{3 * lower}")
    assert not is_right(f"{upper + 1}/{lower}", f"{upper}/{lower}")


@given(st.text(st.sampled_from("1230.,'/% \u00a0-+eE×^*{}\\=:#\nanswer is½³"), max_size=60))
def test_every_text_gets_a_grade(answer: str) -> None:
    assert grade("numeric", "1", answer).score in (0, 1)


@pytest.mark.parametrize("padding", ["lorem ipsum ", "1 ", "the answer is ", "**1", "9"])
def test_the_end_of_a_long_answer_counts(padding: str) -> None:
    assert is_right("42", padding * 200_000 + "\nThe answer is 42.")
    assert not is_right("45", "12345" + " " * (100_000 - 2))
