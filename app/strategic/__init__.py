"""The strategic service: engine, model, API and store."""
