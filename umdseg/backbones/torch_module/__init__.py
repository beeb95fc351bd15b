"""Any torch module with a card: how a user brings a model of their own without touching this package."""
