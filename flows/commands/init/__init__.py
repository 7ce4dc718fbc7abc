"""`finetune init`: a profile for what is in a folder, on this machine."""
