"""What both services share: settings, authentication, limits, audit, problem answers, metrics, database, cache, server.

``application.build`` makes an ASGI application of a ``ServiceDefinition``; ``server.serve`` runs it.
"""
