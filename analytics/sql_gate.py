"""Judges users' SQL: only what is known to be harmless passes, and what runs is written by us.

A statement is parsed, every node of its tree is looked up in lists of what is allowed, tables are
replaced by views narrowed to the caller's data, and the SQL is generated anew from the tree. The
user's own text never reaches the database. Read-only mode alone would not do: the embedded engine
lets `file()`, `into outfile` and `kill query` through.
"""

import re
from typing import Any, NamedTuple

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, SqlglotError, TokenError, UnsupportedError

from analytics.asks import Scope
from analytics.sql_words import BY_NAME, FUNCTIONS, NODES, PARTS, TYPES
from schemas.errors import InvalidRequest

MOST_ROWS = 10_000

_DIALECT = "clickhouse"
_LONGEST = 10_000
_TABLES = {"events": "public_events", "calls": "public_calls"}
# Without a column that says whose they are, so for nobody but an administrator.
_TABLES_OF_ALL = {
    **_TABLES,
    "budget_spend": "public_budget_spend",
    "target_stats": "public_target_stats",
}
_CTE_PREFIX = "cte_"
_STRING = exp.DataType.build("String", dialect=_DIALECT)
_NAME = re.compile(r"[^\W\d][\w -]{0,63}")
_NUMBER = re.compile(r"\d+(\.\d*)?([eE][+-]?\d+)?|\.\d+")
_WORD = re.compile(r"\w+")


class SafeSql(NamedTuple):
    """A statement that may run on a read-only client, with its bound parameters."""

    text: str
    parameters: dict[str, Any]


def judge(sql: str, scope: Scope | None) -> SafeSql:
    """The harmless form of a statement, limited and narrowed to `scope` (None: all tenants).

    Raises InvalidRequest that says what to change.
    """
    tree = _parse(sql)
    for node in tree.walk():
        _check(node)
    _redirect(tree, scope)
    text = _generate(_limited(tree))
    if scope is None:
        return SafeSql(text, {})
    narrowing = {"scope_project": scope.project, "scope_key_id": scope.key_id}
    return SafeSql(text, {name: value for name, value in narrowing.items() if value is not None})


def _parse(sql: str) -> exp.Query:
    if len(sql) > _LONGEST:
        raise _refused(f"the statement is longer than {_LONGEST} characters: shorten it")
    try:
        statements = sqlglot.parse(sql, dialect=_DIALECT)
    except RecursionError as error:
        raise _refused("the statement is nested too deeply: flatten it") from error
    except (ParseError, TokenError) as error:
        raise _refused(f"the statement cannot be read: {_plain(error)}") from error
    if len(statements) != 1 or statements[0] is None:
        raise _refused("send exactly one statement")
    tree = statements[0]
    if not isinstance(tree, exp.Select | exp.Union):
        raise _refused("only SELECT is allowed: begin the statement with SELECT or WITH")
    return tree


def _check(node: exp.Expr) -> None:
    """Refuse a node that is not in the lists, whatever it may mean."""
    if isinstance(node, exp.Func) and type(node) not in NODES:
        _check_function(node)
    elif type(node) not in NODES:
        raise _refused(f"{type(node).__name__} is not allowed here: use plain SELECT")
    allowed = PARTS.get(type(node))
    if allowed is not None:
        for part, value in node.args.items():
            if value and part not in allowed:
                raise _refused(f"{part.strip('_').upper()} is not allowed: leave it out")
    if isinstance(node, exp.Identifier):
        _check_text(_NAME, node.name, "name")
    elif isinstance(node, exp.Var):
        _check_text(_WORD, node.name, "word")
    elif isinstance(node, exp.Literal):
        _check_literal(node)
    elif isinstance(node, exp.DataType) and node.this not in TYPES:
        raise _refused(f"type {node.sql(_DIALECT)} is not allowed: cast to a plain type")
    elif isinstance(node, exp.In) and any(one.find(exp.Column) for one in node.expressions):
        # `x in (name)` reads a table of that name.
        raise _refused("IN takes constants or a SELECT: compare columns with =")


def _check_function(node: exp.Func) -> None:
    if type(node) in FUNCTIONS.classes:
        return
    name = node.name if isinstance(node, BY_NAME) else node.sql_name()
    if not isinstance(node, BY_NAME) or name.lower() not in FUNCTIONS.names:
        raise _refused(
            f"function {name[:40]} is not allowed: use aggregates, dates, numbers and text"
        )


def _check_text(pattern: re.Pattern[str], text: str, what: str) -> None:
    if not pattern.fullmatch(text):
        raise _refused(f"{what} {text[:40]!r} is not allowed: use letters, digits and _")


def _check_literal(node: exp.Literal) -> None:
    if not node.is_string:
        _check_text(_NUMBER, node.name, "number")
    elif "\\" in node.name or "\0" in node.name:
        raise _refused("backslashes in strings are not allowed: leave them out")


def _redirect(tree: exp.Query, scope: Scope | None) -> None:
    """Point every table at its view, and every CTE at a name that no table can have.

    The renaming matters where a CTE's name is used outside its reach: there ClickHouse would look
    for a table, and must not find one.
    """
    tables = _TABLES_OF_ALL if scope is None else _TABLES
    ctes = list(tree.find_all(exp.CTE))
    names = {cte.alias for cte in ctes}
    for cte in ctes:
        if cte.alias in _TABLES_OF_ALL:
            raise _refused(f"{cte.alias} is a table: give the WITH query another name")
        if not isinstance(cte.this, exp.Query):
            raise _refused("WITH takes a query in parentheses: WITH name AS (SELECT ...)")
        cte.args["alias"].set("this", _renamed(cte.alias))
    for table in list(tree.find_all(exp.Table)):
        alias = exp.TableAlias(this=exp.to_identifier(table.alias or table.name, quoted=True))
        if table.name in names:
            table.replace(exp.Table(this=_renamed(table.name), alias=alias))
        elif table.name in tables:
            view = _narrowed(tables[table.name], scope)
            table.replace(exp.Subquery(this=view, alias=alias))
        else:
            there = " or ".join(tables)
            raise _refused(f"there is no table {table.name[:40]!r}: use {there}")


def _renamed(cte: str) -> exp.Identifier:
    return exp.to_identifier(_CTE_PREFIX + cte, quoted=True)


def _narrowed(view: str, scope: Scope | None) -> exp.Select:
    rows = exp.select("*").from_(exp.Table(this=exp.to_identifier(view, quoted=True)))
    if scope is None:
        return rows
    for column in ("project", "key_id"):
        if getattr(scope, column) is not None:
            value = exp.Placeholder(this=f"scope_{column}", kind=_STRING)
            rows = rows.where(exp.column(column, quoted=True).eq(value))
    return rows


def _limited(tree: exp.Query) -> exp.Query:
    """One row more than an answer holds tells that there were more."""
    if isinstance(tree, exp.Union):
        return exp.select("*").from_(tree.subquery("united")).limit(MOST_ROWS + 1)
    return tree if tree.args.get("limit") else tree.limit(MOST_ROWS + 1)


def _generate(tree: exp.Query) -> str:
    """The text of a tree; it must mean the same tree again when it is read back."""
    try:
        text = tree.sql(
            _DIALECT, identify=True, comments=False, unsupported_level=sqlglot.ErrorLevel.RAISE
        )
        again = sqlglot.parse_one(text, dialect=_DIALECT)
    except UnsupportedError as error:
        raise _refused(f"the statement cannot be written for ClickHouse: {error}") from error
    except (SqlglotError, RecursionError) as error:
        raise _refused("the statement is ambiguous: write it in a simpler way") from error
    if again.sql(_DIALECT, identify=True, comments=False) != text:
        raise _refused("the statement is ambiguous: write it in a simpler way")
    return text


def _plain(error: Exception) -> str:
    """The parser's message without its terminal colours and quotation of the statement."""
    return str(error).splitlines()[0].rstrip(". ")


def _refused(message: str) -> InvalidRequest:
    return InvalidRequest(message, code="sql_refused", param="sql")
