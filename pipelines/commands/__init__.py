"""The commands of `smartphotocrafter` that need a checkout, ZenML and MLflow."""
