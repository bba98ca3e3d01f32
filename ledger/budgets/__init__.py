"""Budgets that hold: accounts, leases and holds, decided by one governor."""
