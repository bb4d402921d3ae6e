"""Generated code. ``make proto`` writes it from the folder ``proto``."""
