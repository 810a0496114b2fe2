"""What to use, how sure that is, and at what price: advice from the user's own history."""
