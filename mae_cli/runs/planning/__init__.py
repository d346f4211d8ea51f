"""`mae plan`: a few rows of each step are really made; time, tokens, memory and disk of the run follow from them."""
