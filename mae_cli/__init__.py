"""mae: improve a language model with its own work, in six commands over plain files."""

__version__ = "0.1.0"
