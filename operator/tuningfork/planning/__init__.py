"""Pure planning: (observed, now) -> Plan, for each kind. No client, no clock, no settings object of a library."""
