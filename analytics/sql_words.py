"""The lists of what users' SQL may consist of: clauses, operators, types and functions."""

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError

# Every kind of node that is not a function. What is missing here is refused.
NODES: frozenset[type[exp.Expr]] = frozenset(
    {
        exp.Select, exp.Union, exp.Subquery, exp.With, exp.CTE, exp.From, exp.Join, exp.Where,
        exp.Group, exp.Having, exp.Order, exp.Ordered, exp.Limit, exp.Offset, exp.Distinct,
        exp.Table, exp.TableAlias, exp.Alias, exp.Column, exp.Identifier, exp.Star, exp.Literal,
        exp.Boolean, exp.Null, exp.Paren, exp.Tuple, exp.Bracket, exp.And, exp.Or, exp.Not, exp.EQ,
        exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Is, exp.In, exp.Between, exp.Like, exp.ILike,
        exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod, exp.Neg, exp.DPipe, exp.Case, exp.If, exp.Cast,
        exp.DataType, exp.DataTypeParam, exp.Interval, exp.Var, exp.Window, exp.WindowSpec,
    }
)  # fmt: skip

# The parts a node may have, for the nodes that can carry more than expressions.
PARTS: dict[type[exp.Expr], frozenset[str]] = {
    exp.Select: frozenset(
        {"with_", "expressions", "distinct", "from_", "joins", "where", "group", "having", "order"}
        | {"limit", "offset"}
    ),
    exp.Union: frozenset({"with_", "this", "expression", "distinct", "order", "limit", "offset"}),
    exp.Subquery: frozenset({"this", "alias", "order", "limit", "offset"}),
    exp.With: frozenset({"expressions"}),
    exp.CTE: frozenset({"this", "alias"}),
    exp.Table: frozenset({"this", "alias"}),
    exp.TableAlias: frozenset({"this"}),
    exp.Column: frozenset({"this", "table"}),
    exp.Star: frozenset({"except_"}),
    exp.Join: frozenset({"this", "kind", "side", "on", "using"}),
    exp.Group: frozenset({"expressions"}),
    exp.Limit: frozenset({"expression", "offset"}),
    exp.Offset: frozenset({"expression"}),
    exp.In: frozenset({"this", "expressions", "query"}),
    exp.Cast: frozenset({"this", "to"}),
}

_TYPE = exp.DataType.Type
TYPES = frozenset(
    {
        _TYPE.TINYINT, _TYPE.SMALLINT, _TYPE.INT, _TYPE.BIGINT, _TYPE.UTINYINT, _TYPE.USMALLINT,
        _TYPE.UINT, _TYPE.UBIGINT, _TYPE.FLOAT, _TYPE.DOUBLE, _TYPE.DECIMAL, _TYPE.TEXT,
        _TYPE.VARCHAR, _TYPE.BOOLEAN, _TYPE.DATE, _TYPE.DATETIME, _TYPE.DATETIME64,
        _TYPE.TIMESTAMP, _TYPE.UUID,
    }
)  # fmt: skip

_NAMES = """
count countIf sum sumIf avg avgIf min minIf max maxIf any anyIf anyLast argMin argMax uniq uniqIf
uniqExact uniqExactIf median quantile quantileIf quantileExact quantileTDigest quantiles quantilesIf
quantilesTDigest stddevPop stddevSamp varPop varSamp topK groupUniqArray
row_number rank dense_rank lagInFrame leadInFrame lag lead first_value last_value
abs round floor ceil sqrt log exp pow intDiv greatest least
if multiIf coalesce ifNull nullIf isNull isNotNull isNaN
toString toInt64 toUInt64 toFloat64 toDate toDateTime toDateTime64
toStartOfMinute toStartOfFiveMinutes toStartOfFifteenMinutes toStartOfHour toStartOfDay
toStartOfWeek toStartOfMonth toStartOfQuarter toStartOfYear toStartOfInterval toMonday
dateTrunc dateDiff dateAdd dateSub addHours addDays addWeeks addMonths
subtractHours subtractDays subtractWeeks subtractMonths
now today yesterday toYear toMonth toDayOfMonth toDayOfWeek toHour toMinute toUnixTimestamp
formatDateTime toYYYYMM toYYYYMMDD
lower upper length substring concat startsWith endsWith position match replaceAll replaceOne
trim trimLeft trimRight
"""
# Nodes that carry the name as the user wrote it, for functions the parser has no class for.
BY_NAME = (exp.Anonymous, exp.AnonymousAggFunc, exp.ParameterizedAgg)

_ARGUMENTS = ("", "a", "a, b", "a, b, c", "'day', a, b")


class Functions:
    """The allowed functions: by name, and by the node classes the parser makes of these names."""

    def __init__(self, names: str) -> None:
        self.names = frozenset(name.lower() for name in names.split())
        self.classes = frozenset(
            kind
            for name in names.split()
            for arguments in _ARGUMENTS
            if (kind := _class_of(f"{name}({arguments})")) and not issubclass(kind, BY_NAME)
        )


def _class_of(call: str) -> type[exp.Expr] | None:
    try:
        return type(sqlglot.parse_one(f"select {call}", dialect="clickhouse").expressions[0])
    except ParseError:
        return None


FUNCTIONS = Functions(_NAMES)
