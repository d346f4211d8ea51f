"""Engine hf: transformers in this process, one decode loop on CPU and GPU."""
