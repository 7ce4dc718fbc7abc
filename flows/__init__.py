"""What a person starts: the flow, the command line, the profiles."""
