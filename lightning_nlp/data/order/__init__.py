"""Documents dealt to lanes, lanes to global batches: an order that depends on nothing but its settings."""
