"""kt-es: a key transparency directory whose only truth is a handful of EventStoreDB streams."""

__version__ = "0.1.0"
