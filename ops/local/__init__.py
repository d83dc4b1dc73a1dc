"""Real servers on loopback without installation: PostgreSQL with pgvector, a Redis-compatible cache, an own CA."""
