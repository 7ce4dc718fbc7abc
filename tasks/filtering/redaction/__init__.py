"""Secrets and personal data, replaced by placeholders."""
