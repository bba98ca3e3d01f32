"""Projections of the ledger in ClickHouse or chDB, and the questions they answer."""
