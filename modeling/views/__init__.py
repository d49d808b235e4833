"""Pages of the product: home, data, training, models, playground, privacy."""
