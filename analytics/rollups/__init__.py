"""Rollups: one SQL file each, which computes the rows of one segment of the ledger anew."""

from importlib.resources import files

ROLLUPS: dict[str, str] = {
    file.name.removesuffix(".sql"): file.read_text()
    for file in files(__name__).iterdir()
    if file.name.endswith(".sql")
}
