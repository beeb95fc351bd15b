"""Before a run: configuration, data, model and machine looked over, every problem collected."""
