"""What is allowed and what was used: knows tenants, not datasets."""
