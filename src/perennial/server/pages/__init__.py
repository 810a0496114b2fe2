"""The dashboard: pages that a person reads, rendered by the server from what the ledger and the inbox hold."""
