"""Tuning: parts of `finetune`, namely the call of the trainer and the description of what it wrote."""
