"""Cache keys, plans and artifacts: which stages run, and where their outputs are stored."""
