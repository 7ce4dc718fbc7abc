"""What the claims about preparing data rest on."""
