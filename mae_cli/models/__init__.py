"""Models: finding, naming, loading, merging and describing weights."""
