"""The embedded node: a server of the EventStoreDB protocol on a local disk. Its README has the plan."""
