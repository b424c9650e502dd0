"""The REST bridge to the services."""
