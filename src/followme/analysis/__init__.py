"""The analytic model, as pure functions: chains of the user's distance, and what they say of a service."""
