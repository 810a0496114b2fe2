"""What to use, how sure that is, and at what price: from a user's own history, or from what is known without one."""
