"""Statistics: intervals, paired tests, power, agreement."""
