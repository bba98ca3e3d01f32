"""Who may call, as every process knows it: a fold of the ledger's `access.*` events."""
