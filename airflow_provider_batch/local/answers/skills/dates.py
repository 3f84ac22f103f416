"""Answers questions about dates."""

from __future__ import annotations

import calendar
import re
from datetime import date, datetime, timedelta

_SUM = re.compile(r"\b(\d{1,2})/(\d{1,2})/(\d{4}) (add|subtract) (\d{1,4}) (day|week|month|year)s?\b")
_WEEKDAY = re.compile(r"What day of the week is ([A-Z][a-z]+ \d{1,2}, \d{4})\?")
_IN_WORDS = re.compile(r"\bWeekday\b.*\n\s*(\d{4}-\d\d-\d\d)\s*$", re.DOTALL)
_NET_TERMS = re.compile(r"Invoice Date: (\d{4}-\d\d-\d\d)\s+Terms: NET ?(\d{1,3})\b")
_MONTH_QUESTION = re.compile(r"\b[Ww]hat month\b|\b[Ww]hich month\b")
_NUMBER_OF_DATE = re.compile(r"\bdate #(\d)\b")
_SLASHED = re.compile(r"\b(\d{1,2})/(\d{1,2})/\d{4}\b")


def answer_dates(question: str) -> str | None:
    """Return the answer to a question about dates, or None."""
    try:
        return (
            _add(question) or _name_weekday(question) or _in_words(question) or _due_date(question) or _month(question)
        )
    except (ValueError, OverflowError):
        return None  # the question names a date that does not exist


def _add(question: str) -> str | None:
    match = _SUM.search(question)
    if match is None:
        return None
    start = date(int(match[3]), int(match[1]), int(match[2]))
    count = int(match[5]) if match[4] == "add" else -int(match[5])
    if match[6] in ("day", "week"):
        return f"{start + timedelta(days=count * (7 if match[6] == 'week' else 1)):%m/%d/%Y}"
    months = start.year * 12 + start.month - 1 + count * (12 if match[6] == "year" else 1)
    year, month = months // 12, months % 12 + 1
    return f"{date(year, month, min(start.day, calendar.monthrange(year, month)[1])):%m/%d/%Y}"


def _name_weekday(question: str) -> str | None:
    match = _WEEKDAY.search(question)
    return f"{datetime.strptime(match[1], '%B %d, %Y'):%A}" if match else None


def _in_words(question: str) -> str | None:
    match = _IN_WORDS.search(question)
    if match is None:
        return None
    day = date.fromisoformat(match[1])
    return f"{day:%A}, {day:%B} {day.day}, {day.year}."


def _due_date(question: str) -> str | None:
    match = _NET_TERMS.search(question)
    if match is None:
        return None
    return f"{{'due_date': '{date.fromisoformat(match[1]) + timedelta(days=int(match[2]))}'}}"


def _month(question: str) -> str | None:
    """Return the month of the date with the number that the question names, or of the first date."""
    dates = _SLASHED.findall(question)
    if not dates or not _MONTH_QUESTION.search(question):
        return None
    number = _NUMBER_OF_DATE.search(question)
    index = int(number[1]) - 1 if number else 0
    if not 0 <= index < len(dates):
        return None
    # a first number above 12 in any of the dates shows that the day comes first
    day_first = any(int(first) > 12 for first, _ in dates)
    month = int(dates[index][1 if day_first else 0])
    return calendar.month_name[month] if 1 <= month <= 12 else None
