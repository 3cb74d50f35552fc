"""Which models run on which series; which archive gets the results of which sender."""
