"""The durable record of every series and stage."""
