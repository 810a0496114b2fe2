"""What to do about a model, and why: reasons from facts, in pure code."""
