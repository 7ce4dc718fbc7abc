"""Git repositories: files at a commit, and commits as edits."""
