"""Users, passwords, ACLs and TLS: who a caller is, and which rights the caller has."""
