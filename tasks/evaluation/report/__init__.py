"""The files of an evaluation: metrics, gate, tables of rows and texts, and the report."""
