"""Engine openai: any OpenAI-compatible server."""
