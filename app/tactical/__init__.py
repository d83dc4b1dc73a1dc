"""Three trading agents: their environment, training, model registry, queue of trainings and HTTP service."""
