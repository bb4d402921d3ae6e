"""The status page of a monitor, for people: what it collects, and how the page is written."""
