"""A site: Flower ClientApp, policy, durable state; nothing leaves it but through secure aggregation."""
