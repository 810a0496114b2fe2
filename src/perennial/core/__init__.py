"""Records, protocols and errors that every other package may use; knows no framework."""
