"""Checks that a statement does nothing but read.

The check has three parts. The tokens of the SQL must form one statement that begins like a query. They may not call a
function that changes something although the transaction is read-only. And the statement, parsed by sqlglot in the
dialect of the database, may contain nothing but queries.

This is the first line of defence. The second one is the database itself: see `Driver.begin_reading`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.warehouse.lexer import NOTHING_RUN, PLACEHOLDER, Lexis, Token, TokenKind, check_token

#: words that a query begins with
QUERY_WORDS = ("SELECT", "WITH", "VALUES", "TABLE", "FROM")

#: strings and names that sqlglot reads like every database
_UNAMBIGUOUS = re.compile(r"""'[^'"`\\\r\n\x80-\U0010ffff]*'|["`\[][A-Za-z_][A-Za-z0-9_ ]*["`\]]""")

#: words that begin a statement, which DuckDB also takes inside a query
_STATEMENT_WORDS = frozenset(
    {
        *("alter", "attach", "call", "copy", "create", "delete", "detach", "drop", "execute", "export", "import"),
        *("insert", "install", "load", "merge", "pragma", "replace", "set", "truncate", "update", "vacuum"),
    }
)

#: :1 or :name, but not the second half of a cast, nor a path such as column:name
_COLON_PLACEHOLDER = re.compile(r"""(?<![:\w\])"']):\w+""")

#: a name after these is that of a table, even if a list of columns follows: WITH query (id) AS ..., or AS query (id)
_BEFORE_TABLE_NAMES = ("as", "with", "recursive")

_LOCK_WORDS = frozenset({"update", "share", "no", "key"})


@dataclass(frozen=True, kw_only=True)
class ReadRules:
    """What a database lets a reader do."""

    #: Names of the database's dialect in sqlglot. The first one that it knows counts, otherwise it reads standard SQL.
    sqlglot: tuple[str, ...]
    #: The lexical rules, or None for a database that has not been tested, whose tokens come from sqlglot.
    lexis: Lexis | None = None
    #: Functions that change something in spite of a read-only transaction, or run SQL that they are passed as text.
    #: A regular expression in lower case for `function` or `schema.function`.
    denied_functions: str
    query_words: tuple[str, ...] = QUERY_WORDS
    #: Words that begin another statement wherever they stand, if the database needs no semicolon between statements.
    statement_words: frozenset[str] = frozenset()
    #: whether INTO always begins something that a query does with its rows
    into_writes: bool = True
    #: Whether a statement that sqlglot cannot parse runs anyway, because the database itself lets it only read.
    runs_unparsed: bool = False

    def check(self, sql: str, *, placeholder: str = "") -> str:
        """Return the statement without its final semicolon.

        :param placeholder: the placeholder of the driver if there are parameters: `?`, `%s`, or `:` for :1 and :name.
        :raises InputError: if it is not a single statement that only reads.
        """
        percent_placeholders = placeholder == "%s"
        if self.lexis is not None:
            tokens = list(self.lexis.tokens(sql, percent_placeholders=percent_placeholders))
        else:
            tokens = _sqlglot_tokens(sql, self.sqlglot, percent_placeholders=percent_placeholders)
        end = next((token.start for token in tokens if token.text == ";"), len(sql))
        code = [token for token in tokens if token.kind not in (TokenKind.SPACE, TokenKind.COMMENT)]
        statement = [token for token in code if token.start < end]
        _check_first_word(statement, self.query_words)
        for token in code[len(statement) :]:
            if token.text != ";":
                raise InputError(
                    f"sql contains more than one statement: the second begins in line {token.line}. The rows come from "
                    f"a single SELECT. Keep that one and run the others in a task before this one. {NOTHING_RUN}"
                )
        self._check_tokens(statement)
        self._check_tree([token for token in tokens if token.start < end], placeholder)
        return sql[:end]

    def _check_tokens(self, tokens: Sequence[Token]) -> None:
        denied = re.compile(self.denied_functions)
        for index, token in enumerate(tokens):
            following = tokens[index + 1] if index + 1 < len(tokens) else None
            if following is not None and following.text == "(" and not _follows(tokens, index, _BEFORE_TABLE_NAMES):
                for name in _qualified_names(tokens, index):
                    if denied.fullmatch(name):
                        raise _refusal(
                            token.line,
                            f"the function {name}, which changes something, runs SQL that cannot be checked, or "
                            "reaches beyond the tables of the database",
                            "Call it in a task before this one, or read what it returns from a view.",
                        )
            if token.kind is not TokenKind.WORD:
                continue
            qualified = bool(index) and tokens[index - 1].text == "."
            is_name = qualified or _follows(tokens, index, ("as",))
            called = following is not None and following.text == "(" and not token.name.startswith("exec")
            if (token.name in _STATEMENT_WORDS and _opens_statement(tokens, index)) or (
                token.name in self.statement_words and not is_name and not called
            ):
                raise _refusal(token.line, token.text.upper(), "Run that in a task before this one.")
            if self.into_writes and token.name == "into" and not is_name:
                raise _refusal(token.line, "INTO", "Remove it: the rows go to the job.")
            if token.name == "for" and following is not None and following.name in _LOCK_WORDS and not qualified:
                raise _refusal(token.line, f"FOR {following.text.upper()}", "Remove it: a reader locks no rows.")
            if token.name == "nextval" and qualified:
                raise _refusal(token.line, "NEXTVAL", "Draw from the sequence in a task before this one.")
        for words in _triples(tokens):
            if tuple(word.name for word in words) in (("next", "value", "for"), ("in", "share", "mode")):
                text = " ".join(word.text.upper() for word in words)
                raise _refusal(words[0].line, text, "Remove it, or run it in a task before this one.")

    def _check_tree(self, tokens: Sequence[Token], placeholder: str) -> None:
        """Check the statement as sqlglot parses it."""
        # sqlglot takes a while to import, and no DAG file needs it
        import sqlglot
        from sqlglot import exp

        text = "".join(map(_canonical, tokens))
        if placeholder == ":":
            text = _COLON_PLACEHOLDER.sub("'1'", text)
        elif placeholder == "%s":
            text = PLACEHOLDER.sub("'1'", text).replace("%%", "%")
        try:
            with _quiet_sqlglot():
                trees = [tree for tree in sqlglot.parse(text, read=_sqlglot_dialect(self.sqlglot)) if tree is not None]
            problem = "" if len(trees) == 1 else "unknown syntax"
        except Exception as error:  # noqa: BLE001 - besides ParseError, odd input also raises RecursionError and others
            trees, problem = [], str(error).partition(".")[0] or type(error).__name__
        queries = (exp.Query, exp.Values, exp.Pivot, exp.Summarize, exp.Describe, exp.Show)
        changes = (exp.Insert, exp.Update, exp.Delete, exp.Merge, exp.Create, exp.Copy, exp.Into)
        for tree in trees:
            for change in tree.find_all(*changes):
                raise _refusal(_line_of(change.key, tokens), change.key.upper(), "Run that in a task before this one.")
            # a Command is a statement that sqlglot did not look into
            if tree.find(exp.Command) or not all(
                isinstance(query, queries) for query in (tree, *(cte.this for cte in tree.find_all(exp.CTE)))
            ):
                problem = "unknown syntax"
        if problem and not self.runs_unparsed:
            raise InputError(
                f"sql must be a single SELECT, but it cannot be checked: sqlglot cannot parse it ({problem}). Simplify "
                f"it, or put it into a view and select from that. {NOTHING_RUN}"
            )


@contextmanager
def _quiet_sqlglot() -> Iterator[None]:
    """Keep sqlglot from logging its remarks about the statement, which are about translating it."""
    logger = logging.getLogger("sqlglot")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _check_first_word(tokens: Sequence[Token], query_words: Sequence[str]) -> None:
    first = next((token for token in tokens if token.text != "("), None)
    if first is None:
        raise InputError("sql is empty. Set it to the SELECT whose rows are to be sent. Nothing was uploaded.")
    if first.kind is not TokenKind.WORD or first.text.upper() not in query_words:
        word = first.text.upper() if first.kind is TokenKind.WORD else repr(first.text[:20])
        raise InputError(
            f"sql may only read. It must be a single SELECT, but it begins with {word} (line {first.line}). Run that "
            f"in a task before this one, and select the rows here. {NOTHING_RUN}"
        )


def _opens_statement(tokens: Sequence[Token], index: int) -> bool:
    """Return whether this token is the first one in parentheses that may hold a query."""
    if index == 0 or tokens[index - 1].text != "(":
        return False
    if tokens[index].name in ("insert", "replace", "truncate") and any(
        following.text == "(" for following in tokens[index + 1 : index + 2]
    ):
        return False  # a function of this name
    before = tokens[index - 2] if index > 1 else None
    return before is None or before.text == "(" or before.name in ("as", "materialized", "from", "join")


def _follows(tokens: Sequence[Token], index: int, keywords: Sequence[str]) -> bool:
    """Return whether this token follows one of these keywords, and not a column or a variable of that name."""
    before, word = ([None, None, *tokens[:index]])[-2:]
    return word is not None and word.text.lower() in keywords and (before is None or before.text not in (".", "@", ":"))


def _qualified_names(tokens: Sequence[Token], index: int) -> Iterator[str]:
    """Yield the name that ends at this token without and with the name before it."""
    name = tokens[index].name
    if name:
        yield name
        if index > 1 and tokens[index - 1].text == ".":
            yield f"{tokens[index - 2].name}.{name}"


def _triples(tokens: Sequence[Token]) -> Iterator[tuple[Token, Token, Token]]:
    for (first, second), (_, third) in pairwise(pairwise(tokens)):
        yield first, second, third


def _canonical(token: Token) -> str:
    """Return a token as sqlglot cannot misread it. What a string says does not matter to the check."""
    match token.kind:
        case TokenKind.COMMENT:
            return " "
        case TokenKind.STRING if not _UNAMBIGUOUS.fullmatch(token.text):
            return "'x'"
        case TokenKind.NAME if not _UNAMBIGUOUS.fullmatch(token.text):
            return f"{token.text[0]}x{token.text[-1]}"
        case TokenKind.WORD if not token.text.isascii():
            return "x"
    return token.text


def _line_of(word: str, tokens: Sequence[Token]) -> int:
    line = next((token.line for token in tokens if token.kind is TokenKind.WORD and token.name == word), None)
    return line if line is not None else tokens[0].line


def _sqlglot_dialect(names: Sequence[str]) -> Any:
    from sqlglot import Dialect

    return next(filter(None, map(Dialect.get, names)), Dialect)


def _sqlglot_tokens(sql: str, dialect: Sequence[str], *, percent_placeholders: bool) -> list[Token]:
    """Return the tokens as sqlglot reads them, for a database whose lexical rules are not in `lexer`."""
    import sqlglot
    from sqlglot import TokenType

    kinds = {TokenType.IDENTIFIER: TokenKind.NAME, TokenType.NUMBER: TokenKind.NUMBER}
    try:
        pieces = _sqlglot_dialect(dialect)().tokenize(sql)
    except sqlglot.errors.TokenError as error:
        raise InputError(f"sql cannot be checked: {error}. {NOTHING_RUN}") from None
    tokens: list[Token] = []
    end, line = 0, 1
    for piece in pieces:
        # between two tokens there are spaces and comments
        if piece.start > end:
            tokens.append(Token(TokenKind.COMMENT, sql[end : piece.start], end, line))
        text = sql[piece.start : piece.end + 1]
        is_string = piece.token_type.name.endswith("STRING")
        word = TokenKind.WORD if text[:1].isalpha() or text[:1] == "_" else TokenKind.SYMBOL
        kind = TokenKind.STRING if is_string else kinds.get(piece.token_type, word)
        tokens.append(Token(kind, text, piece.start, piece.line))
        end, line = piece.end + 1, piece.line
    tokens.append(Token(TokenKind.COMMENT, sql[end:], end, line))
    for token in tokens:
        check_token(token, "", percent_placeholders=percent_placeholders)
    return tokens


def _refusal(line: int, problem: str, remedy: str) -> InputError:
    return InputError(
        f"sql may only read. It must be a single SELECT, but it contains {problem} (line {line}). {remedy} "
        f"{NOTHING_RUN}"
    )
