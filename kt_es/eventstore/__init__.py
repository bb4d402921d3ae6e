"""The event log: ``streams`` says what kt-es needs of it, ``esdb`` speaks EventStoreDB's protocol."""
