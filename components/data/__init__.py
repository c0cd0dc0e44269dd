"""Data: photos become a manifest, a validated manifest, annotations and pairs; each step one typed artifact."""
