"""Generation: planned rows in, finished rows out, resumable; shared by every stage that asks a model."""
