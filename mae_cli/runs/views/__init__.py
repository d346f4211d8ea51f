"""Views: what a run folder shows (trace, diff, adapters, summary)."""
