"""The composed configuration: its schema, and its check before anything is built."""
