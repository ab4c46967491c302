"""Further Prefect flows of the pipeline: parameter sweep, sensor for new images, audit of the artifacts."""
