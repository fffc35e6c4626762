"""One module per dataset, named after its slug, each with a `CONVERTER`."""
