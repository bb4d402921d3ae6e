"""The event log. ``streams`` defines the interface; ``esdb`` implements it over EventStoreDB's protocol."""
