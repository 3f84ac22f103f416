"""Splits SQL text into tokens by the lexical rules of one database.

The rules matter for safety: whoever misreads where a string or a comment ends also misreads where a statement ends.
Text that databases, or settings of one database, read in different ways is therefore refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property

from airflow_provider_batch.exceptions import InputError

#: ends the error message of a statement that was refused before it ran
NOTHING_RUN = "Nothing was run, and nothing was uploaded."

#: every character beyond ASCII belongs to a word, as in PostgreSQL, MySQL and SQLite
_HIGH = r"\x80-\U0010ffff"
_WORD_REST = f"[A-Za-z0-9_${_HIGH}]*"
#: `1.` and `1e5` end where they do in MySQL, which reads `1.INTO` as two words. A name there may begin with a digit.
_NUMBER = rf"[0-9]+\.[0-9_]*(?:[eE][+-]?[0-9]+)?|\.?[0-9]+[eE][+-]?[0-9]+|\.[0-9]+|[0-9]{_WORD_REST}"
_TAG = rf"(?:[A-Za-z_{_HIGH}][A-Za-z0-9_{_HIGH}]*)?"

_COMMENT_EDGE = re.compile(r"/\*|\*/")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
#: what looks like a space, or like nothing, and means something else in some databases
_ODD_SPACE = re.compile(r"[\x85\xa0\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff]")
#: what psycopg and the MySQL drivers replace by parameters
PLACEHOLDER = re.compile(r"%(?:\(\w+\))?[sbt]")


class TokenKind(Enum):
    """What a token is."""

    SPACE = auto()
    COMMENT = auto()
    STRING = auto()
    #: a quoted identifier
    NAME = auto()
    WORD = auto()
    NUMBER = auto()
    PLACEHOLDER = auto()
    SYMBOL = auto()


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of SQL text."""

    kind: TokenKind
    text: str
    #: offset in the SQL text
    start: int
    #: number of the line, counted from 1
    line: int

    @property
    def name(self) -> str:
        """The identifier or keyword in lower case, without quotation marks; '' if the token is neither."""
        if self.kind is TokenKind.WORD:
            return self.text.lower()
        # MySQL and SQLite also read "text" or 'text' as an identifier in some places
        return self.text[1:-1].lower() if self.kind in (TokenKind.NAME, TokenKind.STRING) else ""


@dataclass(frozen=True, kw_only=True)
class Lexis:
    """The lexical rules of a database, as regular expressions."""

    #: comment up to the end of the line
    comment: str = r"--[^\n]*"
    #: whether /* comments */ nest
    nested_comments: bool = False
    string: str
    name: str
    #: texts that are refused, with what to do about them
    refused: tuple[tuple[str, str], ...] = ()

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        kinds = {
            TokenKind.SPACE: r"[ \t\r\n\f\v]+",
            TokenKind.COMMENT: rf"{self.comment}|/\*",
            TokenKind.STRING: self.string,
            TokenKind.NAME: self.name,
            TokenKind.NUMBER: _NUMBER,
            TokenKind.WORD: f"[A-Za-z_{_HIGH}]{_WORD_REST}",
            TokenKind.SYMBOL: ".",
        }
        return re.compile("|".join(f"(?P<{kind.name}>{text})" for kind, text in kinds.items()), re.DOTALL)

    @cached_property
    def _refused(self) -> tuple[tuple[re.Pattern[str], str], ...]:
        return tuple((re.compile(text, re.DOTALL), remedy) for text, remedy in self.refused)

    def tokens(self, sql: str, *, percent_placeholders: bool = False) -> Iterator[Token]:
        """Yield all tokens, including spaces and comments. Their texts joined together are the SQL.

        :param percent_placeholders: whether the driver replaces `%s` and `%(name)s`, wherever they stand.
        :raises InputError: for text that may be read in different ways.
        """
        position, line = 0, 1
        while position < len(sql):
            for pattern, remedy in self._refused:
                if match := pattern.match(sql, position):
                    raise _refusal(line, f"contains {match[0].split()[0][:20]!r}", remedy)
            match = PLACEHOLDER.match(sql, position) if percent_placeholders else None
            if match:
                kind = TokenKind.PLACEHOLDER
            else:
                match = self._pattern.match(sql, position)
                assert match is not None
                assert match.lastgroup is not None
                kind = TokenKind[match.lastgroup]
            end = match.end()
            if match[0] == "/*":
                end = self._end_of_comment(sql, end)
            token = Token(kind, sql[position:end], position, line)
            check_token(token, sql[end : end + 1], percent_placeholders=percent_placeholders)
            yield token
            position, line = end, line + token.text.count("\n")

    def _end_of_comment(self, sql: str, position: int) -> int:
        depth = 1
        while depth:
            edge = _COMMENT_EDGE.search(sql, position)
            if edge is None:
                return len(sql)
            if edge[0] == "*/":
                depth -= 1
            elif self.nested_comments:
                depth += 1
            # without nesting, the comment may end at the slash of "/*/"
            position = edge.end() if edge[0] == "*/" or self.nested_comments else edge.start() + 1
        return position


def check_token(token: Token, following: str, *, percent_placeholders: bool) -> None:
    """Refuse a token whose meaning depends on the database, its settings, or the values of the parameters."""
    kind, text, line = token.kind, token.text, token.line
    if "\x00" in text or (kind in (TokenKind.SPACE, TokenKind.SYMBOL) and _CONTROL.search(text)):
        raise _refusal(line, "contains a control character", "Remove it.")
    if kind in (TokenKind.SPACE, TokenKind.WORD, TokenKind.SYMBOL) and (space := _ODD_SPACE.search(text)):
        raise _refusal(line, f"contains the invisible character U+{ord(space[0]):04X}", "Write a plain space.")
    if kind is TokenKind.COMMENT and not text.startswith("/*") and "\r" in text.replace("\r\n", "\n").rstrip("\r"):
        raise _refusal(line, "has a carriage return within a comment", "End the line with a line feed.")
    if kind is TokenKind.SYMBOL and text in ("'", '"', "`"):
        raise _refusal(line, f"has a quotation mark {text} that is never closed", "Close it.")
    if kind is TokenKind.NUMBER and following in ("'", '"'):
        raise _refusal(line, f"has a quotation mark directly after {text!r}", "Put a space between them.")
    if (
        percent_placeholders
        and kind in (TokenKind.STRING, TokenKind.NAME, TokenKind.COMMENT)
        and PLACEHOLDER.search(text.replace("%%", ""))
    ):
        raise _refusal(
            line,
            "has a placeholder inside quotation marks or in a comment, where the driver would insert a value",
            "Write the placeholder without quotation marks, or %% for a percent sign.",
        )


def _refusal(line: int, problem: str, remedy: str) -> InputError:
    return InputError(f"sql {problem} in line {line}. {remedy} {NOTHING_RUN}")


_PLAIN_STRING = r"'(?:[^']|'')*'"
_QUOTED_NAME = r'"(?:[^"]|"")*"'
_DOLLAR_STRING = rf"\$(?P<tag>{_TAG})\$.*?\$(?P=tag)\$"
_E_STRING = r"[eE]'(?:[^'\\]|\\.|'')*'"

POSTGRES = Lexis(
    nested_comments=True,
    string=rf"{_E_STRING}|(?:[bBxXnN]|[uU]&)?{_PLAIN_STRING}|{_DOLLAR_STRING}",
    name=_QUOTED_NAME,
    refused=(
        (r'[uU]&"', "Write the name with its own characters instead of escapes."),
        # PostgreSQL continues such a string, with its escapes, after a line break
        (
            rf"{_E_STRING}(?:[ \t\r\n\f\v]|--[^\r\n]*[\r\n])+'",
            "Write a string with escapes in one piece, or join the pieces with ||.",
        ),
    ),
)

DUCKDB = Lexis(
    nested_comments=True,
    string=rf"{_E_STRING}|(?:[bBxXnN]|[uU]&)?{_PLAIN_STRING}|{_DOLLAR_STRING}",
    name=_QUOTED_NAME,
    refused=((r'[uU]&"', "Write the name with its own characters instead of escapes."),),
)

SQLITE = Lexis(
    string=rf"[xX]?{_PLAIN_STRING}",
    name=rf"{_QUOTED_NAME}|`(?:[^`]|``)*`|\[[^\]]*\]",
)

MYSQL = Lexis(
    comment=r"(?:\#|--(?=[\x00-\x20\x7f]|\Z))[^\n]*",
    string=r"""[bBxXnN]?'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*\"""",
    name=r"`(?:[^`]|``)*`",
    refused=((r"/\*M?!", "The server would run the content of this comment. Write it as part of the statement."),),
)
