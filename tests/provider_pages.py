"""The table of vendors in `docs/providers.md`: `python -m tests.provider_pages` writes it anew."""

from pathlib import Path

from schemas.catalog import Vendor, load_vendors

PAGE = Path(__file__).parents[1] / "docs" / "providers.md"
_BEGIN, _END = "<!-- vendors -->\n", "<!-- /vendors -->"


def with_vendors(text: str) -> str:
    """The page with the table of the vendors that are built in now."""
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    rows = ["| provider | dialect | key | address |", "|---|---|---|---|", *map(_row, _by_name())]
    return before + _BEGIN + "\n".join(rows) + "\n" + _END + after


def _by_name() -> list[Vendor]:
    return sorted(load_vendors(), key=lambda vendor: vendor.name)


def _row(vendor: Vendor) -> str:
    keys = ", ".join(f"`{one}`" for one in vendor.key_envs) or _other_ways(vendor)
    cells = [vendor.name, vendor.dialect, keys, _address(vendor)]
    return f"| {' | '.join(cells)} |"


def _other_ways(vendor: Vendor) -> str:
    if not vendor.signs_in:
        return "needs none"
    variables = [vendor.option_envs[one] for one in (*vendor.requires, *vendor.signs_in[0])]
    return " and ".join(f"`{one}`" for one in variables)


def _address(vendor: Vendor) -> str:
    """Where it is; the variable that says so where nobody else can."""
    if vendor.base_url:
        return f"`{vendor.base_url}`"
    return f"`{vendor.url_env}`" if vendor.url_env else "by its region"


if __name__ == "__main__":
    PAGE.write_text(with_vendors(PAGE.read_text()))
