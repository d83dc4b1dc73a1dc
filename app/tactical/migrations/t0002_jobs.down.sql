DROP TABLE training_job_events, training_jobs, model_activations;
