"""A malicious operator tells lies to the real ``kt`` commands: ``make lies``, ``python -m tools.lies``.

The operator of this harness has the signer's key, the VRF key, the event log and the front end. Each lie is
told to a command that runs as a separate process, over HTTP or gRPC on the loopback. The command has to catch
the lie, with the exit code and the sentence that docs/THREATS.md promises. The control, which is the same
set-up without the lie, has to pass.

    people      keys, profiles and signed mutations, all derived from names
    universe    one history of the directory: queue, records, heads and maps, signed as the operator likes
    answers     the answers of a front end about a universe
    frontend    the operator's front end: it serves a universe, or rewrites single answers
    nodes       the operator's event log: a node that another node can replace under the same address
    stage       the environment of a lie: a directory, a user, commands and processes
    registry    the definition of a lie, and the list of all lies
    running     runs lies and their controls
    catalogue/  the lies, a few lines each
"""
