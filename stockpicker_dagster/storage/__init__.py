"""Where things are kept: the lake (Parquet) and the database."""
