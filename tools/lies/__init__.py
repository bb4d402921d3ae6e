"""A malicious operator tells lies to the real ``kt`` commands: ``make lies``, ``python -m tools.lies``.

The operator of this harness holds the signer's key, the VRF key, the event log and the front end. Each lie
is told to a command that runs as a process of its own, over HTTP or gRPC on the loopback, and the command
has to catch it: with the exit code and the sentence that docs/THREATS.md promises. The same set-up without
the lie, the control, has to pass.

    people      keys, profiles and signed mutations, all derived from names
    universe    one history of the directory: queue, records, heads and maps, signed as the operator likes
    answers     what a front end says about a universe
    frontend    the operator's front end: it serves a universe, or rewrites single answers
    nodes       the operator's event log: a node that can be replaced by another one under its address
    stage       where a lie is told: a directory, a user, commands and processes
    registry    what a lie is, and the list of all
    running     runs lies and their controls
    told/       the lies, a few lines each
"""
