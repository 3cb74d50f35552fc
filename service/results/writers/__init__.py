"""What writes the objects of each kind; `service.results.kinds` lists them, `service.results.checks` checks them."""
