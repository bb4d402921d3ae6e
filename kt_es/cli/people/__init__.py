"""Commands of people who look others up: get, history, epochs, checkpoint, verify."""
