"""What `finetune` needs: which rows are trained, the call of the trainer, the description of what it wrote."""
