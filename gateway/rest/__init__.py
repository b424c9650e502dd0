"""The contract's routes: requests to messages, messages to answers and events, and their OpenAPI document."""
