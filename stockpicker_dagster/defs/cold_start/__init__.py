"""The job that makes what the deployment lacks."""
