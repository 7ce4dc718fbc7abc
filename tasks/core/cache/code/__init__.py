"""What the code digest reads of the project's files."""
