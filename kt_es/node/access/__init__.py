"""Who calls, and what they may: users, passwords, ACLs, TLS."""
