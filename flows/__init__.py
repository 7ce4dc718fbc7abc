"""The flow, the command line and the profiles."""
