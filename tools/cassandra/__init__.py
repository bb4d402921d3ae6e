"""Real Apache Cassandra nodes on loopback addresses, for tests and benchmarks.

    with Cluster(directory, nodes=3) as cluster:
        session = cassandra.cluster.Cluster(cluster.addresses, port=cluster.port).connect()
        cluster.nodes[0].kill()

Maven fetches the jars once (``jars``). ``settings`` has the configuration of a node, ``node`` its process,
``cluster`` several nodes. ``python -m tools.cassandra`` runs a cluster until it is interrupted.
"""

from tools.cassandra.cluster import Cluster
from tools.cassandra.errors import CassandraError, NotInstalledError
from tools.cassandra.node import Node

__all__ = ["CassandraError", "Cluster", "Node", "NotInstalledError"]
