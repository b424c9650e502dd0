"""Language models: how they are asked, what they answer, and what goes wrong at a provider."""
