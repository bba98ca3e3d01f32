"""Money is a whole number of nano-US-dollars; decimal dollars exist only at the edges."""

from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

NANO = 1_000_000_000


def nano_from_usd(usd: Decimal | str | int | float) -> int:
    """Dollars to nano-dollars, rounded half up.

    A float is read as the decimal that it prints as (`0.0000025` is exactly 2,500 nano-dollars).
    Raises ValueError for what is not a finite number.
    """
    try:
        amount = Decimal(str(usd))
        if not amount.is_finite():
            raise ValueError(f"not an amount of money: {usd!r}")
        return int((amount * NANO).to_integral_value(rounding=ROUND_HALF_UP))
    except InvalidOperation as error:
        raise ValueError(f"not an amount of money: {usd!r}") from error


def usd(nano: int) -> float:
    """Nano-dollars as a number for display; the integer stays the authority."""
    return nano / NANO


def format_usd(nano: int) -> str:
    """Nano-dollars as exact decimal dollars without trailing zeros: `0.0171`."""
    sign = "-" if nano < 0 else ""
    whole, rest = divmod(abs(nano), NANO)
    fraction = f"{rest:09d}".rstrip("0")
    return f"{sign}{whole}.{fraction}" if fraction else f"{sign}{whole}"


def divide_half_up(amount: int, divisor: int) -> int:
    """Integer division of a non-negative amount, rounded half up."""
    return (2 * amount + divisor) // (2 * divisor)
