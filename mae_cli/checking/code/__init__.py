"""Code: programs that a model wrote, run in a sandbox and checked by tests."""
