"""Make the models, thinly: trainers, evaluation, runs of a study."""
