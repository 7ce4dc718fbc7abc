"""Tables of rows: schemas, Parquet files, and values of single rows cached across runs."""
