"""OpenAI's API at the gateway."""
