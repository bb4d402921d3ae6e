"""The command ``kt``.

``main`` has the table of all commands and runs one. The folders hold commands by their users:

  people     look up, verify and show the history of accounts
  owners     publish, change, revoke, erase and watch accounts
  operators  make and run a directory
  auditors   examine the logs and the data of a directory
  trials     try the whole system on this machine: ``kt demo`` and ``kt bench``

The other modules here are shared by several folders. The commands of the embedded node are with the node.
"""
