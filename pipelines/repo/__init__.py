"""Everything that reads DVC or git: the stage graph, dvc.lock, experiments, commits, code dependencies."""
