"""An owner's watch: no epoch is skipped, no label hides another, and no alarm is lost."""
