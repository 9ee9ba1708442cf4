"""What a tool predicts."""
