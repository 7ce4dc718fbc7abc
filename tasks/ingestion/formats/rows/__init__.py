"""Row formats: a record -> the texts of a row, one module per format."""
