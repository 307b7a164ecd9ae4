"""The pipeline.config of the Object Detection API, as settings."""
