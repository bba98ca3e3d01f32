"""The bus and the append-only log: all NATS input and output lives here."""
