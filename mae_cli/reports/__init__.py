"""Reports: rows to figures, figures to text."""
