"""The report: HTML page, Markdown, plots and files of an evaluation."""
