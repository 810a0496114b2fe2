"""Servers that are measured: the processes they are, what they cost, and a client that costs no server anything."""
