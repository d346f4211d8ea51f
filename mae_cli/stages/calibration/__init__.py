"""Calibration: how well a judge tells right answers from wrong ones, for `mae calibrate`."""
