"""What runs inside a training image: `train`, `serve` and `compute`, by SageMaker's contract for containers.

The same code runs as an image on AWS and as a plain subprocess on this machine, under any root folder (`SM_ML_ROOT`,
by default `/opt/ml`). It knows nothing of Dagster, of the lake or of a platform: files and variables come in, files,
answers and an exit code go out. `python -m stockpicker_dagster.training.container train`, `... serve` and
`... compute` start it.
"""
