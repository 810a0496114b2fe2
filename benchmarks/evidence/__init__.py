"""Whether the defaults win and the advice is right: goals, the settings registered before, and what was measured."""
