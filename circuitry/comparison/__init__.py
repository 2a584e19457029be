"""Values by class and pair of domains, and what they are read against: ceiling, chance, interval, test."""
