"""Models: where weights lie, what names them, how they are loaded, merged and described."""
