"""Problems of other languages than Python: their tools, and the programs of answers and tests."""
