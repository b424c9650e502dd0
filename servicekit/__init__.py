"""Everything the services share: server, settings, errors, identity, database, interceptors, telemetry, testing."""
