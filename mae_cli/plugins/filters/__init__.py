"""What is trained and what is stored: pure functions over whole rows, each drop with its reason."""
