"""Prefect flows beside the pipeline itself: parameter sweep, sensor for new data, audit."""
